"""The owner's loop with a thousand attachments: how soon it is done, and what a sweep costs.

The restart is on a toy hypervisor and toy shares, with the real store: what is measured is
the loop. The sweep is over real guests, which are defined and do not run.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from bench.measure import Result, milliseconds, paired, slower
from lab import guest as guests
from lab import host
from lab.quobyte.cluster import Quobyte, QuobyteVolume
from moorline import installed, wiring
from moorline.core.claims import Claims
from moorline.core.driver import Driver
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.host.caching_host import Snapshot
from moorline.host.linux import Linux
from moorline.hypervisors.libvirt.disk_xml import disk_xml
from moorline.hypervisors.libvirt.hypervisor import Libvirt
from moorline.loop.controller import Controller
from moorline.loop.drift import DriftDetector
from moorline.loop.worker import Worker
from moorline.model import Attachment, GuestId, ImageFile, Key, Level, VolumeId
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.stores.sqlite import SqliteStore
from moorline.testing.toys import ToyGuest, ToyHypervisor, ToyShare, ToyWorld

NAMES = ("restart", "look")
ATTACHMENTS, GUESTS, SHARES = 1000, 500, 10
RESTART, SWEEP, MEMORY = 5.0, 2.0, 6.0
RESTARTS, ROUNDS = 1, 15


def run(connection: Any, wanted: Set[str]) -> Iterator[Result]:
    """What is *wanted* of :data:`NAMES`, in a lab host."""
    if "restart" in wanted:
        yield from restarts()
    if "look" in wanted:
        yield from look(connection)


# --- restart -----------------------------------------------------------------------


def restarts() -> Iterator[Result]:
    """The owner is started when nothing is as wanted, when all of it is, and after a reboot."""
    with tempfile.TemporaryDirectory() as directory:
        count = itertools.count()

        def fresh() -> tuple[ToyWorld, Path]:
            world, path = ToyWorld(), Path(directory) / str(next(count))
            _attachment(world, _records(path))
            return world, path

        settled = fresh()
        _converge(*settled)

        def nothing() -> float:
            return _converge(*fresh())

        def rebooted() -> float:
            world, path = settled
            world.mounts.clear()  # the definitions of the guests are left
            for guest in world.guests.values():
                guest.running = False
                guest.live.clear()
            return _converge(world, path)

        for what, ours in (
            ("nothing attached yet", nothing),
            ("all of it there", lambda: _converge(*settled)),
            ("after a reboot: no mounts, no guest runs", rebooted),
        ):
            raw, took = paired(RESTARTS, lambda: milliseconds(_records(settled[1]).all), ours)
            yield Result(
                f"restart to converged, {ATTACHMENTS} attachments, {what}"
                " (raw: reading the attachments)",
                took,
                raw,
                "ms",
                took / raw,
                f"≤ {RESTART:g} s",
                took <= RESTART * 1000,
            )


def _records(path: Path) -> Records:
    return Records(SqliteStore(path), Codec(Secret(b"k" * 32)), "bench")


def _attachment(world: ToyWorld, records: Records) -> None:
    backend = ToyShare(world)
    for n in range(ATTACHMENTS):
        guest, volume = GuestId(f"g{n % GUESTS}"), VolumeId(f"v{n}")
        world.guests[guest] = ToyGuest(guest)
        data = {"share": f"s{n % SHARES}", "name": volume, "volume_id": volume}
        info = {"driver_volume_type": "toy", "data": data}
        records.put(
            Attachment(
                key=Key(records.host, volume, guest),
                backend="toy",
                connection=Secret(info),
                link=backend.link_name(backend.parse(info)),
                place=volume,
                want=Level.ATTACHED,
                guest_name=guest,
            )
        )


def _converge(world: ToyWorld, path: Path) -> float:
    """Milliseconds until an owner that starts now has nothing left to do."""
    records, hypervisor, claims = _records(path), ToyHypervisor(world), Claims()
    reconciler = Reconciler(records, {"toy": ToyShare(world)}, hypervisor, Locks())
    drift = DriftDetector(records, reconciler, hypervisor)
    controller = Controller(records, Worker(Driver(records, reconciler, claims)), drift, claims)

    def converge() -> None:
        controller.start()
        while controller.swept is None or controller.pending():
            time.sleep(0.01)

    took = milliseconds(converge)
    controller.stop()
    assert not drift.everywhere().due
    assert not world.violations
    return took


# --- sweep -------------------------------------------------------------------------


def look(connection: Any) -> Iterator[Result]:
    """A look at everything that finds nothing to do; raw: XMLDesc of each guest."""
    before = _memory()
    with _everything_attached(connection) as drift:

        def raw() -> list[str]:
            return [domain.XMLDesc() for domain in connection.listAllDomains()]

        theirs, ours = paired(
            ROUNDS, lambda: milliseconds(raw), lambda: milliseconds(lambda: _quiet(drift))
        )
        grown, texts = _memory() - before, sum(map(len, raw())) / 2**20
    what = f"sweep with nothing to do, {ATTACHMENTS} attachments on {GUESTS} guests"
    yield slower(f"{what} (raw: XMLDesc of all guests)", theirs, ours, SWEEP)
    yield Result(
        f"{what}: memory (raw: the XML)",
        grown,
        texts,
        "MiB",
        grown / texts,
        f"≤ {MEMORY:g}×",
        grown / texts <= MEMORY,
    )


def _quiet(drift: DriftDetector) -> None:
    found = drift.everywhere()
    assert (found.rows, list(found.due), found.error) == (ATTACHMENTS, [], "")


@contextmanager
def _everything_attached(connection: Any) -> Iterator[DriftDetector]:
    """Two volumes for each guest, on mounted shares, wanted and in the definitions."""
    quobyte = Quobyte(host.LAB)
    shares = [quobyte.volume(f"sweep{n}") for n in range(SHARES)]
    with tempfile.TemporaryDirectory(dir=host.LAB) as directory:
        settings = wiring.settings(state_dir=Path(directory))
        linux, hypervisor = Linux(), Libvirt()
        records = _records(Path(directory) / "db")
        backends = installed.InstalledBackends(linux, settings.values)
        rows = [row(backends["quobyte"], shares[n % SHARES], n) for n in range(ATTACHMENTS)]
        making = Reconciler(records, backends, hypervisor, Locks())
        looking = Reconciler(
            *(records, backends, hypervisor, Locks()),
            looking=lambda: backends.on(Snapshot(linux)),
        )
        for each in rows[:SHARES]:
            making.connect(each)
        domains = [connection.defineXML(guest(rows[n::GUESTS])) for n in range(GUESTS)]
        for each in rows:
            records.put(each)
        stop = threading.Event()  # an agent listens to events as well, which costs calls a little
        events = threading.Thread(target=hypervisor.watch, args=[lambda guest: None, stop])
        events.start()
        try:
            yield DriftDetector(records, looking, hypervisor)
        finally:
            stop.set()
            events.join()
            for domain in domains:
                domain.undefine()
            for each in rows[:SHARES]:
                backends["quobyte"].disconnect(backends["quobyte"].parse(each.connection.reveal()))
            hypervisor.close()
            linux.close()
    quobyte.clear()


def row(backend: Any, share: QuobyteVolume, n: int) -> Attachment:
    """The attachment of one of the volumes, which is on its guest by its number."""
    volume = VolumeId(f"volume-{n}")
    info = share.connection(volume, volume_id=volume)
    return Attachment(
        key=Key("bench", volume, GuestId(str(uuid.UUID(int=n % GUESTS + 1)))),
        backend="quobyte",
        connection=Secret(info),
        link=backend.link_name(backend.parse(info)),
        place=volume,
        want=Level.ATTACHED,
        guest_name=f"sweep{n % GUESTS}",
    )


def guest(rows: Sequence[Attachment]) -> str:
    """A guest that has the disks already."""
    domain = ET.fromstring(guests.domain_xml(rows[0].guest_name, host.images(), host.SOCKETS))
    ET.SubElement(domain, "uuid").text = rows[0].key.guest
    for row, target in zip(rows, ("vda", "vdb"), strict=True):
        source = ImageFile(Path(row.link) / row.key.volume, "raw")
        where = {"target": target, "bus": "virtio", "place": None}
        disk = disk_xml(row.key.volume, source, row.options, qemu=7_000_000, **where)  # type: ignore[arg-type]
        domain.find("devices").append(ET.fromstring(disk))  # type: ignore[union-attr]
    return ET.tostring(domain, encoding="unicode")


def _memory() -> int:
    """MiB that this process has resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
