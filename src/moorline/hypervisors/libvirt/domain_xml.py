"""Parses a domain's XML. Pure: https://libvirt.org/formatdomain.html."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from xml.etree import ElementTree as ET

from moorline.hypervisors.libvirt import network_xml
from moorline.hypervisors.libvirt.disk_options_xml import limits_of
from moorline.model import ALIAS_PREFIX, Disk, DiskState, Limits, Use, VolumeId

ScsiPlace = tuple[int, int]
"""A SCSI controller's index, and a unit of it."""
INACTIVE = 2
"""VIR_DOMAIN_XML_INACTIVE: the definition, not what runs."""
HARD_DISKS = ("disk", "lun")
"""The kinds of ``<disk>`` that a volume can be; the others are drives for discs."""
_PATH = re.compile(r"(?<![\w./-])/.*", re.DOTALL)
_PATH_END = re.compile(r"[\s,;:'\"]")
_STORED = ("disk", "backingStore", "mirror", "dataStore")
_TOLD = ("file", "block", "dir", "volume", "network", "nvme", "vhostvdpa")
"""Types of storage that name a path or a volume, or are no file of this host."""
_PCIE = {"pcie-root-port": 1, "pcie-switch-downstream-port": 1}
_PCI = {"pci-root": 31, "pci-bridge": 31}
"""How many virtio disks can be hot-plugged into a PCI controller, by its model. Where the root
is PCI Express, libvirt puts them into its ports alone: conventional bridges have no room for
them (virtio's flags in qemuDomainDeviceCalculatePCIConnectFlags of libvirt)."""


@dataclass(frozen=True, slots=True)
class MarkedDisk:
    """A disk that bears our mark, as one half of a domain shows it."""

    target: str
    bus: str
    source: str
    place: ScsiPlace | None
    """Where it is on SCSI controllers."""
    format: str = "raw"
    readonly: bool = False
    shared: bool = False
    beneath: tuple[str, ...] | None = ()
    """The files beneath it, the nearest first; None: libvirt does not tell."""
    mirrored: bool = False
    """Whether it is being copied to another file, which may take its place."""
    limits: Limits = ()
    secret: str = ""
    """The UUID of libvirt's secret that its server asks for; ''."""

    def use(self, volume: VolumeId) -> Use:
        """The same as a value of the core."""
        return Use(self.source, self.format, self.readonly, self.shared, volume)


