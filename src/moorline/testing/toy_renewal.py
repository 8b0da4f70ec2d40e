"""How a toy hypervisor gives paused guests their disks anew."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial

from moorline.errors import Refused
from moorline.model import GuestId, ImageFile, VolumeId
from moorline.testing.toy_world import ToyGuest, ToyWorld


class ToyDiskRenewal:
    """See :class:`moorline.ports.DiskRenewal`."""

    def __init__(self, world: ToyWorld) -> None:
        self._world = world

    def foresee(self, guest: GuestId, volume: VolumeId) -> None:
        if volume in self._world.guests[guest].told_of_errors:
            raise Refused(f"{volume} tells its guest of errors")

    def lost_file(self, guest: GuestId, volume: VolumeId) -> int | None:
        found = self._world.guests.get(guest)
        if found is None or not found.running or volume not in found.lost:
            return None
        if not found.waits:
            raise Refused(f"{found.name} is not paused by an I/O error")
        return inode_of(found.live[volume])

    def renew(
        self, guest: GuestId, volume: VolumeId, source: ImageFile, unchanged: Callable[[], None]
    ) -> None:
        found = self._world.guests[guest]
        if volume in found.lost:
            unchanged()
            self._world.faults.effect(partial(_hold, found, volume))
        if volume in found.held:
            unchanged()
            self._world.faults.effect(partial(found.held.discard, volume))

    def resume(self, guest: GuestId, about_to: Callable[[], None]) -> None:
        found = self._world.guests[guest]
        if not found.waits:
            return
        if found.lost or found.held:
            raise Refused(f"{found.name} has lost {found.lost | found.held}")
        about_to()
        self._world.faults.effect(lambda: setattr(found, "waits", False))


def _hold(guest: ToyGuest, volume: VolumeId) -> None:
    guest.held.add(volume)
    guest.lost.discard(volume)


def inode_of(path: str) -> int:
    """The number of the file at *path*."""
    return zlib.crc32(path.encode()) + 2
