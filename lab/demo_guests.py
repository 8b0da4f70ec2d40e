"""The two guests of a demo, and how it is checked which disks they have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar
from xml.etree import ElementTree as ET

from lab import guest as guests
from lab import host, leftovers
from lab.demo import chapter, claim

KIB = 1 << 10


class Volume(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def file(self) -> Path:
        """Behind the back of every mount."""
        ...


class DemoGuests:
    """Two guests without disks, web01 and web02."""

    def __init__(self, connection: Any) -> None:
        self.web01, self.web02 = guests.boot(
            connection, ["web01", "web02"], host.images(), host.SOCKETS
        )

    def disk(self, guest: guests.Guest, volume: Volume, *, inactive: bool) -> ET.Element | None:
        """The volume's <disk> in the running guest, or in its definition."""
        flags = 2 if inactive else 0  # VIR_DOMAIN_XML_INACTIVE
        for disk in ET.fromstring(guest.domain.XMLDesc(flags)).findall("devices/disk"):
            alias = disk.find("alias")
            if alias is not None and alias.get("name") == f"ua-{volume.id}":
                return disk
        return None

    def check_data(self, guest: guests.Guest, volume: Volume, text: str) -> None:
        """The guest writes and reads its disk, and the file behind it is looked at."""
        length = 256 * KIB
        guest.write(volume.id, text, offset=64 * KIB, length=length)
        with volume.file.open("rb") as file:
            file.seek(64 * KIB)
            behind = file.read(length)
        pattern = guests.pattern(text, length)
        claim(f"the file on the storage holds what {guest.name} wrote", behind == pattern)
        read = guest.digest(volume.id, offset=64 * KIB, length=length)
        claim(f"{guest.name} reads the same", read, guests.digest(pattern))


C = TypeVar("C", bound=DemoGuests)


def run_demo(make: Callable[[Any], C], tell: Callable[[C], None]) -> None:
    """Boot the guests, tell the story, and see that nothing of it is left."""
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("qemu:///system")
    before = leftovers.look(connection)
    chapter("Two guests boot: Linux and busybox, under QEMU and libvirt")
    two = make(connection)
    for guest in (two.web01, two.web02):
        claim(f"{guest.name} answers and has no disk", guest.disks(), {})
    tell(two)
    chapter("The guests go, and nothing is left")
    for guest in (two.web01, two.web02):
        guests.remove(guest)
    claim("no mount, process or domain is left", leftovers.after(connection, before), [])
    connection.close()
