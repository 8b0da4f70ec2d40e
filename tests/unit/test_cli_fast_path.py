"""What is understood without click is what click would have understood, and comes to the same."""

from __future__ import annotations

import json
import os
import socket as sockets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from moorline.cli import fast_path
from moorline.cli.commands import main
from moorline.cli.typed_disk_options import asked
from moorline.errors import NotFound
from moorline.local_api import json_types

VIEW = {
    "volume": "v1",
    "guest": "web01",
    "guest_id": "g",
    "host": "h",
    "backend": "local",
    "link": "/srv",
    "wanted": "attached",
    "seen": "attached",
    "device": "vdb",
    "since": 5.0,
    "next": "nothing",
    "source": None,
    "trouble": None,
    "also_wanted_by": [],
    "used_by": [],
}
TYPED = """web01 /srv/a.raw nfs://x/y a.raw - -- -q --quiet --shared --read-only --dry-run
    --state-dir /tmp --format raw vmdk --bus scsi --target sda --level connected --timeout 5 1.5
    -1 1e3 90000 --volume v1 --output json -o --help --format=raw --quie --connection -c"""
WORDS = st.lists(st.sampled_from([*TYPED.split(), "", "\udcff", "x" * 5000]), max_size=7)


@pytest.fixture(autouse=True)
def nobody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOORLINE_HYPERVISOR", "MOORLINE_STATE_DIR", "_MOORLINE_COMPLETE"):
        monkeypatch.delenv(name, raising=False)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["list", "attach"]), WORDS)
@example("attach", ["web01", "/srv/a.raw", "--format", "raw"])
@example("attach", ["web01", "/srv/a.raw", "--format", "raw", "--bus", "scsi", "--shared"])
@example("attach", ["web01", "/srv/a.raw", "--format", "raw", "--on-error", "stop"])
def test_it_is_understood_as_click_understands_it(name: str, words: list[str]) -> None:
    typed = fast_path.read([name, *words])
    if typed is None:
        return  # click does it
    command = main.commands[name]
    try:
        params = command.make_context(name, list(words)).params
    except (click.UsageError, NotFound):
        # What is refused there is not asked for here.
        with pytest.raises(fast_path._SlowPath):
            fast_path._request(typed)
        return
    assert params["quiet"] == bool({"-q", "--quiet"} & typed.options.keys())
    said = typed.says("--state-dir")
    assert params["state_dir"] == (Path(said) if said else None)  # nfs://x is nfs:/x
    if name == "list":
        return
    try:
        fields = fast_path._request(typed)
    except fast_path._SlowPath:
        return
    assert fields["guest"] == params["guest"]
    assert (fields["connection"],) == params["volume_urls"]
    for option, value in {"format": "format_", **{n: n for n in ("volume", "level")}}.items():
        assert fields[option] == params[value]
    assert (fields["timeout"], fields["dry_run"]) == (params["timeout"], params["dry_run"])
    options = asked(params)
    assert fields["options"] == json_types.encode(options, brief=True)


class Stub:
    """An agent that says *lines* to whatever is asked but what it is, and keeps what was asked."""

    def __init__(self, state: Path, lines: list[Any], status: int = 200) -> None:
        self.asked: list[Any] = []
        self._state, self._status = state, status
        self._lines = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        self._listening = sockets.socket(sockets.AF_UNIX)
        self._listening.bind(str(state / "agent.sock"))
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                target = stream.readline().split()[:2]
                headers = dict(
                    line.strip().lower().split(b": ", 1) for line in iter(stream.readline, b"\r\n")
                )
                body = stream.read(int(headers.get(b"content-length", 0)))
                answer, kind, status = self._lines, b"application/x-ndjson", self._status
                if target[1] == b"/v1/about":
                    answer, kind, status = self._about(), b"application/json", 200
                else:
                    self.asked.append((target, json.loads(body or b"null")))
                if status != 200:
                    kind = b"application/problem+json"
                head = b"HTTP/1.0 %d X\r\nContent-Type: %b\r\n\r\n" % (status, kind)
                connection.sendall(head + answer)

    def _about(self) -> bytes:
        told = {"version": "1", "host": "h", "hypervisor": "x:///", "options": "d"}
        return json.dumps({**told, "state_dir": str(self._state)}).encode()

    def close(self) -> None:
        self._listening.shutdown(sockets.SHUT_RDWR)
        self._listening.close()


@contextmanager
def agent(state: Path, lines: list[Any], status: int = 200) -> Iterator[Stub]:
    stub = Stub(state, lines, status)
    try:
        yield stub
    finally:
        stub.close()


OUTCOME = {"steps": ["connect", "attach"], "view": VIEW, "unseen": ""}
REFUSED = {"error": "refused", "code": 3, "message": "no", "hint": "do"}
ATTACH = ["attach", "web01", "/srv/a.raw", "--format", "raw"]


