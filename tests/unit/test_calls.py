"""Calls in processes of their own, on this very machine (the module is tests/support/called.py)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from moorline.errors import Busy, Denied, Failed, NotOurs, Refused, Uncertain
from moorline.host.linux import Linux
from moorline.ports import Call
from moorline.secret import Secret


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> Iterator[Linux]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    host = Linux()
    yield host
    host.close()


def call(
    linux: Linux,
    *,
    deadline: float = 10,
    hold: Path | None = None,
    module: str = "tests.support.called",
    **question: Any,
) -> Mapping[str, Any]:
    return linux.call(Call("the library", module, Secret(question), deadline, hold))


def processes(text: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            if text in command and state != "Z":
                found.append(int(process.name))
    return found


def becomes_empty(text: str) -> bool:
    end = time.monotonic() + 5
    while processes(text) and time.monotonic() < end:
        time.sleep(0.02)
    return not processes(text)


def wait_for(file: Path) -> None:
    end = time.monotonic() + 10
    while not file.exists():
        assert time.monotonic() < end
        time.sleep(0.005)


def mine() -> list[int]:
    """The warm processes that are our children."""
    return [
        pid
        for pid in processes("moorline.host.forkserver.server tests.support.called")
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
    ]


def test_each_call_has_a_process_and_all_of_them_one_import(linux: Linux) -> None:
    answers = [call(linux, n=n) for n in range(3)]
    assert len({answer["pid"] for answer in answers}) == 3
    assert len({answer["imported"] for answer in answers}) == 1
    assert [answer["got"] for answer in answers] == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("family", [Refused, Denied, Failed, Busy, Uncertain, NotOurs])
def test_our_errors_come_through(linux: Linux, family: type[Exception]) -> None:
    with pytest.raises(family, match=r"as asked \(ask otherwise\)") as raised:
        call(linux, **{"raise": family.__name__})
    assert type(raised.value) is family


@pytest.mark.parametrize("way", ["break", "exit"])
def test_a_process_that_ends_without_an_answer_leaves_it_uncertain(linux: Linux, way: str) -> None:
    with pytest.raises(Uncertain, match="the process that called the library ended"):
        call(linux, **{way: True})
    assert call(linux)["got"] == {}


def test_a_module_that_is_not_there_is_refused(linux: Linux) -> None:
    with pytest.raises(Refused, match="the library cannot be used: No module named 'nosuch'"):
        call(linux, module="nosuch")


def test_many_calls_run_at_once(linux: Linux, tmp_path: Path) -> None:
    """Each ends when all of them have begun: one after the other they would wait for ever."""
    call(linux)
    meet = f"touch {tmp_path}/$$; until [ $(ls {tmp_path} | wc -l) = 20 ]; do sleep 0.1; done"
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: call(linux, deadline=120, run=["sh", "-c", meet]), range(20)))


def test_a_call_that_hangs_is_killed_with_what_it_started_and_delays_nobody(linux: Linux) -> None:
    call(linux)
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(call, linux, deadline=2, run=["sleep", "98.7"])
        call(linux)
        assert not hung.done()
        with pytest.raises(Uncertain, match="the library did not answer within 2 s"):
            hung.result()
    assert becomes_empty("sleep\x0098.7".replace("\0", " "))


def test_a_warm_process_that_was_killed_is_replaced(linux: Linux) -> None:
    call(linux)
    (pid,) = mine()
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # its name goes before its sockets do
    assert call(linux)["got"] == {}
    assert mine() != [pid]


def test_calls_under_way_end_with_their_warm_process(linux: Linux, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(call, linux, sleep=60, begun=str(tmp_path / "begun"))
        wait_for(tmp_path / "begun")
        os.kill(mine()[0], signal.SIGKILL)
        with pytest.raises(Uncertain, match="ended"):
            under_way.result(timeout=5)
    assert call(linux)["got"] == {}


def test_a_warm_process_that_is_stuck_is_killed_and_replaced(linux: Linux) -> None:
    call(linux)
    (pid,) = mine()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(Uncertain, match="did not answer"):
        call(linux, deadline=0.2)
    assert call(linux)["got"] == {}
    assert pid not in mine()


def test_the_hold_is_free_when_the_answer_is_read_and_taken_before_it(
    linux: Linux, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    for _ in range(5):
        call(linux, hold=hold)
        assert not linux.held(hold)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(call, linux, hold=hold, sleep=0.5, begun=str(tmp_path / "begun"))
        wait_for(tmp_path / "begun")
        assert linux.held(hold)
        with pytest.raises(Busy):
            call(linux, hold=hold)
        under_way.result()


def test_what_was_begun_goes_on_after_its_owner_and_then_all_is_gone(tmp_path: Path) -> None:
    begun, done, hold = tmp_path / "begun", tmp_path / "done", tmp_path / "hold"
    pid = os.fork()
    if not pid:  # the owner
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        script = ["sh", "-c", f"sleep 0.5; touch {done}"]
        with suppress(BaseException):
            call(Linux(), hold=hold, run=script, begun=str(begun))
        os._exit(0)
    linux = Linux()
    wait_for(begun)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert linux.held(hold)
    end = time.monotonic() + 10
    while linux.held(hold) and time.monotonic() < end:
        time.sleep(0.01)
    assert done.exists()
    linux.close()


def test_nothing_is_left_when_it_is_closed(linux: Linux) -> None:
    call(linux)
    assert mine()
    linux.close()
    assert not mine()


def test_secrets_are_in_no_command_line(linux: Linux, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(call, linux, password="sesame-7301", sleep=0.2, begun=str(begun))
        wait_for(begun)
        assert not processes("sesame-7301")
        under_way.result()
