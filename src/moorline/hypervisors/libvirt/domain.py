"""A domain's XML to values. Pure: https://libvirt.org/formatdomain.html."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from moorline.model import Disk, DiskState, VolumeId

MARK = "ua-"
"""libvirt keeps an alias that begins so; the rest is the volume's id."""


@dataclass(frozen=True, slots=True)
class MarkedDisk:
    """A disk that bears our mark, as one half of a domain shows it."""

    target: str
    bus: str
    source: str
    unit: int | None
    """Its unit on the SCSI controller."""


@dataclass(frozen=True, slots=True)
class Half:
    """The running half of a domain, or its definition."""

    disks: Mapping[VolumeId, MarkedDisk]
    targets: frozenset[str]
    units: frozenset[int]
    """Used units of the first virtio-scsi controller."""
    paths: frozenset[str]
    scsi_controller: int | None
    """Index of the first virtio-scsi controller."""
    hotplug_ports: tuple[int, int] | None
    """Free and all places for a hot-plugged PCI device; None: not known."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Both halves of a domain. A stopped one has no *live*, a transient one no *defined*."""

    uuid: str
    name: str
    live: Half | None
    defined: Half | None
    saved_paths: frozenset[str] = field(default_factory=frozenset)
    """Paths that its managed save image names."""

    def halves(self) -> list[Half]:
        return [half for half in (self.live, self.defined) if half is not None]

    def disks(self) -> dict[VolumeId, Disk]:
        """The marked disks: WHOLE if they are in every half that there is."""
        halves = self.halves()
        found: dict[VolumeId, Disk] = {}
        for half in halves:
            for volume, disk in half.disks.items():
                whole = all(volume in other.disks for other in halves)
                state = DiskState.WHOLE if whole else DiskState.PARTIAL
                found.setdefault(volume, Disk(state, disk.target, disk.source))
        return found

    def paths(self) -> frozenset[str]:
        return self.saved_paths.union(*(half.paths for half in self.halves()))


def parse(xml: str) -> Half:
    """Read one half of a domain."""
    domain = ET.fromstring(xml)  # noqa: S314 - libvirt's own output
    controller = _scsi_controller(domain)
    disks = {}
    targets, units = set(), set()
    for disk in domain.iterfind("devices/disk"):
        target = disk.find("target")
        name = "" if target is None else target.get("dev", "")
        bus = "" if target is None else target.get("bus", "")
        unit = _unit(disk, controller)
        targets.add(name)
        if unit is not None:
            units.add(unit)
        alias = disk.find("alias")
        mark = "" if alias is None else alias.get("name", "")
        if mark.startswith(MARK):
            marked = MarkedDisk(name, bus, _source(disk), unit)
            disks[VolumeId(mark.removeprefix(MARK))] = marked
    return Half(
        disks=disks,
        targets=frozenset(targets),
        units=frozenset(units),
        paths=frozenset(paths(domain)),
        scsi_controller=controller,
        hotplug_ports=_hotplug_ports(domain),
    )


def paths(element: ET.Element) -> Iterator[str]:
    """Every absolute path that the XML names, in whatever place: more is safer than less."""
    for each in element.iter():
        for text in (*each.attrib.values(), each.text or ""):
            if text.startswith("/"):
                yield os.path.normpath(text)


def _source(disk: ET.Element) -> str:
    source = disk.find("source")
    if source is None:
        return ""
    return source.get("file") or source.get("dev") or source.get("dir") or source.get("name") or ""


def _scsi_controller(domain: ET.Element) -> int | None:
    found = [
        int(controller.get("index", "0"))
        for controller in domain.iterfind("devices/controller[@type='scsi']")
        if controller.get("model") == "virtio-scsi"
    ]
    return min(found, default=None)


def _unit(disk: ET.Element, controller: int | None) -> int | None:
    address = disk.find("address[@type='drive']")
    target = disk.find("target[@bus='scsi']")
    if address is None or target is None or address.get("controller") != str(controller):
        return None
    return int(address.get("unit", "0"))


def _hotplug_ports(domain: ET.Element) -> tuple[int, int] | None:
    """Count the places where a PCI device can be hot-plugged.

    q35: a root port takes one device, and the root bus none while running.
    pc: the root bus and each bridge have 31 places, of which place 0 is not
    for devices. https://libvirt.org/pci-hotplug.html
    """
    buses = {
        int(controller.get("index", "0")): controller.get("model", "")
        for controller in domain.iterfind("devices/controller[@type='pci']")
    }
    used: dict[int, set[str]] = {bus: set() for bus in buses}
    for address in domain.iterfind("devices/*/address[@type='pci']"):
        bus = int(address.get("bus", "0"), 16)
        used.setdefault(bus, set()).add(address.get("slot", "0x00"))
    places = {"pcie-root-port": 1, "pcie-switch-downstream-port": 1}
    places |= {"pci-bridge": 31, "pcie-to-pci-bridge": 31, "pci-root": 31}
    total = free = 0
    for bus, model in buses.items():
        room = places.get(model, 0)
        total += room
        free += max(0, room - len(used[bus]))
    return (free, total) if total else None
