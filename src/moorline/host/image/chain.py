"""Which files an image consists of: itself, and those beneath it. Nothing is judged here.

Runs in a child that can be killed: every call may hang.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress

from moorline.errors import Refused
from moorline.host.image import qcow2
from moorline.ports.host import FileId, FilesOf, Images

LONGEST = 32

File = tuple[str, int, int, int, int]
"""As the fields of :class:`moorline.ports.FileId`."""


def files(path: str, format: str, like: Collection[int] | None = None) -> list[File]:
    """The file, and those beneath it as far as they can be read. Raises OSError for the first.

    *like*: as of :meth:`moorline.ports.Host.files`.
    """
    found = [_file(path, like)]
    pending = _beneath(path, format)
    while pending and len(found) < LONGEST:
        path, format = pending.pop()
        with suppress(OSError):
            found.append(_file(path, like))
            pending += _beneath(path, format)
    return found


def read(found: Sequence[list[File] | int], images: Images) -> Sequence[FilesOf]:
    """What was found of *images*, or its errno, as it came through a pipe."""
    return [
        OSError(each, os.strerror(each), path)
        if isinstance(each, int)
        else [FileId(*file) for file in each]
        for each, (path, _) in zip(found, images, strict=True)
    ]


def _file(path: str, like: Collection[int] | None) -> File:
    st = os.stat(path)  # noqa: PTH116 - as little to import as can be
    node = st.st_rdev if stat.S_ISBLK(st.st_mode) else 0
    if like is not None and not node and st.st_ino not in like:
        # Of very many this is most: one question to the share, instead of one for each directory.
        return path, st.st_dev, st.st_ino, node, 0
    # With a device, its number says it all: a copy of a file system has the same id.
    unnamed = not os.major(st.st_dev) and not node
    id = os.statvfs(path).f_fsid if unnamed else 0
    return os.path.realpath(path), st.st_dev, st.st_ino, node, id


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
        return os.pread(file, qcow2.ENOUGH, 0)
    finally:
        os.close(file)
