"""One owner per host."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moorline.errors import Busy, Denied, Unavailable
from moorline.host.state_lock import HostLock
from tests.support.full_disk import full_disk

HOLD = (
    "import sys, time; from pathlib import Path; from moorline.host.state_lock import HostLock;"
    " HostLock(Path(sys.argv[1])).take(0, print); print('mine', flush=True); time.sleep(60)"
)


def test_a_second_owner_waits_and_is_told_for_whom(tmp_path: Path) -> None:
    first = HostLock(tmp_path / "lock")
    first.take(0, print)
    told: list[str] = []
    with pytest.raises(Busy, match=f"process {os.getpid()} owns"):
        HostLock(tmp_path / "lock").take(0.1, told.append)
    assert told == [f"waiting for process {os.getpid()}, which owns this host's state"]
    first.release()
    HostLock(tmp_path / "lock").take(0, print)


def test_a_killed_owner_leaves_it_free(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "mine\n"
        with pytest.raises(Busy):
            HostLock(tmp_path / "lock").take(0, print)
        child.kill()
        child.wait()
        HostLock(tmp_path / "lock").take(1, print)


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    lock = HostLock(tmp_path / "lock")
    lock.take(0, print)
    with subprocess.Popen(["sleep", "5"], close_fds=False) as child:
        time.sleep(0.05)
        lock.release()
        HostLock(tmp_path / "lock").take(0, print)
        child.kill()


def test_a_full_disk_keeps_nobody_from_being_the_owner(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with full_disk():
        HostLock(tmp_path / "lock").take(0, print)
        with pytest.raises(Busy, match="another process owns"):  # its id could not be noted
            HostLock(tmp_path / "lock").take(0, print)


def test_no_directory_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        HostLock(tmp_path / "no" / "lock").take(0, print)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_no_permission_is_denied(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Denied):
        HostLock(tmp_path / "lock").take(0, print)