class Half:
    """The running half of a domain, or its definition. Costly parts are parsed when first used."""

    def __init__(self, xml: ET.Element) -> None:
        self.xml = xml
        """Not to be changed: whoever reads the same text is given the same half."""

    @property
    def running(self) -> bool:
        """libvirt gives an id to what runs."""
        return self.xml.get("id") is not None

    @property
    def name(self) -> str:
        """The domain's present name; that of a libvirt handle is as old as the handle."""
        return self.xml.findtext("name", "")

    @cached_property
    def disks(self) -> Mapping[VolumeId, MarkedDisk]:
        """The disks that bear our mark."""
        return {
            volume: MarkedDisk(
                _get(disk, "target", "dev"),
                _get(disk, "target", "bus"),
                source_of(disk),
                _scsi_place(disk),
                format_of(disk),
                disk.find("readonly") is not None,
                disk.find("shareable") is not None,
                _beneath(disk),
                disk.find("mirror") is not None,
                limits_of(disk),
                network_xml.secret_of(disk),
            )
            for disk in self.xml.iterfind("devices/disk")
            if (volume := marked_as(disk))
        }

    @cached_property
    def aliases(self) -> frozenset[str]:
        """The aliases of all its devices, of whatever kind."""
        devices = self.xml.iterfind("devices/*")
        return frozenset(_get(device, "alias", "name") for device in devices)

    @cached_property
    def uses(self) -> frozenset[Use]:
        """How it uses files, devices and servers' disks that are its disks or beneath them."""
        return frozenset(
            use for disk in self.xml.iterfind("devices/disk") for use in _uses(disk) if use.path
        )

    @cached_property
    def targets(self) -> frozenset[str]:
        """The device names of its disks."""
        return frozenset(_get(disk, "target", "dev") for disk in self.xml.iterfind("devices/disk"))

    @cached_property
    def scsi_places(self) -> frozenset[ScsiPlace]:
        """The places on SCSI controllers that are used, whatever uses them."""
        places = map(_scsi_place, self.xml.iterfind("devices/*"))
        return frozenset(place for place in places if place is not None)

    @cached_property
    def paths(self) -> frozenset[str]:
        """Every absolute path that it names, in any element: one too many is the safe side."""
        return frozenset(
            path
            for each in self.xml.iter()
            for text in (*each.attrib.values(), each.text or "")
            if "/" in text
            for path in _paths(text)
        )

    @cached_property
    def volumes(self) -> frozenset[tuple[str, str]]:
        """What it names by libvirt's storage pool and volume instead of by a path."""
        return frozenset(
            (source.get("pool", ""), source.get("volume", ""))
            for source in self.xml.iterfind("devices//source[@pool]")
        )

    @cached_property
    def unresolved(self) -> frozenset[str]:
        """Disks whose data may be in a file that the definition does not name by its path."""
        disks = [*self.xml.iterfind("devices/disk"), *self.xml.iterfind("devices/filesystem")]
        return frozenset(
            f"{what} as {_get(disk, 'target', 'dev') or _get(disk, 'target', 'dir')}"
            for disk in disks
            for each in disk.iter()
            if (what := _unresolved(each))
        )

    @cached_property
    def scsi_controllers(self) -> Mapping[int, str]:
        """The models of its SCSI controllers, by their index."""
        found = self.xml.iterfind("devices/controller[@type='scsi']")
        return {int(each.get("index", "0")): each.get("model", "") for each in found}

    @cached_property
    def virtio_scsi(self) -> frozenset[int]:
        """The indices of those that disks are plugged into."""
        return frozenset(i for i, model in self.scsi_controllers.items() if model == "virtio-scsi")

    @cached_property
    def boot_order(self) -> Mapping[int, str]:
        """Its devices that have a place in the boot order."""
        return {
            int(boot.get("order", "0")): _get(device, "target", "dev") or f"<{device.tag}>"
            for device in self.xml.iterfind("devices/*")
            for boot in device.iterfind("boot")
        }

    @property
    def boots_by_kind(self) -> bool:
        """Whether its boot order is one of kinds of devices, with which no device has a place."""
        return self.xml.find("os/boot") is not None

    @cached_property
    def has_usb(self) -> bool:
        """Whether it has a USB controller."""
        found = self.xml.iterfind("devices/controller[@type='usb']")
        return any(each.get("model") != "none" for each in found)

    @cached_property
    def iothreads(self) -> frozenset[int]:
        """The numbers of its I/O threads."""
        told = {int(each.get("id", "0")) for each in self.xml.iterfind("iothreadids/iothread")}
        return frozenset(told or range(1, int(self.xml.findtext("iothreads", "0")) + 1))

    @cached_property
    def hotplug_ports(self) -> tuple[int, int] | None:
        """How many virtio disks can still be hot-plugged, and in all; None: it has no PCI.

        q35: a root port takes one device; the root bus and conventional bridges none.
        pc: the root bus and each bridge have 31 places (0 is not for devices), and
        the root bus's first is the chipset's. https://libvirt.org/pci-hotplug.html
        """
        used: dict[int, set[str]] = {}
        for address in self.xml.iterfind("devices/*/address[@type='pci']"):
            bus = int(address.get("bus", "0"), 16)
            used.setdefault(bus, set()).add(address.get("slot", "0x00"))
        controllers = self.xml.findall("devices/controller[@type='pci']")
        express = any(each.get("model") == "pcie-root" for each in controllers)
        places = _PCIE if express else _PCI
        total = free = 0
        for controller in controllers:
            if _get(controller, "target", "hotplug") == "off":
                continue
            model = controller.get("model", "")
            room = places.get(model, 0)
            chipset = {"0x01"} if model == "pci-root" else set()
            total += room
            free += max(0, room - len(used.get(int(controller.get("index", "0")), set()) | chipset))
        return (free, total) if controllers else None