@pytest.mark.parametrize(
    ("words", "lines", "status", "code"),
    [
        (["list"], [{}, {"result": [VIEW, {**VIEW, "device": ""}]}], 200, 0),
        (["list"], [{"result": []}], 200, 0),
        (["list"], [REFUSED], 422, 3),
        (["list"], [{"problem": {**REFUSED, "error": "busy"}}], 200, 8),
        (["list"], [{"problem": {"error": "defect", "message": "m"}}], 200, 6),
        (["list"], [{"problem": {**REFUSED, "error": "conflict"}}], 200, 5),
        (ATTACH, [{"progress": "attaching"}, {"result": OUTCOME}], 200, 0),
        ([*ATTACH, "--dry-run"], [{"result": {**OUTCOME, "unseen": "x"}}], 200, 0),
        ([*ATTACH, "--dry-run"], [{"result": {**OUTCOME, "steps": []}}], 200, 0),
        ([*ATTACH, "--level", "connected", "--timeout", "5"], [{"result": OUTCOME}], 200, 0),
        (
            [*ATTACH, "--bus", "scsi", "--shared", "--read-only", "-q"],
            [{"result": OUTCOME}],
            200,
            0,
        ),
        (ATTACH, [{"problem": {**REFUSED, "error": "denied", "hint": ""}}], 200, 9),
        (ATTACH, [{"progress": "attaching"}], 200, 6),
        (ATTACH, [{"result": {"colour": "red"}}], 200, 6),
        ([*ATTACH, "--dry-run"], [{"result": 5}], 200, 11),
    ],
)
def test_it_comes_to_the_same(
    words: list[str],
    lines: list[Any],
    status: int,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*words, "--state-dir", str(tmp_path)]
    with agent(tmp_path, lines, status) as stub:
        assert fast_path.run(words) == code
        short = capsys.readouterr()
        done = CliRunner().invoke(main, words)
    assert done.exit_code == code
    assert done.stdout == short.out
    if code not in (6, 11):  # why it was no answer may be told otherwise
        assert done.stderr == short.err
    assert short.err.startswith("moorline: ") == bool(code)
    first, second = stub.asked
    assert first == second


@pytest.mark.parametrize(
    ("words", "lines", "code"),
    [
        (["list"], [{"result": [VIEW]}], 0),
        (["list"], [{"problem": {**REFUSED, "error": "busy"}}], 8),
        (ATTACH, [{"progress": "attaching"}, {"result": OUTCOME}], 0),
        (["list", "--output", "json"], [{"result": [VIEW]}], 0),
    ],
    ids=["list", "refused", "attach", "the slow path"],
)
def test_what_the_shell_starts_says_all_of_it_and_ends(
    words: list[str], lines: list[Any], code: int, tmp_path: Path
) -> None:
    """Into pipes, where what is not flushed is lost with a process that ends at once."""
    words = [*words, "--state-dir", str(tmp_path)]
    with agent(tmp_path, lines):
        process = subprocess.run(
            [sys.executable, "-m", "moorline.cli", *words], capture_output=True, text=True
        )
        told = CliRunner().invoke(main, words)
    assert process.returncode == code == told.exit_code
    assert (process.stdout, process.stderr) == (told.stdout, told.stderr)


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_said_to_its_end(word: str) -> None:
    slow = "from moorline.cli.commands import main; main(['--help'], prog_name='moorline')"
    told, plain = (
        subprocess.run([sys.executable, *how], capture_output=True, check=True)
        for how in (["-m", "moorline.cli", word], ["-c", slow])
    )
    assert (told.stdout, told.stderr) == (plain.stdout, b"")


def test_a_connection_in_a_file_is_sent_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"connection_info": {"driver_volume_type": "nfs", "data": {"a": "é"}}}')
    words = ["attach", "web01", "--connection", str(file), "--state-dir", str(tmp_path)]
    with agent(tmp_path, [{"result": OUTCOME}]) as stub:
        assert fast_path.run(words) == 0
        assert CliRunner().invoke(main, words).exit_code == 0
        file.write_text("[")
        assert fast_path.run(words) is None
        file.unlink()
        os.mkfifo(file)
        assert fast_path.run(words) is None  # and was not read
    first, second = stub.asked
    assert first == second
    assert first[1]["connection"] == {"driver_volume_type": "nfs", "data": {"a": "é"}}


def test_an_agent_of_another_state_is_not_asked(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir(), here.mkdir()
    words = [*ATTACH, "--state-dir", str(here)]
    assert fast_path.run(words) is None
    with agent(there, [{"result": []}]) as stub:
        (here / "agent.sock").symlink_to(there / "agent.sock")  # it keeps another state
        assert fast_path.run(words) is None
        assert not stub.asked


@pytest.mark.parametrize("told", ["typed", "environment"])
@pytest.mark.parametrize("state", ["missing", "empty", "broken", "file"])
def test_without_an_agent_the_list_is_the_same(
    state: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where nothing answers to the hypervisor's name, as here."""
    where = tmp_path / state
    if state in ("empty", "broken"):
        where.mkdir()
        (where / "moorline.db").write_text("none" * (state != "empty"))
    elif state == "file":
        where.write_text("")
    words = ["list", "--state-dir", str(where)]
    if told == "environment":
        monkeypatch.setenv("MOORLINE_STATE_DIR", str(where))
        words = ["list"]
    code = fast_path.run(words)
    short = capsys.readouterr()
    done = CliRunner().invoke(main, words)
    if state == "file":
        assert (code, done.exit_code) == (None, 2)  # click says what is wrong
    else:
        assert (code, short.out, short.err) == (done.exit_code, done.stdout, done.stderr)


@pytest.mark.parametrize("name", ["MOORLINE_HYPERVISOR", "_MOORLINE_COMPLETE"])
def test_what_the_environment_asks_is_not_passed_over(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fast_path.read(["list"])
    monkeypatch.setenv(name, "x")
    assert fast_path.read(["list"]) is None
