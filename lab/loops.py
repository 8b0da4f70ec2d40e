"""Loop devices by ioctl (loop(4), linux/loop.h): files as block devices of this kernel.

They belong to the kernel, not to a lab host: a device is found by the inode of
its file, as a path means something else in each mount namespace.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAJOR = 7
_SET_FD, _CLR_FD, _GET_STATUS64, _SET_DIRECT_IO = 0x4C00, 0x4C01, 0x4C05, 0x4C08
_SET_CAPACITY = 0x4C07
_CTL_GET_FREE = 0x4C82
_STATUS_SIZE = 232
_TRIES = 20


def attach(file: Path) -> int:
    """Make a device of *file*; return its number. Raises OSError."""
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            number = _free()
            with _opened(number) as device, suppress(BlockingIOError):
                try:
                    fcntl.ioctl(device, _SET_FD, backing)
                except OSError as e:
                    if e.errno != 16:  # EBUSY: somebody else was quicker
                        raise
                    continue
                with suppress(OSError):  # not every file system has it
                    fcntl.ioctl(device, _SET_DIRECT_IO, 1)
                return number
        raise OSError(16, "no loop device is free", str(file))
    finally:
        os.close(backing)


def detach(number: int) -> None:
    """Let go of the file; who has the device open keeps it until he closes it."""
    with _opened(number) as device:
        fcntl.ioctl(device, _CLR_FD)


def grow(number: int) -> None:
    """Make the device as large as its file is by now."""
    with _opened(number) as device:
        fcntl.ioctl(device, _SET_CAPACITY)


def of(file: Path) -> int | None:
    """The number of the device that *file* is, if it is one."""
    try:
        inode = file.stat().st_ino
    except FileNotFoundError:
        return None
    for each in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            # The name is a cheap first look; the inode decides.
            if each.read_text().strip().endswith(file.name):
                number = int(each.parts[3].removeprefix("loop"))
                if _inode(number) == inode:
                    return number
    return None


def alive(number: int) -> bool:
    """Whether the device has a file."""
    return Path(f"/sys/block/loop{number}/loop/backing_file").exists()


def in_use(number: int) -> bool:
    """Whether a process has the device open, or it is mounted."""
    device = os.makedev(MAJOR, number)
    with Path("/proc/self/mountinfo").open() as table:
        if any(line.split()[2] == f"{MAJOR}:{number}" for line in table):
            return True
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    found = descriptor.stat()
                    if stat.S_ISBLK(found.st_mode) and found.st_rdev == device:
                        return True
    return False


def node(path: Path, number: int) -> None:
    """Make a device node for it."""
    os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(MAJOR, number))


def _free() -> int:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _CTL_GET_FREE)
    finally:
        os.close(control)


def _inode(number: int) -> int:
    with _opened(number) as device:
        status = fcntl.ioctl(device, _GET_STATUS64, bytes(_STATUS_SIZE))
    inode: int = struct.unpack_from("=QQ", status)[1]
    return inode


@contextmanager
def _opened(number: int) -> Iterator[int]:
    path = Path(f"/dev/loop{number}")
    if not path.exists():  # a /dev of the lab's own has only a few
        with suppress(FileExistsError):
            node(path, number)
    device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield device
    finally:
        os.close(device)


def detach_below(directory: Path) -> None:
    """Let go of every file of HyperScale's below a lab host's directory."""
    for file in directory.glob("lab/hyperscale/volumes/*"):
        if (number := of(file)) is not None:
            detach(number)


if __name__ == "__main__":
    detach_below(Path(sys.argv[1]))
