"""A PowerVM system: partitions, and vSCSI mappings with files behind them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Literal

Kind = Literal["LogicalPartition", "VirtualIOServer"]

FILEIO = "/var/lib/pvm/fileio"
"""Where NovaLink keeps the files of the Virtual I/O Servers that it hosts."""


class Rejected(Exception):
    """The request is answered with this HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass
class Partition:
    kind: Kind
    uuid: str
    id: int
    name: str
    management: bool = False
    state: str = "running"
    rmc: str = "active"
    dlpar: bool = True


@dataclass(frozen=True)
class Disk:
    """A FileIO virtual disk."""

    path: str
    tag: str
    udid: str
    capacity: str
    """GiB, as a decimal of at most six places."""


@dataclass(frozen=True)
class Mapping:
    """A client and a server adapter, and mostly a disk behind them."""

    client: str
    """UUID of the client partition."""
    client_id: int
    client_slot: int
    server_slot: int
    disk: Disk | None = None
    lua: str = ""
    """'' with a disk: its target device is missing."""
    adapter: bool = True
    """The client still has its half of the pair."""
    optical: bool = False
    """The client sees the file as a DVD."""


@dataclass(frozen=True)
class Asked:
    """A mapping as an update names it: what is None is for the server to choose."""

    client: str
    client_slot: int | None
    server_slot: int | None
    path: str | None
    tag: str
    lua: str
    known: bool
    """It bears what only the server gives: the client read it from us."""


@dataclass
class System:
    """All state of the stand-in. Hold *lock* while reading or changing it."""

    root: Path = Path("/")
    """Where the management partition's file system is on this machine."""
    udids: Literal["uuid", "path"] = "uuid"
    luas: Literal["vios", "short"] = "vios"
    tags: bool = True
    """Whether tags are kept (they came with schema version 1.9)."""
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    name: str = "9009-22A*LAB0001"
    partitions: dict[str, Partition] = field(default_factory=dict)
    mappings: dict[str, tuple[Mapping, ...]] = field(default_factory=dict)
    """By the UUID of their Virtual I/O Server."""
    version: int = 0
    """Counts changes, for caches and event queues."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    changed: threading.Condition = field(init=False)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)

    def add(self, partition: Partition) -> Partition:
        with self.changed:
            self.partitions[partition.uuid] = partition
            if partition.kind == "VirtualIOServer":
                self.mappings[partition.uuid] = ()
            self.touch()
        return partition

    def made(self) -> tuple[Mapping, ...]:
        """The management partition's mappings, but for those that it had from the beginning."""
        return tuple(m for m in self.mappings[partition_uuid(1)] if m not in FOUND)

    def partition(self, name: str) -> Partition:
        return next(p for p in self.partitions.values() if p.name == name)

    def alter(self, name: str, **changes: object) -> None:
        """Change a partition's fields (``rmc="none"``, say)."""
        with self.changed:
            partition = replace(self.partition(name), **changes)  # type: ignore[arg-type]
            self.partitions[partition.uuid] = partition
            self.touch()

    def delete(self, name: str) -> None:
        """Delete a partition: its adapters go with it, the server's and their disks stay."""
        client = self.partition(name)
        with self.changed:
            self.lose_adapters(name)
            del self.partitions[client.uuid]
            self.touch()

    def lose_adapters(self, name: str) -> None:
        """Take a partition's own adapters away; the server's halves and their disks stay."""
        client = self.partition(name).uuid
        with self.changed:
            for server, mappings in self.mappings.items():
                self.mappings[server] = tuple(
                    replace(m, adapter=False) if m.client == client else m for m in mappings
                )
            self.touch()

    def unplug(self, name: str) -> None:
        """Take all of a partition's adapters away, as deleting and rebuilding it does."""
        client = self.partition(name).uuid
        with self.changed:
            for server, mappings in self.mappings.items():
                self.mappings[server] = tuple(m for m in mappings if m.client != client)
            self.touch()

    def touch(self) -> None:
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    def update(self, server: str, asked: Sequence[Asked]) -> None:
        """Make the server's mappings those that are asked for, or change nothing.

        Mappings are told apart by server slot and LUA; one without anything
        that only the server gives is new.
        """
        old = {(m.server_slot, m.lua): m for m in self.mappings[server]}
        kept: list[Mapping] = []
        new: list[Asked] = []
        for ask in asked:
            known = old.get((ask.server_slot or 0, ask.lua)) if ask.known else None
            if known is None:
                new.append(ask)
            else:
                kept.append(known)
        for ask in new:
            kept.append(self._make(server, ask, kept))
        self.mappings[server] = tuple(kept)
        self.touch()

    def _make(self, server: str, ask: Asked, others: Sequence[Mapping]) -> Mapping:
        client = self.partitions.get(ask.client)
        if client is None:
            raise Rejected(400, f"there is no logical partition {ask.client}")
        client_slot, server_slot = self._slots(server, client, ask, others)
        bus = [m.lua for m in others if m.server_slot == server_slot]
        if ask.lua and ask.lua in bus:
            raise Rejected(400, f"LUA {ask.lua} is in use on client slot {client_slot}")
        disk = self._disk(ask) if ask.path is not None else None
        lua = (ask.lua or self._free_lua(bus)) if disk else ""
        return Mapping(client.uuid, client.id, client_slot, server_slot, disk, lua)

    def _slots(
        self, server: str, client: Partition, ask: Asked, others: Sequence[Mapping]
    ) -> tuple[int, int]:
        if ask.server_slot is not None:
            # The adapters were cloned from a mapping that the client read.
            there = [*self.mappings[server], *others]
            paired = {m.client_slot for m in there if m.server_slot == ask.server_slot}
            if paired != {ask.client_slot}:
                raise Rejected(
                    400,
                    f"server slot {ask.server_slot} is paired with {sorted(paired)},"
                    f" not with client slot {ask.client_slot}",
                )
            assert ask.client_slot is not None
            return ask.client_slot, ask.server_slot
        elsewhere = [m for s, ms in self.mappings.items() if s != server for m in ms]
        busy = {m.client_slot for m in [*others, *elsewhere] if m.client == client.uuid}
        if ask.client_slot in busy:
            raise Rejected(400, f"virtual slot {ask.client_slot} of {client.name} is in use")
        taken = {m.server_slot for m in [*others, *self.mappings[server]]}
        return ask.client_slot or _free(busy), _free(taken)

    def _disk(self, ask: Asked) -> Disk:
        assert ask.path is not None
        udid = ask.path if self.udids == "path" else str(uuid.uuid3(uuid.NAMESPACE_URL, ask.path))
        return Disk(ask.path, ask.tag if self.tags else "", udid, self.capacity(ask.path))

    def capacity(self, path: str) -> str:
        """The size of a file on the management partition, in GiB."""
        real = self.root / path.lstrip("/")
        if not real.is_file():
            raise Rejected(400, f"there is no backing file {path} on the management partition")
        gib = f"{real.stat().st_size / 2**30:.6f}"
        return gib.rstrip("0").removesuffix(".")

    def _free_lua(self, bus: Sequence[str]) -> str:
        style = "0x{:02x}00000000000000" if self.luas == "vios" else "lun{}"
        first = 0x81 if self.luas == "vios" else 1
        return next(lua for n in count(first) if (lua := style.format(n)) not in bus)

    def cripple(self, server: str, before: Sequence[Mapping], **lost: object) -> None:
        """Leave something out of the mappings that were not there *before*."""
        self.mappings[server] = tuple(
            m if m in before else replace(m, **lost)  # type: ignore[arg-type]
            for m in self.mappings[server]
        )
        self.touch()

    def rescan(self, server: str, udid: str) -> bool:
        """Look at the sizes of the files behind *udid* again; False: there is none."""
        found = False
        renewed = []
        for m in self.mappings[server]:
            disk = m.disk
            if disk and disk.udid == udid:
                m = replace(m, disk=replace(disk, capacity=self.capacity(disk.path)))
                found = True
            renewed.append(m)
        self.mappings[server] = tuple(renewed)
        self.touch()
        return found


