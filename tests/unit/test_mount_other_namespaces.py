"""Where a mount lives on, read from a process table made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline.host.mount.other_namespaces import only_serves, seen_at
from moorline.ports import Mount

AT = Path("/mnt/one-0123456789abcdef")
HOLD = Path(f"{AT}.lock")
SHARE = "quobyte@r/one"
ROOT = "20 1 8:1 / / rw - ext4 /dev/sda rw"


def line(target: str, device: str = "0:41", source: str = SHARE) -> str:
    return f"30 20 {device} / {target} rw - fuse.quobyte {source} rw"


def is_its(mount: Mount) -> bool:
    return mount.source == SHARE


class Table:
    """A process table. Process 1 has our mount namespace."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process(1, "init")
        (root / "self").symlink_to("1")

    def process(self, pid: int, *argv: str, namespace: str = "ours", mounts: str = ROOT) -> Path:
        home = self.root / str(pid)
        for name in ("fd", "fdinfo", "ns"):
            (home / name).mkdir(parents=True)
        (home / "comm").write_text(f"{argv[0]}\n")
        (home / "cmdline").write_text("\0".join([*argv, ""]))
        (home / "ns/mnt").symlink_to(f"mnt:[{namespace}]")
        (home / "mountinfo").write_text(f"{mounts}\n")
        return home

    def client(self, pid: int, *argv: str, connection: str = "", hold: bool = True) -> None:
        home = self.process(pid, "client", *argv)
        (home / "fd/3").symlink_to("/dev/fuse")
        told = f"fuse_connection:\t{connection}\n" if connection else ""
        (home / "fdinfo/3").write_text(f"pos:\t0\n{told}")
        if hold:
            (home / "fd/4").symlink_to(HOLD)

    def mounted(self, *lines: str) -> None:
        (self.root / "1/mountinfo").write_text("\n".join([ROOT, *lines, ""]))

    def only_serves(self) -> bool:
        return only_serves(HOLD, AT, is_its, self.root)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


# --- who has the hold ---


@pytest.fixture(params=["41", ""], ids=["told by the kernel", "by command lines"])
def held(request: pytest.FixtureRequest, table: Table) -> Table:
    """A client that a mount command left."""
    table.client(7, "r/one", str(AT), connection=request.param)
    return table


def test_a_bind_mount_is_served(held: Table) -> None:
    held.mounted(line("/srv/bound"))
    assert held.only_serves()


@pytest.mark.parametrize("target", [str(AT), f"/rootfs{AT}"])
def test_a_mount_in_another_namespace_is_served(held: Table, target: str) -> None:
    held.process(9, "sleep", namespace="theirs", mounts=line(target))
    assert held.only_serves()


def test_a_mount_that_nobody_sees_may_be_written_through(held: Table) -> None:
    assert not held.only_serves()


def test_what_is_mounted_here_by_now_is_no_other_place(held: Table) -> None:
    held.mounted(line(str(AT)))
    held.process(9, "sleep", namespace="theirs", mounts=line(str(AT)))
    assert not held.only_serves()


def test_another_share_tells_nothing(held: Table) -> None:
    held.mounted(line("/srv/bound", "0:42", "quobyte@r/two"))
    assert not held.only_serves()


def test_the_share_as_somebody_else_mounted_it_tells_nothing(held: Table) -> None:
    held.mounted(line("/srv/theirs", "0:42"), line("/srv/bound", "0:42"))
    held.client(8, "r/one", "/srv/theirs", connection="", hold=False)
    assert not held.only_serves()


def test_a_command_that_still_runs_beside_a_client(held: Table) -> None:
    held.mounted(line("/srv/bound"))
    command = held.process(8, "mount.client")
    (command / "fd/4").symlink_to(HOLD)
    assert not held.only_serves()


def test_a_second_client_whose_mount_is_not_made(held: Table) -> None:
    held.mounted(line("/srv/bound"))
    held.client(8, connection="43")
    assert not held.only_serves()


def test_who_is_not_seen_may_be_a_command(table: Table) -> None:
    table.mounted(line("/srv/bound"))
    assert not table.only_serves()


# --- who has a mount still ---


def test_other_namespaces_are_named(table: Table) -> None:
    table.mounted(line("/somewhere/else"))
    assert seen_at(AT, table.root) == []
    table.process(9, "sleep", namespace="theirs", mounts=line(str(AT)))
    table.process(10, "sleep", namespace="theirs", mounts=line(str(AT)))
    table.process(11, "exporter", namespace="a container's", mounts=line(f"/rootfs{AT}"))
    table.process(12, "web", namespace="another container's")
    assert sorted(seen_at(AT, table.root)) == ["exporter (11)", "sleep (9)"]


def test_a_copy_of_the_same_share_s_other_mount_is_not_meant(table: Table) -> None:
    """A share can be mounted in two directories by one name, and who is apart sees both."""
    other = f"/elsewhere/{AT.name}"
    table.mounted(line(other, "0:42"))
    home = table.process(9, "qemu", namespace="a guest's", mounts=line(other, "0:42"))
    assert seen_at(AT, table.root) == []
    (home / "mountinfo").write_text("\n".join([line(other, "0:42"), line(str(AT)), ""]))
    assert seen_at(AT, table.root) == ["qemu (9)"]


def test_our_own_namespace_is_no_other(table: Table) -> None:
    table.mounted(line(str(AT)))
    table.process(9, "sleep", mounts=line(str(AT)))
    assert seen_at(AT, table.root) == []
