"""The private host: it is private, it passes exit codes on, and it ends with who entered it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import images

RUN = [sys.executable, "-m", "lab", "run"]


def in_another_host(command: str, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [*RUN, *options, "--", "sh", "-c", command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_commands(lab: Path, command: str, code: int) -> None:
    assert in_another_host(command).returncode == code


def test_each_host_has_its_own_libvirt_and_state(lab: Path) -> None:
    done = in_another_host(
        "ls /var/lib/moorline; touch /var/lib/moorline/mine; virsh -q list --all"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not Path("/var/lib/moorline/mine").exists()


@pytest.mark.parametrize(("options", "shared"), [([], True), (["--private"], False)])
def test_the_root_mount_is_shared_unless_told_otherwise(
    lab: Path, options: list[str], shared: bool
) -> None:
    done = in_another_host("awk '$5 == \"/\"' /proc/self/mountinfo", *options)
    assert done.stdout
    assert ("shared:" in done.stdout.splitlines()[-1]) == shared


def test_nothing_of_it_is_left_behind(lab: Path) -> None:
    done = in_another_host(
        "mkdir /var/lib/moorline/stuck && chattr +i /var/lib/moorline/stuck\n"
        "awk '$5 == \"/var/lib/moorline\" {print $4}' /proc/self/mountinfo"
    )
    # Where hosts are nested, one lies over the other: the last is this one's.
    name = [part for part in Path(done.stdout.split()[-1]).parts if part.startswith("host-")][-1]
    assert not (images.cache() / name).exists()


def test_it_ends_when_who_entered_it_is_killed(lab: Path) -> None:
    mark = "98765.4321"
    entered = subprocess.Popen([*RUN, "--", "sleep", mark])
    try:
        assert until(lambda: asleep(mark))
        entered.send_signal(signal.SIGKILL)
        entered.wait()
        assert until(lambda: not asleep(mark))
    finally:
        entered.kill()
    in_another_host("true")  # sweeps up the directory of the one that was killed


def asleep(mark: str) -> bool:
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if (directory / "cmdline").read_bytes() == f"sleep\0{mark}\0".encode():
                return True
        except OSError:
            continue
    return False


def until(true: Callable[[], bool], deadline: float = 15) -> bool:
    end = time.monotonic() + deadline
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()
