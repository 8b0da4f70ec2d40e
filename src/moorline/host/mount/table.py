"""The mount table as values: /proc/self/mountinfo, see proc_pid_mountinfo(5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moorline.ports.mount import Mount, mounts_in

MOUNTINFO = Path("/proc/self/mountinfo")


def read(path: Path = MOUNTINFO) -> Sequence[Mount]:
    """Return the mount table in mount order. It asks no file system, so it never hangs."""
    # Paths are bytes to the kernel: one that is not UTF-8 must not hide the others.
    with path.open("rb", buffering=0) as table:
        return mounts_in(table.read().decode("utf-8", "surrogateescape"))


def mount_at(mounts: Sequence[Mount], path: str | Path) -> Mount | None:
    """The topmost mount at exactly *path*: the last that was made there; None: there is none."""
    return next((mount for mount in reversed(mounts) if mount.target == str(path)), None)


def ids_at(path: str) -> tuple[int, ...]:
    """The ids of the mounts at exactly *path*; they differ after it was mounted anew."""
    return tuple(mount.id for mount in read() if mount.target == path)
