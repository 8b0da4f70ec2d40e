"""The product in front of the stand-in, as tests and benchmarks want it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab.novalink import NovaLink as Lab
from lab.novalink.model import partition_uuid
from moorline.errors import Refused
from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.hypervisors.powervm.remembered_slots import MemorySlots, Slots
from moorline.hypervisors.powervm.session import Logon, NovaLink
from moorline.model import GuestId
from moorline.secret import Secret

WEB, DB = GuestId(partition_uuid(100)), GuestId(partition_uuid(101))
"""The two client partitions that there are by default."""


def logon(lab: Lab, *, password: str = Lab.password) -> Logon:
    return Logon("localhost", lab.port, lab.user, Secret(password), lab.ca)


def look(path: Path) -> None:
    """The least of a look: the local disk does not hang."""
    if not path.stat().st_mode & 0o100000:
        raise Refused(f"{path} is not a regular file")


def measure(path: Path) -> int:
    return path.stat().st_size


def powervm(
    lab: Lab,
    *,
    slots: Slots | None = None,
    look: Callable[[Path], None] = look,
    deadline: float = 10.0,
) -> PowerVM:
    slots = MemorySlots() if slots is None else slots
    return PowerVM(NovaLink(logon(lab), deadline=deadline), slots, look, measure)


def mapped(lab: Lab) -> list[tuple[str, str, int, str]]:
    """What the management partition maps to its clients: client, tag, slot and LUA.

    Without what it had from the beginning.
    """
    return [(m.client, m.disk.tag, m.client_slot, m.lua) for m in lab.system.made() if m.disk]


def image(directory: Path, name: str, *, mib: int = 1) -> Path:
    """Make a raw image."""
    path = directory / name
    with path.open("wb") as file:
        file.truncate(mib << 20)
    return path
