"""Who serves a FUSE mount, read from a process table made for the test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorline.host.mount.fuse_clients import clients
from moorline.ports import Mount

AT, ELSEWHERE = "/mnt/one", "/mnt/two"
FIRST, OWN = "pid:[4026531836]", "pid:[4026532000]"
"""The process namespace of the machine, and one of a container."""
MOUNT = Mount(1, "quobyte@r/one", AT, "fuse.quobyte", "0:41", True)
OTHER = Mount(2, "quobyte@r/two", ELSEWHERE, "fuse.quobyte", "0:42", True)


class Table:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "self/ns").mkdir(parents=True)
        (root / "1").mkdir()
        self.see(FIRST)

    def see(self, namespace: str) -> None:
        (self.root / "self/ns/pid").unlink(missing_ok=True)
        (self.root / "self/ns/pid").symlink_to(namespace)

    def process(self, pid: int, *argv: str, device: str = "/dev/fuse", fdinfo: str = "") -> None:
        home = self.root / str(pid)
        (home / "fd").mkdir(parents=True)
        (home / "fdinfo").mkdir()
        (home / "comm").write_text("client\n")
        (home / "cmdline").write_text("\0".join([*argv, ""]))
        (home / "fd/3").symlink_to(device)
        (home / "fdinfo/3").write_text(f"pos:\t0\nmnt_id:\t30\n{fdinfo}")

    def clients(self, mount: Mount = MOUNT) -> list[str] | None:
        return clients(mount, [MOUNT, OTHER], self.root)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


def test_no_process_is_left(table: Table) -> None:
    table.process(7, "sleep", AT, device="/dev/null")
    assert table.clients() == []


def test_a_killed_client_of_which_a_thread_still_writes_is_not_gone(table: Table) -> None:
    """Its first thread has ended, and shows no files; another waits for its server (state D)."""
    for number in (7, 8):
        table.process(number, "client", AT, fdinfo="fuse_connection:\t41\n")
    thread = table.root / "7/task/8"
    thread.mkdir(parents=True)
    for kind in ("fd", "fdinfo"):
        (table.root / "8" / kind).rename(thread / kind)
        (table.root / "8" / kind).mkdir()
        for each in (table.root / "7" / kind).iterdir():
            each.unlink()
    assert table.clients() == ["client (7)"]
    for kind in ("fd", "fdinfo"):
        for each in (thread / kind).iterdir():
            each.unlink()
    assert table.clients() == []


def test_the_kernel_names_the_connection(table: Table) -> None:
    table.process(7, "client", fdinfo="fuse_connection:\t42\n")
    assert table.clients() == []
    assert table.clients(OTHER) == ["client (7)"]
    table.process(8, "client", fdinfo="fuse_connection:\t41\n")
    assert table.clients() == ["client (8)"]


def test_an_older_kernel_leaves_it_to_the_arguments(table: Table) -> None:
    table.process(7, "client", "r/two", ELSEWHERE)
    assert table.clients() == []
    table.process(8, "client", f"--mount_point={AT}")
    assert table.clients() == ["client (8)"]


def test_the_client_of_a_mount_that_lives_on_elsewhere_serves_no_later_one(table: Table) -> None:
    """Its arguments name the same mount point; the file that its command had locked is gone."""
    table.process(7, "client", "r/one", AT)
    (table.root / "7/fd/4").symlink_to(f"{AT}.lock")
    assert table.clients() == ["client (7)"]
    (table.root / "7/fd/4").unlink()
    (table.root / "7/fd/4").symlink_to(f"{AT}.lock (deleted)")
    assert table.clients() == []


def test_a_client_that_has_closed_its_end_and_runs_is_not_gone(tmp_path: Path) -> None:
    """It was cut off, and may be writing what it had taken. It has what its command locked."""
    table, at = Table(tmp_path / "proc"), str(tmp_path / "share")
    mount = Mount(1, "quobyte@r/one", at, "fuse.quobyte", "0:41", True)
    lock = "lock:\t1: FLOCK  ADVISORY  {} 0 08:01:77 0 EOF\n"
    table.process(7, "moorline", device=f"{at}.lock", fdinfo=lock.format("READ"))
    table.process(8, "moorline", device=f"{at}.lock")
    table.process(9, "client", device=f"{at}.lock (deleted)", fdinfo=lock.format("WRITE"))
    table.process(10, "client", device=f"{at}2.lock", fdinfo=lock.format("WRITE"))
    assert table.clients(mount) == []
    table.process(11, "client", device=f"{at}.lock", fdinfo=lock.format("WRITE"))
    assert table.clients(mount) == ["client (11)"]


def test_who_serves_a_mount_that_cannot_be_told_may_serve_this_one(table: Table) -> None:
    table.process(7, "client", "--config", "/etc/client.conf")
    assert table.clients() is None


def test_where_not_all_processes_are_seen_none_is_known_to_be_gone(table: Table) -> None:
    """Though its connection has ended: it may have been cut off, and be writing what it had."""
    table.see(OWN)
    assert table.clients() is None
    table.process(8, "client", fdinfo="fuse_connection:\t41\n")
    assert table.clients() == ["client (8)"]


def test_in_a_container_those_alone_are_seen_whose_mount_command_was_run_there(
    table: Table, tmp_path: Path
) -> None:
    """A mount that was given to the container is served outside, where it sees nobody."""
    at = tmp_path / "share"
    mount = Mount(1, "quobyte@r/one", str(at), "fuse.quobyte", "0:41", True)
    table.see(OWN)
    assert table.clients(mount) is None
    lock = tmp_path / "share.lock"
    for told in ("", FIRST, "pid:[4026532001]"):
        lock.write_text(told)
        assert table.clients(mount) is None
    lock.write_text(OWN)
    assert table.clients(mount) == []
    lock.write_bytes(b"\xff")
    assert table.clients(mount) is None


def test_where_the_processes_of_others_are_not_shown_none_is_known_to_be_gone(table: Table) -> None:
    """/proc is mounted with hidepid=invisible, and we are not root: not even process 1 is there."""
    (table.root / "1").rmdir()
    assert table.clients() is None


def test_a_process_that_cannot_be_looked_at_may_be_the_client() -> None:
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        table = Table(Path(root))
        table.process(7, "sleep", device="/dev/null")
        assert table.clients() == []
        (table.root / "7/fd").chmod(0)
        with _no_superuser():
            assert table.clients() is None


@contextmanager
def _no_superuser() -> Iterator[None]:
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_what_no_process_serves_is_not_told(table: Table) -> None:
    assert table.clients(Mount(3, "filer:/x", AT, "nfs4", "0:43", True)) is None
