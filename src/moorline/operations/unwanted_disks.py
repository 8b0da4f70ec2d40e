"""Finds volumes that a guest still has as disks, though they are not wanted on it any more."""

from __future__ import annotations

from collections.abc import Sequence

from moorline.core.driver import done_before
from moorline.errors import NotFound, NotOurs
from moorline.model import GuestName, VolumeId
from moorline.ports.inspection import GuestDisk, Inventory


class UnwantedDisks:
    """Finds disks of a volume that somebody else plugged: no detach of ours takes them away."""

    def __init__(self, inventory: Inventory | None) -> None:
        """*inventory*: None: the hypervisor tells of no disk but those that bear our mark."""
        self._inventory = inventory

    def demand_none(
        self,
        guest: GuestName,
        volume: VolumeId,
        path: str = "",
        *,
        done: str = "",
        marked: bool = True,
    ) -> None:
        """Raise NotOurs if a disk of *guest* is *volume*.

        It is by what it is called, or by its *path* ('': unknown). *done*: what was done before,
        so that a look that fails raises Uncertain; '': nothing, and it raises Unavailable or
        Uncertain. *marked*: also if it bears our mark.
        """
        if done:
            with done_before(done):
                disks = self._of(guest)
        else:
            disks = self._of(guest)
        its = (disk for disk in disks if disk.bears(volume) or (path and disk.path == path))
        found = next((disk for disk in its if marked or disk.mark != volume), None)
        if found is not None:
            raise NotOurs(
                f"{guest.name} has volume {volume} as {found.device} ({found.path}), which was"
                " not plugged by Moorline",
                hint="whoever plugged it takes it away; `moorline adopt` takes it over",
            ).about(volume, guest.name)

    def _of(self, guest: GuestName) -> Sequence[GuestDisk]:
        if self._inventory is None:
            return ()
        try:
            return self._inventory.disks(guest.id)
        except NotFound:
            return ()  # the guest went away