@dataclass(frozen=True, slots=True)
class Domain:
    """Both halves of a domain. A stopped one has no *live*, a transient one no *defined*."""

    uuid: str
    name: str
    live: Half | None
    defined: Half | None
    saved: Half | None = None
    """The state with which a stopped domain starts, if it was saved (``virsh managedsave``)."""

    def halves(self) -> list[Half]:
        """Those that an attach or a detach must change."""
        return [half for half in (self.live, self.defined) if half is not None]

    def disks(self) -> dict[VolumeId, Disk]:
        """The marked disks: WHOLE if they are in every half that there is.

        One that only a saved state has is PARTIAL, as it comes back with that.
        """
        halves = self.halves()
        everywhere = (*halves, *self._saved())
        found: dict[VolumeId, Disk] = {}
        for half in everywhere:
            for volume, disk in half.disks.items():
                whole = all(volume in other.disks for other in halves)
                state = DiskState.WHOLE if whole else DiskState.PARTIAL
                uses = frozenset(
                    other.disks[volume].use(volume) for other in everywhere if volume in other.disks
                )
                # A saved state gets its limits when the guest goes on.
                limits = frozenset(
                    other.disks[volume].limits for other in halves if volume in other.disks
                )
                its = (disk.target, disk.source, uses, disk.beneath)
                found.setdefault(volume, Disk(state, *its, limits=limits))
        return found

    def paths(self) -> frozenset[str]:
        """Every path that any of its definitions names."""
        return frozenset[str]().union(*(half.paths for half in (*self.halves(), *self._saved())))

    def volumes(self) -> frozenset[tuple[str, str]]:
        """Every volume of a storage pool that any of its definitions names."""
        halves = (*self.halves(), *self._saved())
        return frozenset[tuple[str, str]]().union(*(half.volumes for half in halves))

    def unresolved(self) -> str:
        """What any of its definitions names whose path is not known; ''."""
        halves = (*self.halves(), *self._saved())
        return ", ".join(sorted({what for half in halves for what in half.unresolved}))

    def secrets(self) -> dict[VolumeId, str]:
        """The secrets of its marked disks that name one: see :attr:`MarkedDisk.secret`."""
        disks = [pair for half in (*self.halves(), *self._saved()) for pair in half.disks.items()]
        return {volume: disk.secret for volume, disk in disks if disk.secret}

    def uses(self) -> frozenset[Use]:
        """How any of its definitions uses files and devices as disks."""
        return frozenset[Use]().union(*(half.uses for half in (*self.halves(), *self._saved())))

    def _saved(self) -> list[Half]:
        return [self.saved] if self.saved is not None else []


@lru_cache(maxsize=64)  # one attach looks at its own guest several times, and at all guests once
def parse(xml: str) -> Half:
    """Read one half of a domain, as libvirt prints it. Raises ParseError."""
    return Half(ET.fromstring(xml))  # noqa: S314 - libvirt's own output


def alias_of(volume: VolumeId) -> str:
    """The alias of the disk that is *volume*: half of its mark."""
    return f"{ALIAS_PREFIX}{volume}"


def marked_as(device: ET.Element) -> VolumeId | None:
    """The volume whose mark a device bears: a disk with the volume's alias and serial.

    The alias alone proves nothing: ``ua-`` is libvirt's prefix for all user-defined aliases, and
    oVirt, KubeVirt and Nova use it for drives and root disks, too.
    """
    volume = chosen_alias(device)
    if device.tag != "disk" or not volume:
        return None
    kind, serial = device.get("device", "disk"), device.findtext("serial")
    # libvirt allows no serial where a SCSI device is passed through as it is.
    ours = serial == volume or (kind == "lun" and serial is None)
    return VolumeId(volume) if kind in (*HARD_DISKS, "cdrom") and ours else None


