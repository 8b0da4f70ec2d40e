"""Mounts as values, and which of them a path lies on. Nothing is asked here, so nothing hangs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

_NEVER_HANG = frozenset(
    (
        *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs"),
        *("nilfs2", "vfat", "msdos", "exfat", "ntfs", "ntfs3", "iso9660", "udf", "squashfs"),
        *("erofs", "overlay", "aufs", "tmpfs", "ramfs", "rootfs", "hugetlbfs", "devtmpfs"),
        *("devpts", "mqueue", "proc", "sysfs", "cgroup", "cgroup2", "nsfs", "bpf", "pstore"),
        *("securityfs", "selinuxfs", "debugfs", "tracefs", "configfs", "efivarfs", "binfmt_misc"),
    )
)
"""File systems of this host alone. Those that are not named here may wait for somebody else: a
vendor's that nobody here has heard of is taken for a share."""
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    id: int
    source: str
    target: str
    """Of a mount point that was deleted it ends in ``//deleted``."""
    fstype: str
    device: str
    """``major:minor``"""
    shared: bool
    """Whether mounts made beneath it propagate to other mount namespaces."""
    root: str = "/"
    """The directory of its file system that is mounted: not / of a bind mount, say."""

    @property
    def may_hang(self) -> bool:
        """Whether a look at it may wait for another host, or for a process of this one."""
        return self.fstype not in _NEVER_HANG


IsIts = Callable[[Mount], bool]
"""Whether a mount may be the one in question, by its line alone."""


@lru_cache(maxsize=64)  # read often, changed seldom; guests of one kind see the same
def mounts_in(mountinfo: str) -> Sequence[Mount]:
    """The mounts of a mountinfo file's text, in mount order: proc_pid_mountinfo(5).

    Paths are bytes to the kernel: decode them so that what is no UTF-8 hides not the rest.
    """
    return tuple(_mount(line) for line in mountinfo.split("\n") if line)


def by_target(mounts: Sequence[Mount]) -> dict[str, Mount]:
    """Mounts by where they are. Of those at one place the last is on top."""
    return {mount.target: mount for mount in mounts}


class MountsByPath:
    """Which mount a path lies on, for very many paths: each directory is looked up once."""

    def __init__(self, mounts: Sequence[Mount]) -> None:
        self._table = by_target(mounts)
        self._directories: dict[str, Mount | None] = {}

    def covering(self, path: str) -> Mount | None:
        """As :func:`covering`."""
        if path in self._table:
            return self._table[path]
        directory, slash, _ = path.rpartition("/")
        if not slash:
            return None
        if directory not in self._directories:
            self._directories[directory] = covering(directory or "/", self._table)
        return self._directories[directory]


def covering(path: str, table: Mapping[str, Mount]) -> Mount | None:
    """The mount on which *path* lies. *table*: as of :func:`by_target`."""
    return table.get(innermost(path, table))


def innermost(path: str, targets: Collection[str]) -> str:
    """The innermost of *targets* on which *path* is; '', also for what is no absolute path."""
    while path.startswith("/") and path not in targets:
        path = "" if path == "/" else path.rpartition("/")[0] or "/"
    return path if path in targets else ""


def _mount(line: str) -> Mount:
    fields = line.split(" ")  # single spaces: the source may be empty
    number, _parent, device, root, target, _options = fields[:6]
    dash = fields.index("-", 6)
    fstype, source = fields[dash + 1 : dash + 3]
    return Mount(
        id=int(number),
        source=_unescape(source),
        target=_unescape(target),
        fstype=_unescape(fstype),
        device=device,
        shared=any(field.startswith("shared:") for field in fields[6:dash]),
        root=_unescape(root),
    )


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
