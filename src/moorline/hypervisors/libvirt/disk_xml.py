"""Makes the XML of a ``<disk>``.

Pure: https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path
from xml.etree import ElementTree as ET

from moorline.errors import Refused
from moorline.hypervisors.libvirt import network_xml
from moorline.hypervisors.libvirt.disk_options_xml import UNCACHED, add_elements, of_driver
from moorline.hypervisors.libvirt.domain_xml import ScsiPlace, alias_of
from moorline.hypervisors.libvirt.file_access import keeps_owner
from moorline.model import (
    BlockDevice,
    Caching,
    DiskOptions,
    DiskSource,
    ImageFile,
    NetworkDisk,
    VolumeId,
)

PREFIX = {"virtio": "vd", "scsi": "sd", "usb": "sd", "sata": "sd"}
"""The buses, and what the names of their disks begin with."""
NATIVE_AIO = 2_000_000
"""QEMU 2.0.0: from here on, cache=none with native I/O is safe on Quobyte (Nova's
quobyte driver, and the specification of it, draw the same line)."""
_TARGET = re.compile(r"(vd|sd)[a-z]{1,3}")
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What XML cannot carry, or libvirt changes on its way."""


def next_target(bus: str, taken: Collection[str]) -> str:
    """The first free device name on *bus*: vda … vdz, vdaa …"""
    return next(name for name in _names(PREFIX[bus]) if name not in taken)


def bus_of(options: DiskOptions) -> str:
    """The bus that is asked for, or that follows from the target. Raises Refused."""
    if options.target and not _TARGET.fullmatch(options.target):
        raise Refused(f"{options.target!r} is no name of a disk", hint="such as vdb or sdb")
    by_target = next((b for b, p in PREFIX.items() if options.target.startswith(p)), "")
    bus = options.bus or by_target or ("scsi" if options.device else "virtio")
    if bus not in PREFIX:
        raise Refused(f"disks cannot be plugged into the bus {bus!r}", hint=", ".join(PREFIX))
    if options.target and not options.target.startswith(PREFIX[bus]):
        raise Refused(f"{options.target} is no name of a disk on the bus {bus}")
    return bus


def error_policies(options: DiskOptions) -> dict[str, str]:
    """What QEMU does at an error of a write and of a read."""
    asked = options.on_error
    if not asked:
        return {}
    # A read never wants for space, and libvirt refuses enospace there.
    return {"error_policy": asked, "rerror_policy": "report" if asked == "enospace" else asked}


def path_of(source: DiskSource) -> str:
    """The path that QEMU opens, or what a server's disk is known by.

    Raises Refused if it cannot be written in libvirt's XML.
    """
    if isinstance(source, NetworkDisk):
        if _UNFIT.search("".join((source.name, *source.servers))):
            raise Refused("libvirt cannot be given the name of that disk, or of its server")
        return source.path
    if not isinstance(source, ImageFile | BlockDevice):
        raise Refused(f"libvirt guests cannot use a {type(source).__name__}")
    return _sayable(source.path)


def disk_xml(
    volume: VolumeId,
    source: DiskSource,
    options: DiskOptions,
    *,
    target: str,
    bus: str,
    place: ScsiPlace | None,
    qemu: int,
    secret: str = "",
) -> str:
    """The ``<disk>`` that makes *source* a disk, marked with the volume's id.

    *qemu*: QEMU's version as libvirt tells it (2000000 is 2.0.0). *secret*: the UUID of the one
    that libvirt has for it. Raises as :func:`path_of`.
    """
    disk = ET.Element("disk", device=options.device or "disk")
    ET.SubElement(disk, "driver", _driver(source, options, qemu))
    named = _add_source(disk, source, secret)
    if options.startup_policy:
        named.set("startupPolicy", options.startup_policy)
    if isinstance(source, ImageFile):
        if keeps_owner(source, options):
            _keep_owner(named)
        _tell_backing(disk, source)
    if isinstance(source, ImageFile | BlockDevice) and source.format == "luks":
        luks = ET.SubElement(named, "encryption", format="luks")
        ET.SubElement(luks, "secret", type="passphrase", uuid=secret)
    if options.reservations:
        ET.SubElement(named, "reservations", managed="yes")
    rate = {"rotation_rate": str(options.rotation_rate)} if options.rotation_rate else {}
    ET.SubElement(disk, "target", {"dev": target, "bus": bus, **rate})
    _mark(disk, volume, options)
    if options.boot:
        ET.SubElement(disk, "boot", order=str(options.boot))
    if options.readonly:
        ET.SubElement(disk, "readonly")
    if options.shared:
        ET.SubElement(disk, "shareable")
    add_elements(disk, options)
    if place is not None:
        controller, unit = map(str, place)
        address = {"controller": controller, "bus": "0", "target": "0", "unit": unit}
        ET.SubElement(disk, "address", {"type": "drive", **address})
    return ET.tostring(disk, encoding="unicode")


