"""Checks whether QEMU could open a file: nothing is changed, and nothing is kept open.

Runs in a child that can be killed: every call may hang. The checks are those of QEMU when it
opens a file (block/file-posix.c and bdrv_node_refresh_perm in block.c of QEMU).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress

from moorline.errors import Refused

MAX_DISK_BYTES = (1 << 63) - (1 << 30)
"""Bytes of the largest disk: BDRV_MAX_LENGTH."""
_SECTOR = 512
_ALIGNMENTS = (1, 512, 1024, 2048, 4096)
_SAFE_ALIGNMENT = max(4096, mmap.PAGESIZE)
_XFS_IOC_DIOINFO = 0x800C581E
_BLKROGET = 0x125E
_FS_IOC_GETFLAGS = 0x80086601
_IMMUTABLE = 0x10 | 0x20
"""FS_IMMUTABLE_FL, FS_APPEND_FL."""
_F_OFD_GETLK = 36
_FLOCK = "hhqqi4x"
_USED, _NOT_SHARED = 100, 200
"""Where the bytes begin that QEMU locks: one for each permission that it uses, and for each that
it lets nobody else have."""
_READ, _WRITE, _RESIZE = 0, 1, 3
"""The permissions' numbers (BLK_PERM_CONSISTENT_READ, BLK_PERM_WRITE, BLK_PERM_RESIZE)."""


def opening(path: str, format: str, readonly: bool, shared: bool, direct: bool, mine: bool) -> bool:
    """Whether *path* is not locked against being opened so.

    *direct*: past the page cache. *mine*: the guest's own QEMU has it open, and locked.
    Raises Refused if it can never be opened so; OSError.
    """
    file = _open(path, direct)
    try:
        if not readonly:
            _demand_writable(path, file)
        if format == "raw":
            refuse_size(path, file, _alignment(file) if direct and not readonly else 1)
        return mine or not _is_locked(file, format, readonly, shared)
    finally:
        os.close(file)


def _open(path: str, direct: bool) -> int:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if not direct:
        return os.open(path, flags)
    try:
        return os.open(path, flags | os.O_DIRECT)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        raise Refused(
            f"the file system of {path} does not support direct I/O, with which QEMU opens it"
        ) from e


def _demand_writable(path: str, file: int) -> None:
    st = os.fstat(file)
    if stat.S_ISBLK(st.st_mode):
        answer = fcntl.ioctl(file, _BLKROGET, struct.pack("i", 0))
        if struct.unpack("i", answer)[0]:
            raise _fixed(f"{path} is a read-only device")
        return
    if os.fstatvfs(file).f_flag & os.ST_RDONLY:
        raise _fixed(f"{path} lies on a file system that is mounted read-only")
    with suppress(OSError):  # most file systems have no such flags
        answer = fcntl.ioctl(file, _FS_IOC_GETFLAGS, struct.pack("l", 0))
        if struct.unpack("l", answer)[0] & _IMMUTABLE:
            raise _fixed(f"{path} is immutable or append-only (lsattr)")


def _fixed(what: str) -> Refused:
    return Refused(
        f"{what}, and the guest would write to it",
        hint="make it writable, or attach it with --read-only",
    )


def refuse_size(path: str, file: int, alignment: int) -> None:
    """Refuse a raw file whose size no disk can have. *alignment*: of QEMU's writes, in bytes."""
    size = os.lseek(file, 0, os.SEEK_END)
    if size > MAX_DISK_BYTES:
        raise Refused(f"{path} has {size} bytes, and QEMU's disks have {MAX_DISK_BYTES} at most")
    sectors = -(-size // _SECTOR) * _SECTOR
    if sectors % alignment:
        raise Refused(
            f"{path} has {size} bytes, and QEMU writes to it past the page cache, in blocks of"
            f" {alignment} bytes: the last one would not fit",
            hint=f"truncate --size=%{alignment} {path}",
        )


def _alignment(file: int) -> int:
    """The bytes that QEMU takes for the smallest O_DIRECT read (raw_probe_alignment)."""
    with suppress(OSError):
        answer = fcntl.ioctl(file, _XFS_IOC_DIOINFO, bytes(12))
        return int(struct.unpack("III", answer)[1]) or 1
    with mmap.mmap(-1, _SAFE_ALIGNMENT) as page:
        for size in _ALIGNMENTS:
            if _can_read(file, page, size):
                # If a single byte can be read, the alignment of writes is unknown.
                return _SAFE_ALIGNMENT if size == 1 else size
    return _SAFE_ALIGNMENT


def _can_read(file: int, page: mmap.mmap, size: int) -> bool:
    with memoryview(page) as whole, whole[:size] as part:
        try:
            os.preadv(file, [part], 0)
        except OSError as e:
            return e.errno != errno.EINVAL
    return True


def _is_locked(file: int, format: str, readonly: bool, shared: bool) -> bool:
    return any(_has(file, byte) for byte in _asked(format, readonly, shared))


def _asked(format: str, readonly: bool, shared: bool) -> Iterator[int]:
    """The bytes that nobody may have locked (raw_check_lock_bytes)."""
    yield _NOT_SHARED + _READ
    if not readonly:
        yield _NOT_SHARED + _WRITE
    if not readonly and format != "raw":
        yield _NOT_SHARED + _RESIZE
    yield _USED + _RESIZE
    if not shared:
        yield _USED + _WRITE


def _has(file: int, byte: int) -> bool:
    """Whether *byte* is locked by anybody; False on a file system without locks."""
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    try:
        answer = fcntl.fcntl(file, _F_OFD_GETLK, question)
    except OSError:
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
