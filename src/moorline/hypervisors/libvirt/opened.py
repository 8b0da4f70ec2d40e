"""What a guest's QEMU has open, as the kernel names it: proc(5), ``/proc/PID/fd``."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from moorline.model import GuestId


def opened(guest: GuestId, proc: Path = Path("/proc")) -> frozenset[str] | None:
    """The paths of the files that it has open; None: its process cannot be seen.

    A name is the one that the file has now: of a file that was moved another, of one that was
    replaced or removed the old one with `` (deleted)`` behind it. The files are not touched, so a
    share that hangs stops nothing.
    """
    with suppress(OSError):
        for process in proc.iterdir():
            if process.name.isdigit() and _runs(process, guest):
                return _names(process / "fd")
    return None


def _runs(process: Path, guest: GuestId) -> bool:
    """libvirt starts QEMU with ``-uuid`` and the guest's."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False  # it has ended
    return (b"-uuid", guest.encode()) in pairwise(words)


def _names(descriptors: Path) -> frozenset[str] | None:
    found = set()
    try:
        for each in descriptors.iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.add(str(each.readlink()))
    except OSError:
        return None  # another user's
    return frozenset(found)
