"""Chooses a disk's address in a guest (target, bus, unit), or refuses the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from moorline.disk_options import normal, validate
from moorline.errors import Failed, MoorlineError, NotFound, NotOurs, Refused, Uncertain
from moorline.hypervisors.libvirt import network_xml, scsi_place
from moorline.hypervisors.libvirt.connection import Rejected
from moorline.hypervisors.libvirt.disk_options_xml import refuse_misplaced
from moorline.hypervisors.libvirt.disk_xml import bus_of, next_target, path_of
from moorline.hypervisors.libvirt.domain_xml import Domain, Half, ScsiPlace, alias_of
from moorline.hypervisors.libvirt.mount_propagation import hidden, hidden_from
from moorline.model import BlockDevice, DiskOptions, DiskSource, ImageFile, NetworkDisk, VolumeId

LIVE, CONFIG = 1, 2
"""VIR_DOMAIN_AFFECT_LIVE, VIR_DOMAIN_AFFECT_CONFIG."""
FORMATS = ("raw", "qcow2", "luks")


class DiskAddress(NamedTuple):
    """Where a disk is plugged."""

    target: str
    bus: str
    place: ScsiPlace | None
    """On the SCSI controllers; None on other buses."""
    controller: int | None = None
    """The index of a SCSI controller that has to be added first; None: there is one."""

    def is_taken(self, domain: Domain, volume: VolumeId) -> bool:
        """Whether something else in *domain* is there now, or has the volume's alias."""
        return any(
            self.target in half.targets
            or alias_of(volume) in half.aliases
            or self.place in half.scsi_places
            for half in domain.halves()
            if volume not in half.disks
        )


def missing_from(domain: Domain, volume: VolumeId) -> int:
    """The halves of *domain* that lack the volume, as flags."""
    flags = 0
    if domain.live is not None and volume not in domain.live.disks:
        flags |= LIVE
    if domain.defined is not None and volume not in domain.defined.disks:
        flags |= CONFIG
    return flags


def address_for(
    domain: Domain, volume: VolumeId, source: DiskSource, options: DiskOptions
) -> DiskAddress:
    """Choose target, bus and unit; free in both halves, or as one of them has it.

    Raises Refused, NotOurs (that one's disk is another).
    """
    halves = domain.halves()
    there = next((half.disks[volume] for half in halves if volume in half.disks), None)
    if there is not None:
        if there.source != path_of(source):
            raise NotOurs(
                f"{domain.name} has a disk marked as {volume} that is {there.source},"
                f" not {path_of(source)}"
            )
        # Both halves must agree, or the disk moves when the guest reboots.
        same = replace(options, target=there.target, bus=there.bus)
        check(domain, [half for half in halves if volume not in half.disks], source, same)
        if there.bus == "scsi":
            scsi_place.demand_controller(domain, there.place)
        return DiskAddress(there.target, there.bus, there.place)
    check(domain, halves, source, options)
    if any(alias_of(volume) in half.aliases for half in halves):
        raise NotOurs(
            f"{domain.name} has a device with the alias {alias_of(volume)} that is not volume"
            f" {volume}",
            hint=f"virsh dumpxml {domain.name}",
        )
    bus = bus_of(options)
    choice = scsi_place.choose(domain) if bus == "scsi" else None
    taken = {target for half in halves for target in half.targets}
    target = options.target or next_target(bus, taken)
    if choice is None:
        return DiskAddress(target, bus, None)
    return DiskAddress(target, bus, choice.place, choice.place[0] if choice.add else None)


def check(domain: Domain, halves: Sequence[Half], source: DiskSource, options: DiskOptions) -> None:
    """Raise Refused if a disk cannot work in *halves*; the hint says what to do."""
    path_of(source)
    if isinstance(source, ImageFile) and source.format not in FORMATS:
        raise Refused(f"QEMU has no driver for {source.format} files here")
    form = source.format if isinstance(source, ImageFile | BlockDevice) else "raw"
    if options.shared and form != "raw":
        raise Refused(f"a {form} file or device cannot be written to by several guests")
    if options.device == "lun" and form != "raw":
        raise Refused("a LUN is its guest's as it is, and is not deciphered", hint="leave it out")
    validate(options)
    if isinstance(source, NetworkDisk):
        network_xml.refuse_unfit(source, options)
    _check_device(source, options)
    bus = bus_of(options)
    refuse_misplaced(options, bus)
    if any(options.target in half.targets for half in halves if options.target):
        raise Refused(f"{domain.name} has a disk {options.target} already")
    if options.iothread and any(options.iothread not in half.iothreads for half in halves):
        raise Refused(
            f"{domain.name} has no I/O thread {options.iothread}",
            hint=f"virsh iothreadadd {domain.name} {options.iothread} --live --config",
        )
    if options.boot:
        for half in halves:
            _check_boot_order(domain.name, half, options.boot)
    _check_bus(domain, halves, bus)


