"""Whether QEMU could open a file, asked as QEMU asks; with real files, mounts and locks."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorline.errors import Busy, Refused
from moorline.host.image.open_check import refuse_size
from moorline.host.linux import Linux
from moorline.hypervisors.libvirt.file_access import demand_openable
from moorline.model import BackingFile, DiskOptions, ImageFile
from moorline.ports import OpenAs

WRITE = OpenAs("raw", readonly=False, shared=False, direct=False)
READ = OpenAs("raw", readonly=True, shared=False, direct=False)
SHARE = OpenAs("raw", readonly=False, shared=True, direct=False)
_OFD_SETLK = 37


@pytest.fixture
def linux() -> Iterator[Linux]:
    linux = Linux(look_deadline=20.0)
    yield linux
    linux.close()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(1 << 20))
    return path


def lock(path: Path, *bytes: int) -> int:
    """Lock as QEMU does; until the descriptor is closed."""
    file = os.open(path, os.O_RDWR)
    for byte in bytes:
        question = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
        fcntl.fcntl(file, _OFD_SETLK, question)
    return file


WRITER = (100, 101, 201, 203)
"""What a QEMU that writes to a disk has locked."""
READER = (100, 201, 203)


@pytest.mark.parametrize(
    ("theirs", "use", "free"),
    [
        ((), WRITE, True),
        (WRITER, WRITE, False),
        (WRITER, READ, False),
        (WRITER, SHARE, False),
        (READER, WRITE, False),
        (READER, READ, True),
        ((100, 101, 203), SHARE, True),
        ((100, 101, 203), WRITE, False),
    ],
)
def test_locks_are_those_of_qemu(
    linux: Linux, disk: Path, theirs: tuple[int, ...], use: OpenAs, free: bool
) -> None:
    file = lock(disk, *theirs)
    try:
        if free:
            linux.openable(disk, use)
        else:
            with pytest.raises(Busy, match=rf"locked {disk}.*\({os.getpid()}\)"):
                linux.openable(disk, use)
        mine = OpenAs(use.format, use.readonly, use.shared, use.direct, mine=True)
        linux.openable(disk, mine)
    finally:
        os.close(file)
    linux.openable(disk, use)


def test_who_locks_a_whole_file_has_it(linux: Linux, disk: Path) -> None:
    with disk.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        with pytest.raises(Busy):
            linux.openable(disk, WRITE)


def test_nothing_of_it_is_kept_or_changed(linux: Linux, disk: Path) -> None:
    before = disk.stat()
    linux.openable(disk, OpenAs("raw", readonly=False, shared=False, direct=True))
    after = disk.stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_a_moment_is_given_to_let_go(disk: Path) -> None:
    tries: list[Path] = []

    def twice(path: Path, use: OpenAs) -> None:
        tries.append(path)
        if len(tries) < 3:
            raise Busy("another process has locked it")

    source = ImageFile(disk, "qcow2", backing=(BackingFile(disk.with_name("base"), "raw"),))
    demand_openable(source, DiskOptions(), twice, mine=False, direct=False)
    assert [path.name for path in tries] == ["disk.raw", "disk.raw", "disk.raw", "base"]


@pytest.mark.parametrize(
    ("size", "alignment", "fits"),
    [
        (0, 4096, True),
        (4096, 4096, True),
        (512, 4096, False),
        (513, 512, True),
        (4095, 4096, True),
        (1, 4096, False),
    ],
)
def test_the_last_block_must_fit(disk: Path, size: int, alignment: int, fits: bool) -> None:
    os.truncate(disk, size)
    with disk.open("rb") as file:
        if fits:
            refuse_size(str(disk), file.fileno(), alignment)
        else:
            with pytest.raises(Refused, match=f"blocks of {alignment} bytes") as refused:
                refuse_size(str(disk), file.fileno(), alignment)
            subprocess.run(refused.value.hint.split(), check=True)
            refuse_size(str(disk), file.fileno(), alignment)


def test_no_disk_is_larger_than_qemu_s_largest(linux: Linux, disk: Path) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no file system for a file so large")
    large = Path(f"/dev/shm/moorline-{os.getpid()}")
    try:
        with large.open("wb") as file:
            file.truncate((1 << 63) - 1)
        with pytest.raises(Refused, match="at most"):
            linux.openable(large, READ)
    finally:
        large.unlink()
