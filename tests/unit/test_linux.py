"""Commands, holds and the child that looks, on this very machine."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from moorline.errors import Busy, Failed, MoorlineError, Refused, Uncertain
from moorline.host.command_output import MAX_OUTPUT_BYTES
from moorline.host.linux import CommandFailed, Linux
from moorline.ports import Command
from moorline.secret import Secret


@pytest.fixture
def linux() -> Iterator[Linux]:
    host = Linux(look_deadline=5)
    yield host
    host.close()


def sh(script: str, deadline: float = 10, **more: object) -> Command:
    return Command(("sh", "-c", script), deadline, **more)  # type: ignore[arg-type]


def gone(pid: int, patience: float = 5) -> bool:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.01)
    return False


def test_output_is_told_apart(linux: Linux) -> None:
    output = linux.run(sh("echo out; echo err >&2"))
    assert (output.stdout, output.stderr) == ("out\n", "err\n")


def test_arguments_are_never_a_shell_line(linux: Linux) -> None:
    odd = "$(id) 'a b' \"; rm -rf /"
    assert linux.run(Command(("printf", "%s", odd), 5)).stdout == odd


def test_the_exit_status_is_data(linux: Linux) -> None:
    with pytest.raises(CommandFailed, match="sh exited 32: no route to registry") as failure:
        linux.run(sh("echo no route to registry >&2; exit 32"))
    assert (failure.value.status, failure.value.stderr) == (32, "no route to registry\n")
    assert isinstance(failure.value, Failed)


def test_a_signal_is_told_as_one(linux: Linux) -> None:
    with pytest.raises(CommandFailed, match="killed by signal 15") as failure:
        linux.run(sh("kill -TERM $$"))
    assert failure.value.status == -15


def test_a_command_that_is_not_there_failed(linux: Linux) -> None:
    with pytest.raises(Failed, match=r"there is no command mount\.nothing"):
        linux.run(Command(("mount.nothing",), 5))


def test_what_it_says_is_bounded_and_prints(linux: Linux) -> None:
    with pytest.raises(CommandFailed) as failure:
        linux.run(sh(r"head -c 3000 /dev/zero | tr '\0' x >&2; printf '\033[2Jend\n' >&2; exit 1"))
    assert len(str(failure.value)) < 600
    assert "\x1b" not in str(failure.value)
    assert str(failure.value).endswith("?[2Jend")


def test_a_command_that_never_stops_talking_fills_no_memory(linux: Linux) -> None:
    with pytest.raises(MoorlineError) as failure:
        linux.run(Command(("yes",), 20))
    assert isinstance(failure.value, CommandFailed)
    assert linux.run(sh(f"head -c {MAX_OUTPUT_BYTES} /dev/zero")).stdout == "\0" * MAX_OUTPUT_BYTES


def test_past_its_deadline_the_whole_group_is_killed(linux: Linux, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    started = time.monotonic()
    with pytest.raises(Uncertain, match="did not end within"):
        linux.run(sh(f"sleep 60 & echo $! > {pids}; echo $$ >> {pids}; wait", deadline=0.3))
    assert time.monotonic() - started < 30  # of the 60 that it would sleep
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_a_daemon_that_keeps_our_pipes_keeps_nobody_waiting(linux: Linux, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    started = time.monotonic()
    output = linux.run(sh(f"(while sleep 0.05; do echo noise; done) & echo $! > {pid}; echo done"))
    assert time.monotonic() - started < 8  # of the 10 that it may take
    assert "done\n" in output.stdout
    daemon = int(pid.read_text())
    time.sleep(0.2)
    os.kill(daemon, 0)  # what it writes to later does not end it
    os.kill(daemon, signal.SIGKILL)


def test_secrets_go_by_stdin_and_come_back_in_no_error(linux: Linux) -> None:
    password = Secret("corr:ect horse\n")
    assert linux.run(sh("cat | wc -c", stdin=password)).stdout.strip() == "15"
    with pytest.raises(CommandFailed) as failure:
        linux.run(sh("read p; echo wrong password: $p >&2; exit 1", stdin=password))
    assert "horse" not in f"{failure.value} {failure.value!r} {failure.value.stderr}"
    assert "wrong password: ***" in failure.value.stderr


def test_a_command_that_does_not_read_its_secret_is_no_error(linux: Linux) -> None:
    linux.run(sh("true", stdin=Secret("x" * 4000)))
    with pytest.raises(Failed, match="too long"):
        linux.run(sh("true", stdin=Secret("x" * 5000)))


def test_children_inherit_nothing(linux: Linux, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        found = linux.run(sh("ls -l /proc/self/fd")).stdout
    assert str(tmp_path) not in found
    assert linux.run(Command(("pwd",), 5)).stdout == "/\n"


def test_a_command_leads_its_own_session(linux: Linux) -> None:
    pid, session = linux.run(sh("cut -d' ' -f1,6 /proc/$$/stat")).stdout.split()
    assert pid == session


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_runs_as_another_user_with_his_groups(linux: Linux) -> None:
    output = linux.run(sh("id -un; id -G; echo $HOME $USER", user="nobody")).stdout.split()
    assert output == ["nobody", "65534", "/nonexistent", "nobody"]
    with pytest.raises(Failed, match="no user"):
        linux.run(sh("true", user="no-such-user"))


def test_ones_own_user_needs_no_change(linux: Linux) -> None:
    me = linux.run(Command(("id", "-un"), 5)).stdout.strip()
    assert linux.run(Command(("id", "-un"), 5, user=me)).stdout.strip() == me


def test_a_hold_lasts_as_long_as_what_the_command_left(linux: Linux, tmp_path: Path) -> None:
    hold, pid = tmp_path / "hold", tmp_path / "pid"
    assert not linux.held(hold)
    linux.run(sh(f"sleep 60 >/dev/null 2>&1 & echo $! > {pid}", hold=hold))
    assert linux.held(hold)
    begun = time.monotonic()
    with pytest.raises(Busy):
        linux.run(sh("true", hold=hold))
    assert time.monotonic() - begun < 8  # of the 10 that it may take: it is told at once
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert gone(int(pid.read_text()))
    assert not linux.held(hold)
    linux.run(sh("true", hold=hold))
    assert not linux.held(hold)


def test_a_hold_outlasts_its_killed_owner(linux: Linux, tmp_path: Path) -> None:
    hold, runs = tmp_path / "hold", tmp_path / "runs"
    owner = os.fork()
    if not owner:
        with suppress(BaseException):
            Linux().run(sh(f"touch {runs}; sleep 2", hold=hold))
        os._exit(0)
    until = time.monotonic() + 20
    while not runs.exists() and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    assert linux.held(hold)
    until = time.monotonic() + 20
    while linux.held(hold) and time.monotonic() < until:
        time.sleep(0.05)
    assert not linux.held(hold)


def test_a_hold_tells_in_which_process_namespace_its_command_was_run(
    linux: Linux, tmp_path: Path
) -> None:
    """Of a client that it left is known by that whether it is among those that we see."""
    hold = tmp_path / "hold"
    hold.write_text("pid:[40265320000]")
    linux.run(sh("true", hold=hold))
    assert hold.read_text() == str(Path("/proc/self/ns/pid").readlink())


def test_a_hold_does_not_follow_a_symlink(linux: Linux, tmp_path: Path) -> None:
    (tmp_path / "hold").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failed):
        linux.run(sh("true", hold=tmp_path / "hold"))
    assert not (tmp_path / "elsewhere").exists()


def test_asking_who_holds_does_not_disturb_a_command(linux: Linux, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with hold.open() as shared:
        fcntl.flock(shared, fcntl.LOCK_SH)
        slow = subprocess.Popen(["sleep", "0.2"], stdin=shared)  # ours is closed, its is not
    assert not linux.held(hold)
    linux.run(sh("true", hold=hold))
    assert slow.wait() == 0


SCOPE = (
    "--scope --quiet --collect --unit={} --slice=moorline.slice"
    " --property=Before=libvirt-guests.service virt-guest-shutdown.target machine.slice"
    " --property=After=network-online.target"
)


def test_under_systemd_daemons_get_a_scope_that_ends_after_the_guests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This machine need not run systemd: the command line is what matters.
    (tmp_path / "systemd-run").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "systemd-run").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    linux = Linux(systemd=True)
    hold = tmp_path / "reg-vol-0123.lock"

    def scoped(*argv: str, user: str = "") -> tuple[str, str]:
        """The scope's name, and the line without it."""
        said = linux.run(Command(argv, 5, outlives=True, user=user, hold=hold)).stdout
        found = re.search(r"--unit=(\S+)", said)
        assert found
        return found[1], said.replace(found[1], "{}")

    first, line = scoped("mount.x", "-o", "a")
    assert line == f"{SCOPE} -- mount.x -o a\n"
    assert re.fullmatch(r"moorline-reg-vol-0123-[0-9a-f]+\.scope", first)
    second, line = scoped("mount.x", user="nobody")
    assert line == f"{SCOPE} --uid=65534 --gid=65534 -- mount.x\n"
    assert second != first, "the last client's scope may be there still"
    assert linux.run(Command(("echo", "plain"), 5)).stdout == "plain\n"


