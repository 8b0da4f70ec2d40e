"""What of a ``<disk>`` follows from options alone, written and read. Pure.

``driver``, ``blockio``, ``iotune``:
https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from moorline.disk_options import BY_NAME, LIMITS, DiskOptions, Limits, normal
from moorline.errors import Refused

UNCACHED = ("none", "directsync")
"""libvirt's names of the ways to bypass the host's page cache."""
_ON_BUSES: Mapping[str, tuple[str, ...]] = {
    "queues": ("virtio",),
    "iothread": ("virtio",),
    "rotation_rate": ("scsi", "sata"),
    "wwn": ("scsi", "sata"),
}
"""The options that not every bus has."""
_ON_DEVICES: Mapping[str, tuple[str, ...]] = {"lun": ("scsi",), "cdrom": ("scsi", "sata", "usb")}
"""The buses of what is not a disk."""
_OF_DISKS = {
    "lun": (
        *("wwn", "rotation_rate", "logical_block_size", "physical_block_size", "detect_zeroes"),
        *(name for name in LIMITS if name != "shares"),
    ),
    "cdrom": ("rotation_rate", "detect_zeroes"),
}
"""The options that are of disks alone. A LUN's requests go by what limits others."""
_TUNED = tuple(name for name in LIMITS if name != "shares")
"""The limits that are libvirt's."""
_DRIVER = ("cache", "io", "discard", "detect_zeroes", "queues", "iothread")
_BLOCKS = ("logical_block_size", "physical_block_size")


def refuse_misplaced(options: DiskOptions, bus: str) -> None:
    """Refuse options that disks on *bus* have not. Raises Refused."""
    refuse_shares(options.shares)
    asked = options.asked()
    if bus not in _ON_DEVICES.get(options.device, (bus,)):
        raise Refused(
            f"there is no {options.device} on the bus {bus}",
            hint=f"--bus {' or '.join(_ON_DEVICES[options.device])}",
        )
    for name in _OF_DISKS.get(options.device, ()):
        if asked.get(name):
            raise Refused(f"a {options.device} has no {BY_NAME[name].typed}", hint="leave it out")
    for name, buses in _ON_BUSES.items():
        if name in asked and bus not in buses:
            raise Refused(
                f"a disk on the bus {bus} has no {name}", hint=f"--bus {' or '.join(buses)}"
            )


def refuse_shares(shares: int | None) -> None:
    """Refuse a part of a busy storage, which QEMU knows nothing of. Raises Refused."""
    if shares:
        raise Refused("QEMU's disks have no shares", hint="they have limits, such as --iops")


def of_driver(options: DiskOptions) -> dict[str, str]:
    """Attributes of its ``<driver>``."""
    return {name: str(value) for name in _DRIVER if (value := getattr(options, name))}


def add_elements(disk: ET.Element, options: DiskOptions) -> None:
    """Add to *disk* the elements that say the rest."""
    if options.wwn:
        ET.SubElement(disk, "wwn").text = options.wwn
    if blocks := {name: str(size) for name in _BLOCKS if (size := getattr(options, name))}:
        ET.SubElement(disk, "blockio", blocks)
    if limits := options.limits():
        tune = ET.SubElement(disk, "iotune")
        for name, value in limits:
            ET.SubElement(tune, name).text = str(value)


def limits_of(disk: ET.Element) -> Limits:
    """How *disk* is limited."""
    tune = disk.find("iotune")
    if tune is None:
        return ()
    return normal({name: int(tune.findtext(name, "0")) for name in _TUNED})


def parameters(limits: Mapping[str, int]) -> dict[str, int]:
    """*limits* for virDomainSetBlockIoTune, which leaves what is not named as it was.

    Raises Refused.
    """
    refuse_shares(limits.get("shares"))
    return {name: limits.get(name, 0) for name in _TUNED}


def options_of(disk: ET.Element) -> DiskOptions:
    """The options with which *disk* would be plugged as it is.

    Its cache, I/O and discard are left out: those are as its storage needs them.
    """

    def told(child: str, attribute: str) -> str:
        found = disk.find(child)
        return "" if found is None else found.get(attribute, "")

    def number(child: str, attribute: str) -> int:
        text = told(child, attribute)
        return int(text) if text.isdigit() else 0

    device = disk.get("device", "")
    policy = told("driver", "error_policy")  # it could be "ignore", too
    at_start = told("source", "startupPolicy")
    limits: dict[str, Any] = dict(limits_of(disk))
    return DiskOptions(
        bus=told("target", "bus"),
        target=told("target", "dev"),
        device=device if device in BY_NAME["device"].choices else "",
        reservations=disk.find("source/reservations") is not None,
        readonly=disk.find("readonly") is not None,
        shared=disk.find("shareable") is not None,
        boot=number("boot", "order"),
        startup_policy=at_start if at_start in BY_NAME["startup_policy"].choices else "",
        on_error=policy if policy in BY_NAME["on_error"].choices else "",
        detect_zeroes=told("driver", "detect_zeroes"),
        queues=number("driver", "queues"),
        iothread=number("driver", "iothread"),
        logical_block_size=number("blockio", "logical_block_size"),
        physical_block_size=number("blockio", "physical_block_size"),
        rotation_rate=number("target", "rotation_rate"),
        wwn=disk.findtext("wwn", ""),
        **limits,
    )
