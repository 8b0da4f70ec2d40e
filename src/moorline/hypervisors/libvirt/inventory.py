"""Looks closer at libvirt's guests and at libvirt itself, for doctor and adopt."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from moorline.errors import Refused
from moorline.hypervisors.libvirt import blocked_disks, mount_propagation
from moorline.hypervisors.libvirt.connection import Connection, NoGuest
from moorline.hypervisors.libvirt.disk_options_xml import options_of
from moorline.hypervisors.libvirt.domain_xml import (
    HARD_DISKS,
    INACTIVE,
    Half,
    alias_of,
    chosen_alias,
    format_of,
    marked_as,
    parse,
    source_of,
)
from moorline.hypervisors.libvirt.file_access import qemu_ids, user_name
from moorline.model import GuestId, VolumeId
from moorline.ports.inspection import Finding, GuestDisk

CONFIG = 2
"""VIR_DOMAIN_AFFECT_CONFIG."""
_NOVA = "metadata/{http://openstack.org/xmlns/libvirt/nova/1.1}instance"
"""What Nova writes into each definition (nova/virt/libvirt/config.py, LibvirtConfigGuestMeta…)."""


class LibvirtInventory:
    """See :class:`moorline.ports.inspection.Inventory`. The *connection* is the hypervisor's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._system = connection.uri.endswith("/system")

    def disks(self, guest: GuestId) -> Sequence[GuestDisk]:
        live, defined = self._connection.look(guest, lambda virt: _halves(virt, guest))
        found = {device: _disk(disk, running=True) for device, disk in live.items()}
        for device, disk in defined.items():
            both = found.get(device)
            same = both is not None and both.path == source_of(disk.xml)
            found[device] = _disk(disk, running=same, defined=True)
            if both is not None and not same:  # two disks have the same name: both are listed
                found[f"{device} (running)"] = both
        return [found[device] for device in sorted(found)]

    def mark(self, guest: GuestId, device: str, volume: VolumeId) -> None:
        live, defined = self._connection.look(guest, lambda virt: _halves(virt, guest))
        if live:
            # libvirt: "cannot modify field 'alias' of the disk".
            raise Refused("a running guest's disk cannot be given a mark", hint="stop the guest")
        if device not in defined:
            raise Refused(f"the guest has no disk {device}")
        disk = copy.deepcopy(defined[device].xml)
        for tag in ("alias", "serial"):
            for element in disk.findall(tag):
                disk.remove(element)
        ET.SubElement(disk, "alias", name=alias_of(volume))
        ET.SubElement(disk, "serial").text = volume
        xml = ET.tostring(disk, encoding="unicode")
        self._connection.change(
            guest, lambda virt: virt.lookupByUUIDString(guest).updateDeviceFlags(xml, CONFIG)
        )

    def diagnose(self, places: Sequence[Path]) -> Sequence[Finding]:
        hang = self._connection.stuck_guests()
        found = self._connection.look(
            NoGuest("paused guests"), lambda v: blocked_disks.findings(v, hang)
        )
        if not self._system or not places:
            return found  # QEMU runs as we do, in our namespace
        capabilities = self._connection.look(NoGuest("capabilities"), lambda v: v.getCapabilities())
        ids = qemu_ids(capabilities)
        found += _traps(places)
        return [*found, *_unreachable(places, *ids)] if ids else found

    def facts(self) -> Mapping[str, str]:
        libvirt, qemu = self._connection.look(
            NoGuest("versions"), lambda virt: (virt.getLibVersion(), virt.getVersion())
        )
        return {"libvirt": _version(libvirt), "QEMU": _version(qemu)}


class _HardDisk(NamedTuple):
    xml: ET.Element
    boots: bool
    nova: bool


_Disks = dict[str, _HardDisk]


def _halves(virt: Any, guest: GuestId) -> tuple[_Disks, _Disks]:
    """The disks of the running guest and of its definition, by their device."""
    domain = virt.lookupByUUIDString(guest)
    now = parse(domain.XMLDesc())
    if not now.running:
        return {}, _disks(now)
    return _disks(now), _disks(parse(domain.XMLDesc(INACTIVE))) if domain.isPersistent() else {}


def _disks(half: Half) -> _Disks:
    root = half.xml
    disks = [
        disk
        for disk in root.iterfind("devices/disk")
        if disk.get("device", "disk") in HARD_DISKS or marked_as(disk)
    ]
    # Where the order is one of kinds of devices, libvirt takes the first disk.
    first = disks[:1] if root.find("os/boot[@dev='hd']") is not None else []
    nova = root.find(_NOVA) is not None
    return {
        _get(disk, "target", "dev"): _HardDisk(
            disk, disk in first or disk.find("boot") is not None, nova
        )
        for disk in disks
    }


def _disk(found: _HardDisk, *, running: bool, defined: bool = False) -> GuestDisk:
    disk = found.xml
    return GuestDisk(
        device=_get(disk, "target", "dev"),
        path=source_of(disk),
        format=format_of(disk),
        bus=_get(disk, "target", "bus"),
        mark=marked_as(disk) or "",
        serial=disk.findtext("serial", ""),
        readonly=disk.find("readonly") is not None,
        shared=disk.find("shareable") is not None,
        running=running,
        defined=defined,
        boots=found.boots,
        nova=found.nova,
        alias=chosen_alias(disk),
        options=options_of(disk),
    )


def _get(element: ET.Element, child: str, attribute: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(attribute, "")


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _traps(places: Sequence[Path]) -> Iterator[Finding]:
    for place in places:
        trap = mount_propagation.private_mount(str(place))
        if trap:
            yield Finding(
                "propagation",
                str(place),
                f"mounts made in {place} do not reach guests that run: {trap} is a private mount",
                "a share that is mounted after a guest has started is not there for its QEMU",
                f"mount --make-rshared {trap}",
            )


def _unreachable(places: Sequence[Path], user: int, group: int) -> Iterator[Finding]:
    if user == 0:
        return
    for at in sorted({at for place in places for at in (place, *place.parents)}):
        with suppress(OSError):  # it is made when it is needed
            found = at.stat()
            may = (found.st_uid, user, 0o100), (found.st_gid, group, 0o010)
            own = next((bit for owner, who, bit in may if owner == who), 0o001)
            if not found.st_mode & own:
                name = user_name(user)
                yield Finding(
                    "unreachable",
                    str(at),
                    f"QEMU's user {name} may not pass {at} (mode {found.st_mode & 0o7777:04o})",
                    "guests cannot open disks on links beneath it",
                    f"chmod o+x {at}",
                )