def _free(busy: set[int]) -> int:
    return next(n for n in count(2) if n not in busy)


def partition_uuid(n: int) -> str:
    """A UUID as PowerVM makes them: upper case, its first bit clear."""
    return str(uuid.UUID(int=(0x0ABC_DEF0 << 96) | (n << 64) | (0x4000_8000 << 32) | n)).upper()


_DVD = Disk(f"{FILEIO}/dvd.iso", "", "u2", "1.410669")
FOUND = (
    Mapping(partition_uuid(2), 2, 16, 1016, Disk(f"{FILEIO}/vios1", "", "u1", "35"), "lun1"),
    Mapping(partition_uuid(2), 2, 16, 1016, _DVD, "lun2", optical=True),
    Mapping("", 77, 17, 1019, _DVD, "lun1", adapter=False, optical=True),
    Mapping("", 27, 2, 1046, adapter=False),
)
"""What a NovaLink partition maps before anybody uses it.

As in ``fake_vios_hosting_vios_feed.txt`` and ``fake_vios_mappings.txt`` of pypowervm's
tests: a disk and a DVD of another Virtual I/O Server, which is a client without an
AssociatedLogicalPartition, and server adapters whose clients are gone, one with its DVD.
"""


def build(
    clients: Sequence[str] = ("web01", "db01"),
    *,
    mode: Literal["novalink", "traditional", "hmc"] = "novalink",
    system: System | None = None,
) -> System:
    """A system with a management partition, a second Virtual I/O Server, and clients."""
    system = system or System()
    kind: Kind = "VirtualIOServer" if mode == "novalink" else "LogicalPartition"
    if mode != "hmc":
        system.add(Partition(kind, partition_uuid(1), 1, "novalink", management=True))
    system.add(Partition("VirtualIOServer", partition_uuid(2), 2, "vios1"))
    for n, name in enumerate(clients):
        system.add(Partition("LogicalPartition", partition_uuid(100 + n), 10 + n, name))
    if mode == "novalink":
        system.mappings[partition_uuid(1)] = FOUND
    return system


def preload(system: System, number: int, *, per_client: int = 10) -> None:
    """Give the management partition *number* mappings of files that need not exist."""
    server = partition_uuid(1)
    for n in range(number):
        k, place = divmod(n, per_client)
        client = partition_uuid(10_000 + k)
        if client not in system.partitions:
            system.add(Partition("LogicalPartition", client, 1000 + k, f"other{k:03d}"))
        name = str(uuid.UUID(int=n))
        disk = Disk(f"/mnt/nfs/volume-{name}", name, str(uuid.uuid4()), "1")
        lua = f"0x{0x81 + place:02x}00000000000000"
        mapping = Mapping(client, 1000 + k, 2, 500 + k, disk, lua)
        system.mappings[server] = (*system.mappings[server], mapping)
    system.touch()
