"""Lists the files of an image: itself and its backing files. Nothing is refused here.

Runs in a child that can be killed: every call may hang.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress

from moorline.errors import Refused
from moorline.host.image import qcow2
from moorline.ports.host import FileId, FilesOf, Images

MAX_CHAIN_FILES = 32
"""Files of an image, at most: with more it is refused."""
_FEW = 4
"""Files of one directory that are asked for singly: to list it costs as much."""
_ENTRIES_EACH = 64
"""Entries that are listed for each file that is asked for, at most: one question tells of many."""

File = tuple[str, int, int, int, int, tuple[int, ...]]
"""As the fields of :class:`moorline.ports.FileId`."""


def look(images: Images, like: Collection[int] | None, *, first: bool) -> list[list[File] | int]:
    """What :func:`files` tells of each, or the errno that it met.

    *like*, *first*: as of :meth:`moorline.ports.Host.files`.
    """
    if not first:
        unlike = {} if like is None else _unlike(images, like)
        return [
            [unlike[path]] if path in unlike else _each(path, form, like) for path, form in images
        ]
    mine = _each(*images[0], None)
    if isinstance(mine, int):
        return [mine] * len(images)  # of the others only what is like the first was asked
    return [mine, *look(images[1:], {*(like or ()), *(file[2] for file in mine)}, first=False)]


def files(path: str, format: str, like: Collection[int] | None = None) -> list[File]:
    """The file, and those beneath it as far as they can be read. Raises OSError for the first.

    *like*: as of :meth:`moorline.ports.Host.files`.
    """
    found = [_file(path, like)]
    pending = _beneath(path, format)
    while pending and len(found) < MAX_CHAIN_FILES:
        path, format = pending.pop()
        with suppress(OSError):
            found.append(_file(path, like))
            pending += _beneath(path, format)
    return found


def read(found: Sequence[list[File] | int], images: Images) -> Sequence[FilesOf]:
    """The answer of :func:`files` as it came through a pipe: files, or the errno that was met."""
    return [
        OSError(each, os.strerror(each), path)
        if isinstance(each, int)
        else [FileId(*file[:5], tuple(file[5])) for file in each]
        for each, (path, _) in zip(found, images, strict=True)
    ]


def _each(path: str, format: str, like: Collection[int] | None) -> list[File] | int:
    try:
        return files(path, format, like)
    except (OSError, ValueError) as e:  # a NUL in it, say
        return getattr(e, "errno", None) or errno.EINVAL


def _unlike(images: Images, like: Collection[int]) -> dict[str, File]:
    """Of the images that are one regular file, and none of *like*, what listings tell."""
    asked: defaultdict[str, list[str]] = defaultdict(list)
    for path, format in images:
        if format != "qcow2":
            asked[os.path.dirname(path)].append(path)  # noqa: PTH120
    told: dict[str, File] = {}
    for directory, paths in asked.items():
        if len(paths) > _FEW:
            with suppress(OSError, ValueError):  # each is asked for singly, and meets it
                told |= _listed(directory, paths, like)
    return told


def _listed(directory: str, paths: Sequence[str], like: Collection[int]) -> dict[str, File]:
    """Those of *paths* in *directory* whose entry there says that they are none of *like*.

    An entry has the number of what it names (readdir(3)), which of a symlink and of a mount
    point is not what a path leads to: the former are left out here, and the caller knows the
    latter. Not all file systems' entries have the numbers that stat(2) tells: one is compared.
    """
    names = {os.path.basename(path): path for path in paths}  # noqa: PTH119
    found: dict[str, int] = {}
    left = _ENTRIES_EACH * len(names)
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in names and entry.is_file(follow_symlinks=False):
                found[names[entry.name]] = entry.inode()
            left -= 1
            if not left or len(found) == len(names):
                break
    if not found:
        return {}
    sample, number = next(iter(found.items()))
    st = os.lstat(sample)
    if st.st_ino != number:
        return {}
    return {
        path: (path, st.st_dev, inode, 0, 0, ())
        for path, inode in found.items()
        if inode not in like
    }


def _file(path: str, like: Collection[int] | None) -> File:
    st = os.stat(path)  # noqa: PTH116 - as little to import as can be
    node = st.st_rdev if stat.S_ISBLK(st.st_mode) else 0
    if like is not None and not node and st.st_ino not in like:
        # Of very many this is most: one question to the share, instead of one for each directory.
        return path, st.st_dev, st.st_ino, node, 0, ()
    # With a device, its number says it all: a copy of a file system has the same id.
    unnamed = not os.major(st.st_dev) and not node
    id = os.statvfs(path).f_fsid if unnamed else 0
    lower = tuple(sorted(lower_devices(node))) if node else ()
    return os.path.realpath(path), st.st_dev, st.st_ino, node, id, lower


def lower_devices(node: int, sys: str = "/sys") -> set[int]:
    """The numbers of the block devices that one lies on, as sysfs tells it: it never hangs."""
    found: set[int] = set()
    pending = [f"{sys}/dev/block/{os.major(node)}:{os.minor(node)}"]
    while pending:
        for below in _lower(os.path.realpath(pending.pop())):
            with suppress(OSError, ValueError), open(f"{below}/dev") as file:  # noqa: PTH123
                major, _, minor = file.read().partition(":")
                found.add(os.makedev(int(major), int(minor)))
                pending.append(below)
    return found


def _lower(device: str) -> list[str]:
    """The directories of the devices that *device* is a part of, or made of."""
    below = [os.path.dirname(device)] if os.path.exists(f"{device}/partition") else []  # noqa: PTH110, PTH120
    with suppress(OSError), os.scandir(f"{device}/slaves") as slaves:
        below += [slave.path for slave in slaves]
    return below


def _beneath(path: str, format: str) -> list[tuple[str, str]]:
    """The files that a qcow2 image names. A raw one names none, whatever its guest wrote there."""
    if format != "qcow2":
        return []
    try:
        header = qcow2.parse(_head(path))
    except (OSError, Refused):
        return []
    # QEMU looks beside the image, as it is called, not where a link leads.
    beside = os.path.dirname(path)  # noqa: PTH120
    name = header.backing
    if not name or ":" in name.partition("/")[0]:  # a protocol
        return []
    return [(os.path.join(beside, name), header.backing_format)]  # noqa: PTH118


def _head(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(file, qcow2.HEADER_BYTES, 0)
    finally:
        os.close(file)
