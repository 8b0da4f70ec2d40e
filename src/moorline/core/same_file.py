"""Whether two paths lead to one file, as far as this host can tell. Pure."""

from __future__ import annotations

import os
from pathlib import Path

from moorline.model import Use
from moorline.ports import FileId, Mount
from moorline.ports.inspection import NAMELESS, OpenFile
from moorline.ports.mount import MountsByPath


def fits(mine: Use, theirs: Use) -> bool:
    """Whether two may have one file so."""
    return (mine.readonly and theirs.readonly) or (mine.shared and theirs.shared)


def same_file(mine: FileId, theirs: FileId, table: MountsByPath) -> bool:
    """Whether both are one file, as far as this host can tell; of devices, whether one is a part
    of the other, or made of it.
    """
    if mine.node or theirs.node:
        return mine.node in (theirs.node, *theirs.lower) or theirs.node in mine.lower
    if mine.inode != theirs.inode:
        return False
    if mine.device == theirs.device:
        return True
    if mine.filesystem and mine.filesystem == theirs.filesystem:
        return True
    # One share may be mounted twice, by two names of its server, or a directory of it besides. The
    # kernel does not tell that.
    one, other = table.covering(mine.path), table.covering(theirs.path)
    if not one or not other or not may_be_same(one, other):
        return False
    return _agrees(mine.path, one, theirs.path, other)


def may_be_same(one: Mount | None, other: Mount | None) -> bool:
    """Whether two mounts may be of one file system, by the mount table alone.

    A file system on a device is known by the device. Network and FUSE mounts have a number
    each: two of the same type are distinct only if their sources have no part in common.
    """
    if one is None or other is None or one.device == other.device:
        return True
    unnamed = one.device.startswith("0:") and other.device.startswith("0:")
    if not unnamed or one.fstype.rstrip("4") != other.fstype.rstrip("4"):  # nfs is nfs4
        return False
    ours, theirs = _names(one.source), _names(other.source)
    return not ours or not theirs or bool(ours & theirs)


def is_open(mine: FileId, at: Mount | None, theirs: OpenFile) -> bool:
    """Whether *mine*, which lies on *at*, is or may be what a process has open.

    A mount that is no more tells nothing: its files are known by their number alone.
    """
    if mine.node or theirs.node:
        return theirs.node != 0 and theirs.node in (mine.node, *mine.lower)
    if mine.inode != theirs.inode:
        return False
    if at is None or theirs.mount is None or at.device == theirs.mount.device:
        return True
    path = theirs.path.removesuffix(NAMELESS)
    return may_be_same(at, theirs.mount) and _agrees(mine.path, at, path, theirs.mount)


def _agrees(path: str, one: Mount, theirs: str, other: Mount) -> bool:
    """Whether two paths whose inode numbers agree are one file, on mounts that may be the same."""
    if one.fstype.startswith("fuse"):
        return True  # each mount has a device of its own, so the number is all there is
    # Exports of one NFS server are often several file systems, whose small numbers agree by
    # chance: the place must agree, too.
    return any(place(path, one) == place(theirs, other) for place in (_within, _on_server))


def _names(source: str) -> frozenset[str]:
    """The parts of a share's name but for its server: ``host:/a/b``, ``client@hosts/a``."""
    _, slash, rest = source.partition("/")
    return frozenset(filter(None, (rest if slash else source.partition(":")[2]).split("/")))


def _on_server(path: str, mount: Mount) -> str:
    """Where a path lies on its server, whichever directory is mounted: host:/a, //host/share/a."""
    _, _, directory = mount.source.removeprefix("//").partition("/")
    return str(Path("/", directory.strip("/"), _within(path, mount)))


def _within(path: str, mount: Mount) -> str:
    return os.path.relpath(path, mount.target)
