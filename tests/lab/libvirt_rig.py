"""Libvirt's rig for the hypervisor contract, and what tests do to libvirt behind its back."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab import guest as guests
from lab import host
from lab.quobyte.cluster import QuobyteVolume
from moorline.errors import Uncertain
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.model import GuestId, ImageFile, PathSource, VolumeId
from moorline.testing.contracts.extending import ExtendingRig
from moorline.testing.contracts.hypervisor import Half, take_away

LIVE, CONFIG = 1, 2
DISK = 1 << 20


class LibvirtRig(ExtendingRig):
    """A hypervisor for guests that are booted, and one that is only defined."""

    patience = 20.0

    def __init__(self, connection: Any, running: Any, transient: Any, directory: Path) -> None:
        self.hypervisor: Libvirt = Libvirt(deadline=20)
        self.connection = connection
        self.running = running
        self.transient = transient
        self.directory = directory
        self._stopped: Any = None
        self._foreign: list[tuple[Any, str]] = []

    def running_guest(self) -> GuestId:
        return id_of(self.running)

    def stopped_guest(self) -> GuestId:
        if self._stopped is None:
            xml = guests.domain_xml("stands", host.images(), host.SOCKETS)
            self._stopped = self.connection.defineXML(xml)
        return id_of(self._stopped)

    def transient_guest(self) -> GuestId:
        return id_of(self.transient)

    def new_source(self) -> ImageFile:
        path = self.directory / f"{len(list(self.directory.iterdir()))}.raw"
        with path.open("wb") as file:
            file.truncate(DISK)
        return ImageFile(path, "raw")

    def grow(self, source: PathSource) -> int:
        os.truncate(source.path, 3 * DISK)
        return 3 * DISK

    def foreign_disk(self, guest: GuestId) -> str:
        domain, source = self.domain(guest), self.new_source()
        disk = ET.Element("disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type="raw")
        ET.SubElement(disk, "source", file=str(source.path))
        ET.SubElement(disk, "target", dev="sda", bus="scsi")
        ET.SubElement(disk, "address", type="drive", controller="0", bus="0", target="0", unit="0")
        xml = ET.tostring(disk, encoding="unicode")
        domain.attachDeviceFlags(xml, halves_of(domain))
        self._foreign.append((domain, xml))
        return str(source.path)

    def halve(self, guest: GuestId, volume: VolumeId, keep: Half) -> None:
        pull(self.domain(guest), volume, CONFIG if keep == "live" else LIVE)

    def domain(self, guest: GuestId) -> Any:
        return self.connection.lookupByUUIDString(guest)

    def tear_down(self) -> None:
        for guest in self.hypervisor.survey():
            for volume in guest.disks:
                take_away(self, guest.id, volume)
        for domain, xml in self._foreign:
            domain.detachDeviceFlags(xml, halves_of(domain))
        self.drop_stopped_guest()
        self.hypervisor.close()

    def drop_stopped_guest(self) -> None:
        if self._stopped is not None:
            self._stopped.undefine()
            self._stopped = None


def small_xml(machine: str, ports: int, controllers: str) -> str:
    """A guest without a system, with *ports* (q35) and SCSI *controllers* ("" or a model)."""
    domain = ET.fromstring(guests.domain_xml("small", host.images(), host.SOCKETS))
    devices = domain.find("devices")
    assert devices is not None
    devices.clear()
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    if machine == "q35":
        ET.SubElement(devices, "controller", type="pci", model="pcie-root")
        for _ in range(ports):
            ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    if controllers:
        ET.SubElement(devices, "controller", type="scsi", model=controllers)
    domain.find("os/type").set("machine", machine)  # type: ignore[union-attr]
    return ET.tostring(domain, encoding="unicode")


def id_of(domain: Any) -> GuestId:
    return GuestId(domain.UUIDString())


def halves_of(domain: Any) -> int:
    return LIVE * domain.isActive() | CONFIG * domain.isPersistent()


def marked(domain: Any, volume: VolumeId, half: int) -> ET.Element | None:
    """The volume's <disk> in one half, as libvirt prints it."""
    xml = ET.fromstring(domain.XMLDesc(2 if half == CONFIG else 0))
    return xml.find(f"devices/disk/alias[@name='ua-{volume}']/..")


def pull(domain: Any, volume: VolumeId, half: int) -> None:
    """Take the disk out of one half, as a person with virsh would."""
    domain.detachDeviceAlias(f"ua-{volume}", half)
    until(lambda: marked(domain, volume, half) is None)


def until(true: Callable[[], object], deadline: float = 30.0) -> None:
    """Wait for less than a loop's sweeps are apart, so that nothing is owed to a sweep."""
    end = time.monotonic() + deadline
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def answers(hypervisor: Libvirt) -> bool:
    """Whether nothing that was asked of it hangs."""
    try:
        guests = hypervisor.survey()
    except Uncertain:
        return False
    return not any("hangs" in guest.unreadable for guest in guests)


@contextmanager
def loop_device(file: Path) -> Iterator[Path]:
    done = subprocess.run(
        ["losetup", "--find", "--show", "--direct-io=on", file],
        capture_output=True,
        text=True,
        check=True,
    )
    device = done.stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def mounted(share: QuobyteVolume, at: Path) -> Iterator[Path]:
    at.mkdir()
    subprocess.run(["mount.quobyte", share.export, at], check=True)
    try:
        yield at
    finally:
        share.daemon()
        host.umount(at)
        at.rmdir()


@contextmanager
def concealed(base: Path) -> Iterator[Path]:
    """A mount that guests which run already cannot see, as on hosts without systemd."""
    at = base / "at"
    at.mkdir(parents=True)
    host.conceal(base)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", at], check=True)
        yield at
    finally:
        subprocess.run(["umount", "--recursive", base], check=True)
        at.rmdir()
        base.rmdir()