def test_a_root_is_looked_at(linux: Linux, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    root = linux.root(tmp_path / "link")
    st = tmp_path.stat()
    assert (root.size, root.device, root.empty) == (st.st_size, st.st_dev, None)
    assert root.path == Path(os.path.realpath(tmp_path))
    assert linux.root(tmp_path, list=True).empty is False
    (tmp_path / "empty").mkdir()
    assert linux.root(tmp_path / "empty", list=True).empty is True
    with pytest.raises(FileNotFoundError):
        linux.root(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        linux.root(tmp_path / "file")


def test_an_image_is_looked_at(linux: Linux, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(4096))
    image = linux.image(tmp_path, "a.raw", "raw")
    assert image.root == linux.root(tmp_path)
    assert [file.inode for file in image.files] == [(tmp_path / "a.raw").stat().st_ino]
    with pytest.raises(Refused, match="declared qcow2"):
        linux.image(tmp_path, "a.raw", "qcow2")
    with pytest.raises(FileNotFoundError):
        linux.image(tmp_path / "none", "a.raw", "raw")


SLOW_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "oslo_utils.imageutils":
            time.sleep(1.5)
sys.meta_path.insert(0, Slow())
"""


def test_that_python_imports_slowly_is_not_held_against_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a host that is busy, or whose own disk is slow."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    share = tmp_path / "share"
    share.mkdir()
    (share / "a.raw").write_bytes(bytes(4096))
    linux = Linux(look_deadline=1.0)
    linux.image(share, "a.raw", "raw")
    linux.close()


def test_that_a_processor_is_waited_for_is_not_held_against_a_share(tmp_path: Path) -> None:
    linux = Linux(look_deadline=0.3)
    linux.root(tmp_path)
    child = linux._probe._idle[0]._child  # type: ignore[attr-defined]
    child.send_signal(signal.SIGSTOP)
    threading.Timer(1.0, child.send_signal, [signal.SIGCONT]).start()
    assert linux.root(tmp_path).empty is None
    assert child.poll() is None
    linux.close()


def test_a_child_that_was_killed_is_replaced(linux: Linux, tmp_path: Path) -> None:
    linux.root(tmp_path)
    child = linux._probe._idle[0]._child  # type: ignore[attr-defined]
    child.kill()
    child.wait()
    assert linux.root(tmp_path).empty is None


def test_openers_are_named(linux: Linux, tmp_path: Path) -> None:
    assert list(linux.users_of(tmp_path)) == []
    with (tmp_path / "file").open("w"):
        assert [name for name in linux.users_of(tmp_path) if f"({os.getpid()})" in name]
    beside = tmp_path.with_name(f"{tmp_path.name}-beside")
    beside.mkdir()
    with (beside / "file").open("w"):
        assert list(linux.users_of(tmp_path)) == []


def test_nothing_is_leaked(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = sorted(Path("/proc/self/fd").iterdir())
        linux = Linux()
        for _ in range(3):
            linux.run(sh("true", hold=tmp_path / "hold", stdin=Secret("x")))
            with suppress(CommandFailed):
                linux.run(sh("exit 1"))
            with suppress(Failed):
                linux.run(Command(("no-such-command",), 1, hold=tmp_path / "hold"))
            linux.root(tmp_path)
        linux.close()
        gc.collect()
        assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_the_size_of_a_file_and_of_what_is_none(linux: Linux, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    assert linux.size(tmp_path / "a") == 1000
    with pytest.raises(FileNotFoundError):
        linux.size(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="seek"):
        linux.size(tmp_path / "fifo")


def test_which_commands_are_run_is_logged_without_what_they_are_told(
    linux: Linux, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "moorline"):
        linux.run(sh("cat >/dev/null", stdin=Secret("quite secret")))
    assert [record.message for record in caplog.records] == [
        "runs: sh -c 'cat >/dev/null'",
        "sh ended with 0",
    ]