def chosen_alias(device: ET.Element) -> str:
    """The alias that somebody gave a device, without libvirt's prefix for those; ''."""
    alias = _get(device, "alias", "name")
    return alias.removeprefix(ALIAS_PREFIX) if alias.startswith(ALIAS_PREFIX) else ""


def _get(element: ET.Element, child: str, attribute: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(attribute, "")


def format_of(disk: ET.Element) -> str:
    """The image's format. libvirt calls what is inside LUKS raw, and so the image itself."""
    form = _get(disk, "driver", "type") or "raw"
    inside = any(disk.find(at) is not None for at in ("source/encryption", "encryption"))
    return "luks" if inside and form == "raw" else form


def source_of(disk: ET.Element) -> str:
    """The path of a disk, or of what is beneath it; of a server's, what it is known by."""
    source = disk.find("source")
    if source is None:
        return ""
    if source.get("protocol"):
        return network_xml.known(source)
    return source.get("file") or source.get("dev") or source.get("dir") or source.get("name") or ""


def _unresolved(element: ET.Element) -> str:
    """What a part of a disk names that may be a file and is no absolute path; ''."""
    if element.tag in _STORED and element.get("type", "file") not in _TOLD:
        return f"storage of type {element.get('type')}"
    if element.tag == "source":
        names = (element.get(name, "") for name in ("file", "dev", "dir"))
        return next((f"{name}" for name in names if name and not name.startswith("/")), "")
    return ""


def _beneath(disk: ET.Element) -> tuple[str, ...] | None:
    """The chain below a disk's source. A definition need not have it, and a raw file has none."""
    above = disk.find("backingStore")
    if above is None and _get(disk, "driver", "type") not in ("", "raw"):
        return None
    found = []
    while above is not None and (path := source_of(above)):
        found.append(path)
        above = above.find("backingStore")
    return tuple(found)


def _uses(disk: ET.Element) -> Iterator[Use]:
    """A disk, what it is being copied to, and the files beneath it, which are only read."""
    volume = chosen_alias(disk)
    fixed = disk.get("device") == "cdrom" or disk.find("readonly") is not None
    shared = disk.find("shareable") is not None
    yield Use(_normal_source(disk), format_of(disk), fixed, shared, volume)
    for mirror in disk.iterfind("mirror"):
        yield Use(_normal_source(mirror), _get(mirror, "format", "type"), volume=volume)
    for beneath in disk.iter("backingStore"):
        form = _get(beneath, "format", "type")
        yield Use(_normal_source(beneath), form, readonly=True, volume=volume, beneath=True)


def _normal_source(disk: ET.Element) -> str:
    source = source_of(disk)
    return _normal(source) if source.startswith("/") else source


def _scsi_place(device: ET.Element) -> ScsiPlace | None:
    """Where a disk or a passed-through device is on SCSI controllers; None: nowhere."""
    if device.get("type") != "scsi" and _get(device, "target", "bus") != "scsi":
        return None  # most devices: no more of them is looked at
    for address in device.iterfind("address"):
        if address.get("type") == "drive":
            return int(address.get("controller", "0")), int(address.get("unit", "0"))
    return None


def _paths(text: str) -> Iterator[str]:
    """The absolute path that *text* is, or all that begin in it (in an argument for QEMU, say).

    Where such a path ends is unknown, as it may contain any character: both readings are told.
    """
    if text.startswith("/"):
        yield _normal(text)
        return
    while found := _PATH.search(text):
        yield _normal(found.group())
        yield _normal(_PATH_END.split(found.group(), maxsplit=1)[0])
        text = found.group().lstrip("/")


def _normal(path: str) -> str:
    # POSIX lets two leading slashes mean something else, so normpath keeps them.
    return os.path.normpath("/" + path.lstrip("/"))
