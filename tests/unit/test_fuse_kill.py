"""The client of a share that hangs is killed, it alone, and seen dead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from moorline.errors import Refused, Uncertain
from moorline.host.mount.fuse_abort import FuseConnections
from moorline.ports import Mount
from tests.unit.test_fuse_clients import AT, MOUNT, OTHER, Table

Start = Callable[..., subprocess.Popen[bytes]]
_CODE = (
    "import sys, time; files = [open(p) for p in sys.argv[1].split(',')]; print(flush=True);"
    " time.sleep(60)"
)


@pytest.fixture
def at(tmp_path: Path) -> str:
    """A mount point that no process of this machine has ever heard of."""
    return str(tmp_path / "one")


@pytest.fixture
def mount(at: str) -> Mount:
    return Mount(1, "quobyte@r/one", at, "fuse.quobyte", "0:41", True)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Of real processes, those that a test starts alone: of this machine's some may be hidden."""
    return Table(tmp_path / "proc")


@pytest.fixture
def fuse(table: Table, tmp_path: Path) -> FuseConnections:
    return FuseConnections(tmp_path / "connections", table.root, kill_seconds=30)


@pytest.fixture
def start(table: Table, tmp_path: Path) -> Iterator[Start]:
    """Start a process that has a device of that name open, as the client of a mount has."""
    (tmp_path / "fuse").touch()
    started = []

    def start(*words: str, devices: int = 1) -> subprocess.Popen[bytes]:
        files = ",".join([str(tmp_path / "fuse")] * devices)
        argv = [sys.executable, "-c", _CODE, files, *words]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout
        process.stdout.readline()
        (table.root / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_client_is_killed_and_no_other(
    fuse: FuseConnections, start: Start, mount: Mount, at: str, tmp_path: Path
) -> None:
    elsewhere = str(tmp_path / "two")
    mine, others = start(at), start(elsewhere)
    mounts = [mount, Mount(2, "q", elsewhere, "fuse.quobyte", "0:42", True)]
    (named,) = fuse.killable(mount, mounts)
    assert named.endswith(f"({mine.pid})")
    assert mine.poll() is None, "it was only asked"
    fuse.kill(mount, mounts)
    assert (mine.wait(), others.poll()) == (-9, None)
    assert list(fuse.killable(mount, mounts)) == []
    fuse.kill(mount, mounts)


def test_who_serves_it_no_more_when_he_would_be_killed_lives(
    fuse: FuseConnections, start: Start, mount: Mount, table: Table
) -> None:
    """Another has the number of the client, which has ended since it was found."""
    process = start("/elsewhere")
    fuse._kill(table.root / str(process.pid), mount, [mount])
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)


@pytest.mark.parametrize("words", [(), ("more",)])
def test_a_client_of_several_mounts_is_not_killed_for_one(
    fuse: FuseConnections, start: Start, mount: Mount, at: str, tmp_path: Path, words: Sequence[str]
) -> None:
    """By its arguments, or by more than one connection that the kernel does not name."""
    elsewhere = str(tmp_path / "two")
    process = start(at, devices=2) if words else start(at, elsewhere)
    mounts = [mount, Mount(2, "q", elsewhere, "fuse.quobyte", "0:42", True)]
    for ask in (fuse.killable, fuse.kill):
        with pytest.raises(Refused, match="another mount"):
            ask(mount, mounts)
    assert process.poll() is None


def test_a_client_whose_connections_the_kernel_names(tmp_path: Path) -> None:
    table = Table(tmp_path)
    fuse = FuseConnections(tmp_path / "connections", tmp_path)
    table.process(7, "client", fdinfo="fuse_connection:\t41\n")
    assert fuse.killable(MOUNT, [MOUNT, OTHER]) == ["client (7)"]
    (tmp_path / "7/fd/4").symlink_to("/dev/fuse")
    (tmp_path / "7/fdinfo/4").write_text("fuse_connection:\t42\n")
    with pytest.raises(Refused, match="another mount"):
        fuse.killable(MOUNT, [MOUNT, OTHER])


def test_where_it_cannot_be_told_who_serves_it_nobody_is_killed(tmp_path: Path) -> None:
    Table(tmp_path).see("pid:[1]")
    with pytest.raises(Refused, match="cannot be told"):
        FuseConnections(tmp_path / "connections", tmp_path).killable(MOUNT, [MOUNT, OTHER])


def test_a_client_that_does_not_end_is_told(tmp_path: Path) -> None:
    """Its number is beyond any that a process can have, so nothing is killed by this test."""
    table = Table(tmp_path)
    table.process((1 << 22) + 1, "client", AT, fdinfo="fuse_connection:\t41\n")
    fuse = FuseConnections(tmp_path / "connections", tmp_path, kill_seconds=0)
    with pytest.raises(Uncertain, match="has not ended"):
        fuse.kill(MOUNT, [MOUNT])
