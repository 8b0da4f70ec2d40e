"""Who serves a FUSE mount, read from a process table made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline.host.mount.fuse_clients import clients
from moorline.ports import Mount

AT, ELSEWHERE = "/mnt/one", "/mnt/two"
MOUNT = Mount(1, "quobyte@r/one", AT, "fuse.quobyte", "0:41", True)
ENDED = (1 << 32) - 1
OTHER = Mount(2, "quobyte@r/two", ELSEWHERE, "fuse.quobyte", "0:42", True)


class Table:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "self/ns").mkdir(parents=True)
        self.see("pid:[4026531836]")

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
        return clients(mount, [MOUNT, OTHER], self.root, self.root / "connections")

    def limit(self, number: int) -> None:
        (self.root / "connections/41").mkdir(parents=True, exist_ok=True)
        (self.root / "connections/41/max_background").write_text(f"{number}\n")


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


def test_who_serves_a_mount_that_cannot_be_told_may_serve_this_one(table: Table) -> None:
    table.process(7, "client", "--config", "/etc/client.conf")
    assert table.clients() is None


def test_where_not_all_processes_are_seen_none_is_known_to_be_gone(table: Table) -> None:
    table.see("pid:[4026532000]")
    assert table.clients() is None
    table.process(8, "client", fdinfo="fuse_connection:\t41\n")
    assert table.clients() == ["client (8)"]


def test_the_kernel_tells_that_a_connection_has_ended(table: Table) -> None:
    table.see("pid:[4026532000]")
    table.limit(12)
    assert table.clients() is None
    table.limit(ENDED)
    assert table.clients() == []
    # Cut off, it may still be writing what it had taken.
    table.process(8, "client", fdinfo="fuse_connection:\t41\n")
    assert table.clients() == ["client (8)"]


def test_a_client_that_may_have_been_cut_off_is_not_gone(table: Table) -> None:
    """Its connection has ended, and a process that cannot be told from it may be writing on."""
    table.limit(ENDED)
    table.process(7, "client", "--config", "/etc/client.conf")
    assert table.clients() is None
    (table.root / "7/fd/3").unlink()
    assert table.clients() == []


def test_what_no_process_serves_is_not_told(table: Table) -> None:
    assert table.clients(Mount(3, "filer:/x", AT, "nfs4", "0:43", True)) is None
