"""How large disks are, and guests that are shown, or make themselves, larger ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from moorline.byte_sizes import exact
from moorline.errors import Failed, Refused
from moorline.hypervisors.libvirt.blocked_disks import demand_no_job
from moorline.hypervisors.libvirt.connection import Connection
from moorline.hypervisors.libvirt.domain_handles import Handles
from moorline.hypervisors.libvirt.domain_xml import Domain, MarkedDisk
from moorline.hypervisors.libvirt.extending import extensible, replaced, stored
from moorline.model import Growable, GuestId, Sizes, VolumeId
from moorline.ports import Measure, Places

REPLACED = "what the guest writes is in the file that it has open, and is gone when it stops"
_SHOWN = "rbd:"
"""What the servers' disks are known by that QEMU can be told are larger. NBD has no such request,
and of iSCSI it was not tried."""
BYTES = 1
"""VIR_DOMAIN_BLOCK_RESIZE_BYTES."""
CAPACITY = 0
"""Index in virDomainBlockInfo of the size that the guest sees. What it says of the storage is
of no use: the "physical" size of a file to which QEMU has written is what is allocated."""


class Resizing:
    """The methods of :class:`moorline.ports.GrowingHypervisor`. *look* looks at a guest."""

    def __init__(
        self,
        connection: Connection,
        handles: Handles,
        look: Callable[[GuestId], Domain],
        measure: Measure,
        places: Places,
    ) -> None:
        self._connection = connection
        self._handles = handles
        self._look = look
        self._measure = measure
        self._places = places

    def sizes(self, guest: GuestId, volume: VolumeId) -> Sizes:
        return self._sizes(guest, volume)[2]

    def extend(self, guest: GuestId, volume: VolumeId, size: int) -> int:
        domain, target, sizes = self._sizes(guest, volume)
        if size != sizes.storage:
            # QEMU would make a file as long or as short as it is told.
            has = "no size" if sizes.storage is None else exact(sizes.storage)
            raise Failed(f"the storage of volume {volume} has {has}, not {exact(size)}")
        self._show(domain, target, size, sizes)
        return size

    def served_sizes(self, guest: GuestId, volume: VolumeId, stored: int) -> Sizes:
        return self._served(guest, volume, stored)[2]

    def show_served(self, guest: GuestId, volume: VolumeId, stored: int) -> int:
        domain, target, sizes = self._served(guest, volume, stored)
        self._show(domain, target, stored, sizes)
        return stored

    def _served(self, guest: GuestId, volume: VolumeId, stored: int) -> tuple[Domain, str, Sizes]:
        domain = self._look(guest)
        disk = extensible(domain, volume)
        if not disk.source.startswith(_SHOWN):
            raise Refused(
                f"{disk.source} is a server's disk, of which no new size is shown to guests",
                hint="detach it and attach it again",
            )
        # What does not run sees the new size when it is started.
        told = self._told(guest, disk) if domain.live is not None else stored
        return domain, disk.target, Sizes(guest=told, storage=stored)

    def _told(self, guest: GuestId, disk: MarkedDisk) -> int:
        told: int = self._connection.look(
            guest, lambda virt: self._handles.of(virt, guest).blockInfo(disk.target)[CAPACITY]
        )
        return told

    def growable(self, guest: GuestId, volume: VolumeId) -> Growable:
        domain = self._look(guest)
        disk = extensible(domain, volume, growing=True)
        told, storage = self._measured(domain, disk, volume)
        running = domain.live is not None
        raw = running and disk.format == "raw"
        return Growable(guest=told, storage=storage if raw else told, running=running)

    def grow(self, guest: GuestId, volume: VolumeId, size: int) -> None:
        domain = self._look(guest)
        disk = extensible(domain, volume, growing=True)
        if domain.live is None:
            raise Failed(f"{domain.name} does not run any more")
        told, _ = self._measured(domain, disk, volume)
        if size < told:  # QEMU would make it shorter
            raise Refused(f"volume {volume} has {exact(told)}, and cannot shrink to {exact(size)}")
        self._resize(guest, disk.target, size)

    def _show(self, domain: Domain, target: str, size: int, sizes: Sizes) -> None:
        """Tell the guest, again if QEMU has told it already.

        What QEMU tells a virtio driver that is still starting is lost (virtio_notify_config in
        hw/virtio/virtio.c), so a disk that was plugged just now may keep the size that it had.
        """
        if size != sizes.guest:
            self._resize(GuestId(domain.uuid), target, size)
        elif domain.live is not None:  # else it sees it when it is started
            with suppress(Refused, Failed):  # nothing is owed
                self._resize(GuestId(domain.uuid), target, size)

    def _resize(self, guest: GuestId, target: str, size: int) -> None:
        demand_no_job(self._connection, guest, target, self._handles.of)
        self._connection.change(
            guest, lambda virt: self._handles.of(virt, guest).blockResize(target, size, BYTES)
        )

    def _sizes(self, guest: GuestId, volume: VolumeId) -> tuple[Domain, str, Sizes]:
        """The guest, the disk's target and sizes."""
        domain = self._look(guest)
        disk = extensible(domain, volume)
        told, storage = self._measured(domain, disk, volume)
        # What a stopped guest will see is read from the image already.
        return domain, disk.target, Sizes(guest=told, storage=storage if domain.live else told)

    def _measured(self, domain: Domain, disk: MarkedDisk, volume: VolumeId) -> tuple[int, int]:
        """The bytes that the guest sees, and those of the file or device."""
        guest = GuestId(domain.uuid)
        # First, because libvirt looks at the storage too, and would hang with it.
        storage = stored(disk, self._measure)
        source = disk.source if domain.live is not None else ""
        if why := replaced(guest, domain.name, source, self._measure, self._places):
            raise Refused(
                f"volume {volume} is not extended: {why}", hint=f"{REPLACED}; moorline doctor"
            )
        return self._told(guest, disk), storage


class Resizes:
    """See :class:`moorline.ports.GrowingHypervisor` and :class:`moorline.ports.ShowingServed`."""

    _resizing: Resizing

    def sizes(self, guest: GuestId, volume: VolumeId) -> Sizes:
        return self._resizing.sizes(guest, volume)

    def extend(self, guest: GuestId, volume: VolumeId, size: int) -> int:
        return self._resizing.extend(guest, volume, size)

    def served_sizes(self, guest: GuestId, volume: VolumeId, stored: int) -> Sizes:
        return self._resizing.served_sizes(guest, volume, stored)

    def show_served(self, guest: GuestId, volume: VolumeId, stored: int) -> int:
        return self._resizing.show_served(guest, volume, stored)

    def growable(self, guest: GuestId, volume: VolumeId) -> Growable:
        return self._resizing.growable(guest, volume)

    def grow(self, guest: GuestId, volume: VolumeId, size: int) -> None:
        self._resizing.grow(guest, volume, size)
