"""Finds out what this host itself uses a block device or a file for: then no guest may have it.

It reads /proc, /sys and the mount table, which ask no storage and never hang.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moorline.errors import Refused
from moorline.ports import Mount

SYS = Path("/sys")
SWAPS = Path("/proc/swaps")


@dataclass(frozen=True, slots=True)
class HostUse:
    """The files of the kernel in which that is told."""

    sys: Path = SYS
    swaps: Path = SWAPS

    def demand_free_device(self, path: Path, number: int, mounts: Sequence[Mount]) -> None:
        """Raise Refused if the host uses the device, a part of it, or the whole that it is part of.

        *number*: the device's, as in stat(2).
        """
        for device in self._parts(number):
            if why := self._used(device, mounts):
                which = "" if device.number == _named(number) else f"{device.name}, "
                raise Refused(
                    f"{path} is in use by this host: {which}{why}",
                    hint=f"end that first: `lsblk {path}` shows what is on it",
                )

    def demand_free_file(self, path: Path) -> None:
        """Raise Refused if the host swaps to the file or has it as a loop device."""
        if _escaped(str(path)) in self._swapped_to():
            raise Refused(f"{path} is in use by this host: it swaps to it", hint=f"swapoff {path}")
        for loop in (self.sys / "block").glob("loop*/loop/backing_file"):
            with suppress(OSError):
                if loop.read_text().rstrip("\n") == str(path):
                    device = f"/dev/{loop.parts[-3]}"
                    raise Refused(
                        f"{path} is in use by this host: it is the loop device {device}",
                        hint=f"unmount that and let go of it: losetup --detach {device}",
                    )

    def _parts(self, number: int) -> Iterator[_Device]:
        """The device, its partitions, and the one whose partition it is."""
        at = Path(os.path.realpath(self.sys / "dev/block" / _named(number)))
        beside = [at.parent] if (at / "partition").exists() else []
        for directory in (at, *beside, *(file.parent for file in at.glob("*/partition"))):
            with suppress(OSError):
                yield _Device(directory, (directory / "dev").read_text().strip())

    def _used(self, device: _Device, mounts: Sequence[Mount]) -> str:
        """What the host uses this device itself for; ''."""
        for mount in mounts:
            if mount.device == device.number:
                return f"mounted at {mount.target}"
        if any(_number_of(path) == device.number for path in self._swapped_to()):
            return "used as swap"
        if holders := device.holders():
            return f"held by {', '.join(holders)} (LVM, RAID, device mapper)"
        # A file system that may have several devices has a number of its own in the mount table.
        if any((self.sys / "fs/btrfs").glob(f"*/devices/{device.name}")):
            return "part of a btrfs that is mounted"
        return ""

    def _swapped_to(self) -> list[str]:
        """The paths to which the host swaps, as the kernel spells them, without blanks."""
        try:
            lines = self.swaps.read_text(errors="surrogateescape").splitlines()[1:]
        except OSError:
            return []  # a kernel without swap has no such file
        return [line.split()[0] for line in lines if line.strip()]


@dataclass(frozen=True, slots=True)
class _Device:
    """A block device in sysfs."""

    directory: Path
    number: str
    """``major:minor``"""

    @property
    def name(self) -> str:
        return self.directory.name

    def holders(self) -> list[str]:
        """The devices that are made of it (dm-3, md0), with their names for people."""
        try:
            found = sorted((self.directory / "holders").iterdir())
        except OSError:
            return []
        return [_called(holder) for holder in found]


def _called(holder: Path) -> str:
    try:
        return f"{holder.name} {(holder / 'dm/name').read_text().strip()}"
    except OSError:
        return holder.name


def _number_of(path: str) -> str:
    """The number of the block device at *path*; '' if it is none."""
    if not path.startswith("/dev/"):  # /dev does not hang
        return ""
    try:
        return _named(Path(path).stat().st_rdev)
    except OSError:
        return ""


def _escaped(path: str) -> str:
    return "".join(rf"\{ord(char):03o}" if char in " \t\n\\" else char for char in path)


def _named(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"
