"""How soon an agent of a fleet acts: ``python -m bench.fleet``, which needs etcd.

Raw is etcd's own watch: from the commit until somebody who watches is told. Ours: from the same
commit until the agent begins with the attachment, and until its report is in etcd. The store,
the agent's loop and its passes are the real ones; hypervisor and share are toys.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.etcd import Cluster
from moorline.core.admission import Admission
from moorline.core.driver import Driver
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.fleet import keys
from moorline.fleet.host import FleetHost
from moorline.fleet.host_memory import Marks
from moorline.fleet.host_threads import Following
from moorline.fleet.local_volumes import LocalVolumes, Served
from moorline.fleet.ownership import Ownership
from moorline.fleet.record_store import Book
from moorline.fleet.records import Assignment, GuestOwner, HostRecord, Role
from moorline.fleet.start_guard import Guard
from moorline.model import Attachment, DiskOptions, GuestId, Key, Level, LinkName, VolumeId
from moorline.ports import Put
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.stores.etcd.access import Access
from moorline.stores.etcd.store import EtcdStore
from moorline.testing.toy_moving import MovableGuest, ToyCentre, ToyMover, WatchedFaults
from moorline.testing.toy_store import MemoryStore
from moorline.testing.toys import ToyShare, ToyWorld

HOST, PATIENCE_SECONDS = "h0", 30.0
CODEC = Codec(Secret(b"k" * 32))


class Plain:
    """Seals nothing."""

    def seal(self, at: str, definition: bytes) -> bytes:
        return definition

    def open(self, at: str, sealed: bytes) -> bytes:
        return sealed

    def fits(self, at: str, sealed: bytes) -> bool:
        return True


@dataclass
class Times:
    """When each volume came to something."""

    at: dict[str, float] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def note(self, volume: str) -> None:
        with self.changed:
            self.at.setdefault(volume, time.perf_counter())
            self.changed.notify_all()

    def wait_for(self, volume: str) -> float:
        with self.changed:
            if not self.changed.wait_for(lambda: volume in self.at, PATIENCE_SECONDS):
                raise TimeoutError(volume)
            return self.at[volume]


class Noting(LocalVolumes):
    """Notes when the agent begins with a volume."""

    times: Times

    def serve(self, wanted: Attachment, *, link_only: bool) -> Served:
        self.times.note(wanted.key.volume)
        return super().serve(wanted, link_only=link_only)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--attachments", type=int, default=200)
    given.add_argument("--guests", type=int, default=10)
    given.add_argument("--idle", type=float, default=20.0, help="seconds of rest to measure")
    options = given.parse_args()
    with Cluster(1) as cluster:
        access = Access(tuple(cluster.endpoints), cluster.ca, *cluster.user("root"))
        _measure(access, options.attachments, options.guests, options.idle)


def _measure(access: Access, attachments: int, guests: int, idle: float) -> None:
    stores = [EtcdStore(access) for _ in range(3)]
    person, book = Book(stores[0], CODEC, Plain()), Book(stores[1], CODEC, Plain())
    _enrol(person, guests)
    begun, told, reported = Times(), Times(), Times()
    stop = threading.Event()
    _watch(stores[2], keys.desired(HOST), told, stop)
    _watch(stores[2], keys.status(HOST), reported, stop)
    following = _agent(book, guests, begun)
    following.start()
    following.tried.wait(PATIENCE_SECONDS)
    ownership = Ownership(person)
    raw: list[float] = []
    ours: list[float] = []
    done: list[float] = []
    for n in range(attachments):
        volume = f"v{n}"
        home = ownership.find(f"g{n % guests}")
        time.sleep(0.15)  # the agent is at rest
        start = time.perf_counter()
        ownership.attach(home, _wanted(volume, home.guest))
        raw.append(told.wait_for(volume) - start)
        ours.append(begun.wait_for(volume) - start)
        done.append(reported.wait_for(volume) - start)
    _tell("etcd's own watch", raw, raw)
    _tell("attachment to agent", ours, raw)
    _tell("attachment to report", done, raw)
    before = _processor_seconds()
    time.sleep(idle)
    spent = (_processor_seconds() - before) / idle
    print(f"at rest, {attachments} attachments: {spent * 100:.2f} % of a core")
    stop.set()
    following.stop()
    for store in stores:
        store.close()


def _enrol(person: Book, guests: int) -> None:
    person.store.commit([], [Put(keys.EPOCH, b"1"), Put(keys.host(HOST), HostRecord().encode())])
    for n in range(guests):
        id = GuestId(f"g{n}")
        here = Assignment(name=id, role=Role.HERE, generation=1)
        person.store.commit(
            [],
            [
                Put(keys.guest_owner(id), GuestOwner(host=HOST, name=id).encode()),
                Put(keys.assignment(HOST, id), here.encode()),
            ],
        )


def _agent(book: Book, guests: int, begun: Times) -> Following:
    centre = ToyCentre()
    world = ToyWorld(faults=WatchedFaults(centre.look))
    centre.hosts[HOST] = world
    for n in range(guests):
        world.guests[GuestId(f"g{n}")] = MovableGuest(f"g{n}")
    mover = ToyMover(world, centre, HOST, lambda guest: None)
    local = MemoryStore()
    records = Records(local, CODEC, HOST)
    reconciler = Reconciler(records, {"toy": ToyShare(world)}, mover, Locks())
    driver = Driver(records, reconciler)
    marks = Marks(local, HOST)
    volumes = Noting(records, Admission(records, reconciler, mover), driver, mover)
    volumes.times = begun
    guard = Guard(book, HOST, marks, lambda: "1")
    host = FleetHost(book, HOST, "s", marks, guard, volumes, mover, lambda: "1")
    return Following(host, HOST, book.store)


def _wanted(volume: str, guest: GuestId) -> Attachment:
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


def _watch(store: EtcdStore, prefix: str, times: Times, stop: threading.Event) -> None:
    _, revision = store.list(prefix)

    def watch() -> None:
        for event in store.watch(prefix, revision, stop):
            if event.key and len(keys.below(prefix, event.key)) == 2:
                times.note(keys.last(event.key))

    threading.Thread(target=watch, daemon=True).start()


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _tell(what: str, seconds: Sequence[float], raw: Sequence[float]) -> None:
    cuts, of_raw = statistics.quantiles(seconds, n=100), statistics.quantiles(raw, n=100)
    print(
        f"{what}: p50 {cuts[49] * 1000:.1f} ms ({cuts[49] / of_raw[49]:.1f}×),"
        f" p99 {cuts[98] * 1000:.1f} ms ({cuts[98] / of_raw[98]:.1f}×)"
    )


if __name__ == "__main__":
    main()
