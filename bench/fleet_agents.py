"""Agents of a fleet in a process of their own: their store and loop are the real ones, hypervisor
and share are toys.
"""

from __future__ import annotations

import logging
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorline.core.admission import Admission
from moorline.core.driver import Driver
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.fleet.host import FleetHost
from moorline.fleet.host_look import Pace
from moorline.fleet.host_memory import Marks
from moorline.fleet.host_threads import Following
from moorline.fleet.local_volumes import LocalVolumes, Served
from moorline.fleet.record_store import Book
from moorline.fleet.start_guard import Guard
from moorline.model import Attachment, DiskOptions, GuestId, Key, Level, LinkName, VolumeId
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.stores.etcd.access import Access
from moorline.stores.etcd.store import EtcdStore
from moorline.testing.toy_moving import MovableGuest, ToyCentre, ToyMover, WatchedFaults
from moorline.testing.toy_store import MemoryStore
from moorline.testing.toys import ToyShare, ToyWorld

PATIENCE_SECONDS = 120.0
CODEC = Codec(Secret(b"k" * 32))
Begun = Callable[[str, float], None]
"""Told when an agent begins with a volume."""


class Plain:
    """Seals nothing."""

    def seal(self, at: str, definition: bytes) -> bytes:
        return definition

    def open(self, at: str, sealed: bytes) -> bytes:
        return sealed

    def fits(self, at: str, sealed: bytes) -> bool:
        return True


@dataclass(frozen=True)
class Spent:
    """What something took of a process."""

    seconds: float
    cpu_seconds: float
    rss_bytes: int


def quiet() -> None:
    """What is known against this etcd is said once for each connection: not here."""
    logging.getLogger("moorline").setLevel(logging.ERROR)


def measured(do: Callable[[], object]) -> Spent:
    """What *do* takes of this process."""
    used, start = cpu_seconds(os.getpid()), time.perf_counter()
    do()
    seconds = time.perf_counter() - start
    return Spent(seconds, cpu_seconds(os.getpid()) - used, rss_bytes(os.getpid()))


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    if pid == os.getpid():
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Noting(LocalVolumes):
    """Notes when the agent begins with a volume."""

    begun: Begun

    def serve(self, wanted: Attachment, *, link_only: bool) -> Served:
        self.begun(wanted.key.volume, time.perf_counter())
        return super().serve(wanted, link_only=link_only)


@dataclass
class Agent:
    """One host: what it has outlives its agent."""

    name: str
    guests: Sequence[GuestId]
    begun: Begun
    centre: ToyCentre = field(default_factory=ToyCentre)
    local: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self._world = ToyWorld(faults=WatchedFaults(self.centre.look))
        self.centre.hosts[self.name] = self._world
        for id in self.guests:
            self._world.guests[id] = MovableGuest(id)

    def start(self, access: Access) -> None:
        """Begin to follow."""
        self._store = EtcdStore(access)
        book = Book(self._store, CODEC, Plain())
        mover = ToyMover(self._world, self.centre, self.name, lambda guest: None)
        records = Records(self.local, CODEC, self.name)
        reconciler = Reconciler(records, {"toy": ToyShare(self._world)}, mover, Locks())
        driver = Driver(records, reconciler)
        marks = Marks(self.local, self.name)
        volumes = Noting(records, Admission(records, reconciler, mover), driver, mover)
        volumes.begun = self.begun
        guard = Guard(book, self.name, marks, lambda: "1")
        self._host = FleetHost(book, self.name, "s", marks, guard, volumes, mover, lambda: "1")
        self.following = Following(self._host, self.name, self._store)
        self.following.start()

    def wait(self) -> None:
        """Until it has followed, and all is as wanted."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not (
            self.following.tried.is_set()
            and not self.following.trouble
            and self._host.pace is Pace.AT_REST
        ):
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: {self.following.trouble}")
            time.sleep(0.005)

    def stop(self) -> None:
        """As if killed: what is recorded stays."""
        self.following.stop()
        self._store.close()


def run_agents(orders: Any, begun: Any, access: Access, homes: dict[str, list[GuestId]]) -> None:
    """Do what *orders* brings, until that is ``stop``; *begun* is told of volumes."""
    quiet()

    def note(volume: str, at: float) -> None:
        begun.send((volume, at))

    agents = [Agent(name, guests, note) for name, guests in homes.items()]

    def start() -> None:
        for agent in agents:
            agent.start(access)
        for agent in agents:
            agent.wait()

    def stop() -> None:
        for agent in agents:
            agent.following.stop()
        for agent in agents:
            agent.stop()

    deeds: dict[str, Callable[[], object]] = {"start": start, "end": stop, "look": lambda: None}
    orders.send(measured(lambda: None))
    while (order := orders.recv()) != "stop":
        orders.send(measured(deeds[order] if isinstance(order, str) else lambda: time.sleep(order)))


def wanted(volume: str, guest: GuestId) -> Attachment:
    """What a person orders."""
    data = {"share": "s1", "name": volume, "volume_id": volume}
    return Attachment(
        key=Key("", VolumeId(volume), guest),
        backend="toy",
        connection=Secret({"driver_volume_type": "toy", "data": data}),
        link=LinkName(""),
        place=f"toy/s1/{volume}",
        want=Level.ATTACHED,
        options=DiskOptions(),
    )
