"""What the kernel says of a block device: by /dev and /sys, which ask no storage and never hang."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moorline.model import Broken, Foreign, Unlinked

SYS = Path("/sys")
SECTOR = 512
_WWID = ("wwid", "device/wwid", "uuid", "nguid", "dm/uuid")


@dataclass(frozen=True, slots=True)
class Device:
    """A block device that is there."""

    size: int
    """Bytes."""
    number: int
    """The kernel's, as of stat(2): two nodes of one number are one device."""
    wwids: frozenset[str]
    """Its identities as sysfs spells them: ``naa.…``, ``eui.…``, ``uuid.…``, ``mpath-…``."""


def look(path: Path, sys: Path = SYS) -> Device | Unlinked | Broken | Foreign:
    """Tell what stands at *path*, which may be a symbolic link to a device."""
    try:
        found = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            return Broken(f"{path} leads to a device that is gone")
        return Unlinked()
    except OSError as e:
        return Foreign(f"{path} cannot be looked at: {e.strerror}")
    if not stat.S_ISBLK(found.st_mode):
        return Foreign(f"{path} is not a block device")
    facts = sys / f"dev/block/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    try:
        size = int((facts / "size").read_text()) * SECTOR
    except (OSError, ValueError):
        return Broken(f"there is no device behind {path}")
    if not size:
        return Broken(f"the device {path} has no medium")
    return Device(size, found.st_rdev, frozenset(_wwids(facts)))


def _wwids(facts: Path) -> set[str]:
    found = set()
    for name in _WWID:
        with suppress(OSError):
            found.add((facts / name).read_text().strip())
    return found - {""}