def _mark(disk: ET.Element, volume: VolumeId, options: DiskOptions) -> None:
    if options.device != "lun":  # it tells the guest its own
        ET.SubElement(disk, "serial").text = volume
    ET.SubElement(disk, "alias", name=alias_of(volume))


def _add_source(disk: ET.Element, source: DiskSource, secret: str) -> ET.Element:
    path = path_of(source)
    if isinstance(source, NetworkDisk):
        disk.set("type", "network")
        return network_xml.add_source(disk, source, secret)
    is_file = isinstance(source, ImageFile)
    disk.set("type", "file" if is_file else "block")
    return ET.SubElement(disk, "source", {"file" if is_file else "dev": path})


def _tell_backing(disk: ET.Element, source: ImageFile) -> None:
    """Name all backing files, and end the chain.

    So neither libvirt nor QEMU takes a name from a header, which whoever can write to the
    share may have changed since. An empty ``<backingStore/>`` ends the chain.
    """
    above = disk
    for file in source.backing:
        above = ET.SubElement(above, "backingStore", type="file")
        ET.SubElement(above, "format", type=file.format)
        _keep_owner(ET.SubElement(above, "source", file=_sayable(file.path)))
    ET.SubElement(above, "backingStore")


def _keep_owner(source: ET.Element) -> None:
    ET.SubElement(source, "seclabel", model="dac", relabel="no")


def _driver(source: DiskSource, options: DiskOptions, qemu: int) -> dict[str, str]:
    form = source.format if isinstance(source, ImageFile | BlockDevice) else "raw"
    driver = {"name": "qemu", "type": "raw" if form == "luks" else form}
    driver |= error_policies(options)
    if isinstance(source, BlockDevice) and source.discard:
        driver["discard"] = "unmap"
    driver |= _caching_of_driver(source, options, qemu) | of_driver(options)
    if driver.get("io") == "native" and driver.get("cache") not in UNCACHED:
        raise Refused(
            "I/O is native only where the page cache is bypassed, and this volume's is not",
            hint="--cache none",
        )
    if options.shared and driver.get("cache") not in UNCACHED:
        raise Refused(f"a shared disk cannot be cached: {driver['cache']}", hint="--cache none")
    return driver


def _caching_of_driver(source: DiskSource, options: DiskOptions, qemu: int) -> dict[str, str]:
    if options.cache:
        return {}
    caching = _caching(source, options)
    if caching is Caching.WRITEBACK:
        return {"cache": "writeback"}
    if caching is Caching.DIRECT and qemu < NATIVE_AIO:
        return {"cache": "writethrough"}
    if is_direct(source, options, qemu):
        aio = {} if isinstance(source, NetworkDisk) else {"io": "native"}
        return {"cache": "none", **aio}
    return {}


def _sayable(path: Path) -> str:
    text = str(path)
    if _UNFIT.search(text) or not text.startswith("/"):
        raise Refused(f"libvirt cannot be given the path {text!r}")
    return text


def is_direct(source: DiskSource, options: DiskOptions, qemu: int) -> bool:
    """Whether QEMU is told to bypass the page cache."""
    if options.cache:
        return options.cache in UNCACHED
    return _caching(source, options) is Caching.DIRECT and qemu >= NATIVE_AIO


def _caching(source: DiskSource, options: DiskOptions) -> Caching:
    if options.shared:
        return Caching.DIRECT
    return source.caching if isinstance(source, ImageFile | BlockDevice) else Caching.DEFAULT


def _names(prefix: str) -> Iterator[str]:
    for number in count():
        letters = ""
        left = number + 1
        while left:
            left, letter = divmod(left - 1, 26)
            letters = chr(ord("a") + letter) + letters
        yield prefix + letters