def _check_device(source: DiskSource, options: DiskOptions) -> None:
    """Raise Refused unless *source* can be what the guest is to have it as."""
    if options.device != "lun":
        return
    served = isinstance(source, NetworkDisk) and source.protocol == "iscsi"
    if not (served or isinstance(source, BlockDevice)):
        raise Refused("a LUN is a SCSI device of this host, or one by iSCSI", hint="leave it out")
    if options.reservations and served:
        raise Refused(
            "what a guest reserves by QEMU's own iSCSI its target is asked for as it is",
            hint="leave --reservations out",
        )


def _check_boot_order(name: str, half: Half, place: int) -> None:
    """Raise Refused unless *place* in the boot order is free in *half*."""
    if half.boots_by_kind:
        raise Refused(
            f"{name} boots by kinds of devices (<boot dev=…>), and libvirt allows no disk a place"
            " in the boot order beside that",
            hint="virsh edit: take that line out of <os>, and give the disk that it boots from"
            " <boot order='1'/>",
        )
    if place in half.boot_order:
        raise Refused(f"{half.boot_order[place]} of {name} is at {place} in the boot order already")


def _check_bus(domain: Domain, halves: Sequence[Half], bus: str) -> None:
    plugs = domain.live is not None and domain.live in halves
    if bus == "sata" and plugs:
        raise Refused(
            f"no sata disk can be plugged into {domain.name} while it runs",
            hint="stop it first, or use another bus",
        )
    if bus == "usb" and not all(half.has_usb for half in halves):
        raise Refused(f"{domain.name} has no USB controller", hint="use another bus")
    needs_port = bus == "virtio" or (bus == "scsi" and scsi_place.choose(domain).add)
    if needs_port and plugs and domain.live is not None:
        _check_ports(domain.name, domain.live)


def error_after_plug(
    domain: Domain,
    volume: VolumeId,
    source: DiskSource,
    address: DiskAddress,
    flags: int,
    error: Failed | Rejected,
) -> MoorlineError | None:
    """What a plug that failed with *error* is, by *domain* as it is since; None: the disk is there.

    Another caller may have plugged it. *flags*: the halves that lacked it.
    """
    missing = missing_from(domain, volume)
    if not missing:
        return None
    if missing != flags:
        return Uncertain(f"{error.message} (though a part of it was done)")
    if domain.live is not None and hidden_from(domain.name, path_of(source)):
        return hidden(domain.name, path_of(source))
    if isinstance(error, Rejected) and address.is_taken(domain, volume):
        return Failed(error.message)  # another was faster: choose anew
    return error


def _check_ports(name: str, live: Half) -> None:
    if live.hotplug_ports is not None and not live.hotplug_ports[0]:
        raise Refused(
            f"{name} has no free PCI port for a virtio disk"
            f" ({live.hotplug_ports[1]} for hot-plugging, none of them free)",
            hint="use the bus scsi, or shut it down and add pcie-root-port controllers",
        )


def otherwise_limited(
    domain: Domain, volume: VolumeId, limits: Mapping[str, int]
) -> Mapping[str, int]:
    """Where the volume has other limits than *limits*: its targets, with the halves as flags.

    Raises NotFound: the guest has no such disk.
    """
    halves = {LIVE: domain.live, CONFIG: domain.defined}
    disks = {
        flag: half.disks[volume]
        for flag, half in halves.items()
        if half is not None and volume in half.disks
    }
    if not disks:
        raise NotFound(f"{domain.name} has no volume {volume}")
    found: dict[str, int] = {}
    for flag, disk in disks.items():
        if disk.limits != normal(limits):
            found[disk.target] = found.get(disk.target, 0) | flag
    return found
