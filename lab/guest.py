"""A real guest, tiny: its libvirt definition, and the agent that runs commands inside it."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from lab.images import CMDLINE, Images

if TYPE_CHECKING:
    import libvirt

SPARE_PORTS = 14
"""PCIe root ports; the guest's own devices take one or two, each virtio disk one."""

LIST_DISKS = (
    "for d in /sys/block/[vs]d*; do [ -e $d ] && echo ${d##*/} "
    "$(cat $d/serial 2>/dev/null || tail -c +5 $d/device/vpd_pg80 2>/dev/null); done; true"
)


class Silent(Exception):
    """The guest did not answer in time."""


class Answer(NamedTuple):
    code: int
    lines: list[str]


class GuestAgent:
    """Runs shell commands in the guest, over its second serial port. One user at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._buffer = b""
        # Unlike those of an agent object before this one, whose answers may still come.
        self._ids = (f"{os.urandom(3).hex()}.{n}" for n in itertools.count())

    def ready(self, deadline: float = 240) -> None:
        """Wait until the guest has booted and answers. Raises Silent."""
        end = time.monotonic() + deadline
        patience = 0.4  # what is asked before the guest listens is lost, so it is asked again
        while time.monotonic() < end:
            try:
                self.run("true", deadline=patience)
            except (Silent, OSError):
                time.sleep(0.05)
                patience *= 1.1  # an emulated guest on a busy machine answers in seconds
            else:
                return
        raise Silent(f"{self._path}: no answer in {deadline} s")

    def run(self, command: str, deadline: float = 120) -> Answer:
        """Run *command* (one line) in the guest's shell. Raises Silent, OSError."""
        end = time.monotonic() + deadline
        sign = next(self._ids)
        self._connected().sendall(f"{sign} {command}\n".encode())
        lines = []
        while True:
            line = self._line(end)
            if line.startswith(f"{sign}| "):
                lines.append(line[len(sign) + 2 :])
            elif line.startswith(f"{sign}= "):
                return Answer(int(line.split()[1]), lines)

    def check(self, command: str, deadline: float = 120) -> list[str]:
        """Like run, but a code other than 0 is an AssertionError."""
        code, lines = self.run(command, deadline)
        if code:
            raise AssertionError(f"in the guest: {command!r} gave {code}: {lines}")
        return lines

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(str(self._path))
            self._buffer = b""
        return self._socket

    def _line(self, end: float) -> str:
        connection = self._connected()
        while b"\n" not in self._buffer:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            try:
                data = connection.recv(65536)
            except TimeoutError:
                raise Silent(f"{self._path}: no answer in time") from None
            if not data:
                self.close()
                raise ConnectionError(f"{self._path}: the guest's serial port closed")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode("latin1").rstrip("\r")


class Guest:
    """A running domain and its agent."""

    def __init__(self, domain: libvirt.virDomain, agent: GuestAgent) -> None:
        self.domain = domain
        self.agent = agent
        self.name: str = domain.name()

    def disks(self) -> dict[str, str]:
        """The disks that the guest's kernel sees: device name to serial."""
        return {
            name: serial.strip()
            for name, _, serial in (line.partition(" ") for line in self.agent.check(LIST_DISKS))
        }

    def device(self, serial: str) -> str | None:
        """The device with this serial. A virtio disk shows its first 20 bytes only."""
        found = [
            name
            for name, seen in self.disks().items()
            if seen == (serial[:20] if name.startswith("vd") else serial)
        ]
        assert len(found) <= 1, f"{self.name}: {found} all look like {serial}"
        return f"/dev/{found[0]}" if found else None

    def wait_for(self, serial: str, deadline: float = 120) -> str:
        """The device with this serial, as soon as the guest sees it. Raises Silent."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if device := self.device(serial):
                return device
            time.sleep(0.05)
        raise Silent(f"{self.name} saw no disk {serial} in {deadline} s: {self.disks()}")

    def write(self, serial: str, seed: str, *, offset: int = 0, length: int = 65536) -> None:
        """Write pattern(seed, length) to the disk, past the guest's cache."""
        device = self.wait_for(serial)
        self.agent.check(
            f"yes {seed} | head -c {length} | dd of={device} bs=64k seek={offset} "
            "iflag=fullblock oflag=direct,seek_bytes conv=notrunc,fsync status=none"
        )

    def digest(self, serial: str, *, offset: int = 0, length: int = 65536) -> str:
        """The MD5 of what the guest reads from the disk, past its cache."""
        (line,) = self.agent.check(
            f"dd if={self.wait_for(serial)} bs=64k skip={offset} count={length} "
            "iflag=direct,skip_bytes,count_bytes status=none | md5sum"
        )
        return line.split()[0]


def pattern(seed: str, length: int = 65536) -> bytes:
    """What ``yes SEED | head -c LENGTH`` prints."""
    line = f"{seed}\n".encode()
    return (line * (length // len(line) + 1))[:length]


def digest(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def domain_xml(name: str, images: Images, sockets: Path, *, threaded: bool = False) -> str:
    """A q35 machine with room for hot-plugged virtio and SCSI disks.

    *threaded*: it has an I/O thread, which serves its SCSI disks.
    """
    domain = ET.Element("domain", type="kvm" if images.kvm else "qemu")
    _text(domain, "name", name)
    _text(domain, "memory", "96", unit="MiB")
    _text(domain, "vcpu", "1")
    system = ET.SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    _text(system, "kernel", str(images.kernel))
    _text(system, "initrd", str(images.initramfs))
    _text(system, "cmdline", CMDLINE)
    ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    devices = ET.SubElement(domain, "devices")
    ET.SubElement(devices, "controller", type="pci", model="pcie-root")
    for _ in range(SPARE_PORTS):
        ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    scsi = ET.SubElement(devices, "controller", type="scsi", model="virtio-scsi")
    if threaded:
        _text(domain, "iothreads", "1")
        ET.SubElement(scsi, "driver", iothread="1")
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    for port, kind in enumerate(("console", "agent")):
        serial = ET.SubElement(devices, "serial", type="unix")
        ET.SubElement(serial, "source", mode="bind", path=str(sockets / f"{name}.{kind}"))
        ET.SubElement(serial, "target", port=str(port))
    return ET.tostring(domain, encoding="unicode")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def boot(
    connection: libvirt.virConnect,
    names: Sequence[str],
    images: Images,
    sockets: Path,
    *,
    threaded: bool = False,
) -> list[Guest]:
    """Define and start guests, all at once, and wait until they answer. All of them, or none."""
    guests = []
    try:
        for name in names:
            domain = connection.createXML(domain_xml(name, images, sockets, threaded=threaded))
            guests.append(Guest(domain, GuestAgent(sockets / f"{name}.agent")))
            connection.defineXML(domain.XMLDesc(2))  # VIR_DOMAIN_XML_INACTIVE
        for guest in guests:
            guest.agent.ready()
    except BaseException:
        for guest in guests:  # who tries again would find the names taken
            remove(guest)
        raise
    return guests


def remove(guest: Guest) -> None:
    """Stop the guest at once and drop its definition."""
    guest.agent.close()
    if guest.domain.isActive():
        guest.domain.destroy()
    if guest.domain.isPersistent():
        guest.domain.undefine()
