"""The mount table as values: /proc/self/mountinfo, see proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from moorline.ports import Mount

MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def read(path: Path = MOUNTINFO) -> Sequence[Mount]:
    """Return the mount table in mount order. It asks no file system, so it never hangs."""
    # Paths are bytes to the kernel: what is no UTF-8 must not hide the rest.
    return parse(path.read_bytes().decode("utf-8", "surrogateescape"))


@lru_cache(maxsize=2)  # the table is read often and changes seldom
def parse(text: str) -> Sequence[Mount]:
    """Parse the content of a mountinfo file.

    The target of a mount point that was deleted ends in ``//deleted``.
    """
    return tuple(_mount(line) for line in text.split("\n") if line)


def mount_at(mounts: Sequence[Mount], path: str | Path) -> Mount | None:
    """Return the topmost mount at exactly *path*: the last that was made there."""
    return next((mount for mount in reversed(mounts) if mount.target == str(path)), None)


def ids_at(path: str) -> tuple[int, ...]:
    """The numbers of the mounts at exactly *path*: others if it was mounted anew."""
    return tuple(mount.id for mount in read() if mount.target == path)


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
