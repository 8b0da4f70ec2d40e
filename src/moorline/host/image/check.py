"""Whether an image may be given to a guest: where it lies, what it is, what it refers to.

Runs in a child that can be killed: every call here may hang. It tells what is so
now. Whoever can write to the share can change it afterwards.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import NoReturn

from oslo_utils.imageutils import format_inspector

from moorline.errors import Refused
from moorline.host.image import ploop, qcow2

LONGEST_CHAIN = 32
_CONTAINERS = ["qcow2", "vhd", "vhdx", "vmdk", "vdi", "qed"]
"""Formats that hold a disk. A raw disk that a guest partitioned or encrypted
looks like gpt, iso or luks to oslo.utils; it is still a raw disk."""
_ENOUGH = 1 << 20
"""Bytes after which all inspectors know. Some ask for a file's end, which may
be terabytes away; what they look for there does not make a format."""
_CHUNK = 64 << 10

Parts = tuple[str, ...]


def check_image(share: str, name: str, format: str, within: str | None = None) -> None:
    """Raise Refused or OSError unless all is well (see :meth:`moorline.ports.Host.image`)."""
    fence = _fence(share, within or share)
    with _opened(share, os.O_PATH | os.O_DIRECTORY) as root:
        if format == "ploop":
            _check_ploop(root, share, _parts(name))
        else:
            _check_chain(root, share, fence, (_parts(name), format))


def _check_chain(root: int, share: str, fence: Parts, first: tuple[Parts, str]) -> None:
    seen: set[tuple[int, int]] = set()
    pending = [first]
    while pending:
        parts, format = pending.pop()
        with _image(root, parts) as (file, st):
            if (st.st_dev, st.st_ino) in seen:
                raise Refused(f"the backing chain comes back to {_name(parts)}")
            if len(seen) == LONGEST_CHAIN:
                raise Refused(f"the backing chain has more than {LONGEST_CHAIN} files")
            seen.add((st.st_dev, st.st_ino))
            _check_format(file, parts, format)
            if format == "qcow2":
                pending += _references(file, share, fence, parts)


def _check_format(file: int, parts: Parts, declared: str) -> None:
    found = _detect(file)
    if declared == "raw" and found != {"raw"}:
        raise Refused(
            f"{_name(parts)} is declared raw, but begins as {' and '.join(sorted(found))}",
            hint="declare the format that it has, or convert it with qemu-img convert -f",
        )
    if declared != "raw" and found != {declared}:
        raise Refused(
            f"{_name(parts)} is declared {declared}, but begins as {' and '.join(sorted(found))}"
        )


def _detect(file: int) -> set[str]:
    with open(file, "rb", buffering=0, closefd=False) as source:
        stream = format_inspector.InspectWrapper(source, allowed_formats=["raw", *_CONTAINERS])
        left = _ENOUGH
        while left > 0 and stream.formats is None and (chunk := stream.read(min(left, _CHUNK))):
            left -= len(chunk)
        stream.close()
        return {str(inspector) for inspector in stream.formats or ()}


def _references(file: int, share: str, fence: Parts, parts: Parts) -> Iterator[tuple[Parts, str]]:
    """The files that a qcow2 image refers to, each with its declared format."""
    try:
        header = qcow2.parse(os.pread(file, qcow2.ENOUGH, 0))
    except Refused as e:
        raise Refused(f"{_name(parts)}: {e.message}", hint=e.hint) from e
    if header.data_file:
        yield _resolve(share, fence, parts, header.data_file), "raw"
    if header.backing:
        if header.backing_format not in ("raw", "qcow2"):
            raise Refused(
                f"{_name(parts)} has a backing file of "
                + (
                    f"the format {header.backing_format!r}"
                    if header.backing_format
                    else "no format"
                ),
                hint="it is never probed; declare it with qemu-img rebase -u -F",
            )
        yield _resolve(share, fence, parts, header.backing), header.backing_format


def _resolve(share: str, fence: Parts, image: Parts, name: str) -> Parts:
    """Where *name*, found in *image*, lies beneath the share, as QEMU reads it."""
    if ":" in name.partition("/")[0]:
        # QEMU takes "json:{…}", "nbd://…" and the like for protocols.
        raise Refused(f"{_name(image)} refers to {name!r}, which is not a plain file name")
    path = os.path.normpath("/".join([share, *image[:-1], name]) if name[0] != "/" else name)
    # No directory on the way is a symlink, so ".." is what it seems to be.
    try:
        parts = PurePosixPath(path).relative_to(os.path.normpath(share)).parts
    except ValueError:
        parts = ()
    if not parts or parts[: len(fence)] != fence:
        raise Refused(f"{_name(image)} refers to {name!r}, which is outside of its share")
    return parts


def _fence(share: str, within: str) -> Parts:
    try:
        return PurePosixPath(within).relative_to(share).parts
    except ValueError:
        raise Refused(f"{within} is not beneath {share}") from None


def _parts(name: str) -> Parts:
    parts = tuple(name.split("/"))
    if not name.isprintable() or {"", ".", ".."} & set(parts):
        raise Refused(f"{name!r} is not the name of a file beneath a share")
    return parts


def _name(parts: Parts) -> str:
    return "/".join(parts)


@contextmanager
def _image(root: int, parts: Parts) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file for reading; look at its type before it is opened."""
    with _walked(root, parts) as (place, st):
        if not stat.S_ISREG(st.st_mode):
            raise Refused(f"{_name(parts)} is {_type(st)}, not a regular file")
        with _opened(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK) as file:
            yield file, st


def _check_ploop(root: int, share: str, parts: Parts) -> None:
    """All files that the directory's descriptor names are in it, and none is of a format."""
    with _walked(root, parts) as (_, st):
        if not stat.S_ISDIR(st.st_mode):
            raise Refused(f"{_name(parts)} is {_type(st)}, not a directory")
    descriptor = (*parts, ploop.NAME)
    with _image(root, descriptor) as (file, _):
        names = ploop.files(os.pread(file, ploop.ENOUGH + 1, 0))
    for name in names:
        delta = _resolve(share, parts, descriptor, name)
        with _image(root, delta) as (file, _):
            # oslo.utils does not know ploop's own header.
            _check_format(file, delta, "raw")


@contextmanager
def _walked(root: int, parts: Parts) -> Iterator[tuple[int, os.stat_result]]:
    """Go down from *root* without following a symlink or entering another file system."""
    device = os.fstat(root).st_dev
    place = os.dup(root)
    try:
        for depth, part in enumerate(parts, 1):
            place = _step(place, part, parts[:depth])
            st = os.fstat(place)
            if stat.S_ISLNK(st.st_mode):
                raise Refused(f"{_name(parts[:depth])} is a symbolic link")
            if st.st_dev != device:
                raise Refused(f"{_name(parts[:depth])} is on another file system than its share")
        yield place, st
    finally:
        os.close(place)


def _step(place: int, part: str, sofar: Parts) -> int:
    try:
        below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(f"there is no file {_name(sofar)} on the share") from None
    except OSError as e:
        _rename(e, _name(sofar))
    os.close(place)
    return below


def _rename(error: OSError, name: str) -> NoReturn:
    raise OSError(error.errno, error.strerror, name) from error


def _type(st: os.stat_result) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFREG: "a regular file",
    }
    return kinds[stat.S_IFMT(st.st_mode)]


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)
