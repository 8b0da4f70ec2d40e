"""Attach and detach, against the raw libvirt call and the raw mount command."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Container, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.measure import Result, milliseconds, paired, slower
from lab import guest as guests
from lab import host
from lab.quobyte.cluster import Quobyte, QuobyteVolume
from moorline import wiring
from moorline.api import Moorline
from moorline.model import DiskOptions

NAMES = ("attach", "detach", "first", "many")
MNT = Path("/var/lib/moorline/raw")
SCSI = DiskOptions(bus="scsi")
BOTH = 3  # VIR_DOMAIN_AFFECT_LIVE | VIR_DOMAIN_AFFECT_CONFIG


class Bench:
    """A guest, a share, and both ways to bring them together."""

    def __init__(self, connection: Any, moorline: Moorline, share: QuobyteVolume) -> None:
        self._connection = connection
        self._moorline = moorline
        self._share = share
        self._count = itertools.count()
        MNT.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _link_up(self) -> Iterator[guests.Guest]:
        """A running guest whose share is mounted already."""
        (guest,) = guests.boot(self._connection, ["bench1"], host.images(), host.SOCKETS)
        held = self._share.connection("held", volume_id="held")
        self._moorline.attachments.attach(guest.name, held, options=SCSI)
        self._mount()
        yield guest
        self._umount()
        self._moorline.attachments.detach(guest.name, "held")
        guests.remove(guest)

    def attach(self, guest: guests.Guest, rounds: int = 20) -> Iterator[Result]:
        """Attach to it."""

        def raw() -> float:
            xml = disk_xml(MNT / "disk", "sdb", "bench-raw")
            took = milliseconds(lambda: guest.domain.attachDeviceFlags(xml, BOTH))
            detach(guest.domain, "ua-bench-raw")
            return took

        def ours() -> float:
            connection = self._share.connection("disk", volume_id="bench-ours")
            took = milliseconds(
                lambda: self._moorline.attachments.attach(guest.name, connection, options=SCSI)
            )
            self._moorline.attachments.detach(guest.name, "bench-ours")
            return took

        raw_ms, ours_ms = paired(rounds, raw, ours)
        around = ours_ms - raw_ms
        what = "attach, link up: what is done around libvirt's call"
        yield slower("attach, link up", raw_ms, ours_ms, 1.3)
        yield Result(what, around, raw_ms, "ms", around / raw_ms, "≤ 4 ms", around <= 4)

    def detach(self, guest: guests.Guest, rounds: int = 20) -> Result:
        """Detach from it, to the point where it has let go. The link stays up."""

        def raw() -> float:
            guest.domain.attachDeviceFlags(disk_xml(MNT / "disk", "sdb", "bench-raw"), BOTH)
            guest.wait_for("bench-raw")
            return milliseconds(lambda: detach(guest.domain, "ua-bench-raw"))

        def ours() -> float:
            connection = self._share.connection("disk", volume_id="bench-ours")
            self._moorline.attachments.attach(guest.name, connection, options=SCSI)
            guest.wait_for("bench-ours")
            return milliseconds(lambda: self._moorline.attachments.detach(guest.name, "bench-ours"))

        return slower("detach, guest running, link stays up", *paired(rounds, raw, ours), 1.2)

    def link_up(self, wanted: Container[str]) -> Iterator[Result]:
        """Attach and detach on a share that is mounted already."""
        with self._link_up() as guest:
            if "attach" in wanted:
                yield from self.attach(guest)
            if "detach" in wanted:
                yield self.detach(guest)

    def first(self, rounds: int = 10) -> Result:
        """The first attach on a share: mount it, then attach."""
        (guest,) = guests.boot(self._connection, ["bench1"], host.images(), host.SOCKETS)

        def raw() -> float:
            xml = disk_xml(MNT / "disk", "sdb", "bench-raw")

            def do() -> None:
                self._mount()
                guest.domain.attachDeviceFlags(xml, BOTH)

            took = milliseconds(do)
            detach(guest.domain, "ua-bench-raw")
            self._umount()
            return took

        def ours() -> float:
            connection = self._share.connection("disk", volume_id="bench-ours")
            took = milliseconds(
                lambda: self._moorline.attachments.attach(guest.name, connection, options=SCSI)
            )
            self._moorline.attachments.detach(guest.name, "bench-ours")
            return took

        raw_ms, ours_ms = paired(rounds, raw, ours)
        guests.remove(guest)
        return slower("first attach on a share (mount command and attach)", raw_ms, ours_ms, 1.1)

    def many(self, volumes: int = 100, count: int = 20, threads: int = 4) -> Iterator[Result]:
        """Many volumes on many guests over one share, with four threads."""
        for number in range(volumes):
            with suppress(FileExistsError):
                self._share.disk(f"v{number}", 1 << 20)
        places = [(f"paused{number % count}", number) for number in range(volumes)]
        self._mount()

        def raw(place: tuple[str, int]) -> None:
            name, number = place
            xml = disk_xml(MNT / f"v{number}", f"sd{chr(ord('a') + number // count)}", f"v{number}")
            self._connection.lookupByName(name).attachDeviceFlags(xml, BOTH)

        def ours(place: tuple[str, int]) -> None:
            name, number = place
            connection = self._share.connection(f"v{number}", volume_id=f"v{number}")
            self._moorline.attachments.attach(name, connection, options=SCSI)

        rates: tuple[list[float], list[float]] = ([], [])
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(3):
            for which in random.sample((0, 1), 2):
                attach = (raw, ours)[which]
                domains = self._paused(count)
                before = _processor_ms()
                rates[which].append(_rate(attach, places, threads))
                times[which].append((_processor_ms() - before) / volumes)
                for domain in domains:
                    domain.destroy()
                    domain.undefine()
                for view in self._moorline.attachments.list():
                    self._moorline.attachments.detach(view.guest_id, view.volume)
        self._umount()
        raw_rate, our_rate = (statistics.median(each) for each in rates)
        what = f"{volumes} volumes on {count} guests, one share, {threads} threads"
        ratio = our_rate / raw_rate
        yield Result(what, our_rate, raw_rate, "/s", ratio, "≥ 0.75×", ratio >= 0.75)
        theirs, ours_ms = (statistics.median(each) for each in times)
        whole = "the same: processor time of all processes for one of them"
        yield slower(whole, theirs, ours_ms, 1.35)

    def _mount(self) -> None:
        subprocess.run(["mount.quobyte", self._share.export, str(MNT)], check=True)

    def _umount(self) -> None:
        """Unmount as soon as QEMU has closed what it was made to let go."""
        deadline = time.monotonic() + 5
        while subprocess.run(["umount", str(MNT)], stderr=subprocess.DEVNULL).returncode:
            assert time.monotonic() < deadline, "the raw mount stays busy"
            time.sleep(0.01)

    def _paused(self, count: int) -> list[Any]:
        domains = []
        for number in range(count):
            xml = guests.domain_xml(f"paused{number}", host.images(), host.SOCKETS)
            domain = self._connection.defineXML(xml)
            domain.createWithFlags(1)  # VIR_DOMAIN_START_PAUSED: no CPU time of theirs is measured
            domains.append(domain)
        return domains


def run(connection: Any, wanted: Set[str]) -> Iterator[Result]:
    """What is *wanted* of :data:`NAMES`, in a lab host."""
    share = Quobyte(host.LAB).volume("bench")
    share.disk("held")
    share.disk("disk")
    with wiring.open_host(wiring.settings()) as moorline:
        bench = Bench(connection, moorline, share)
        if wanted & {"attach", "detach"}:
            yield from bench.link_up(wanted)
        if "first" in wanted:
            yield bench.first()
        if "many" in wanted:
            yield from bench.many()


def disk_xml(path: Path, target: str, volume: str) -> str:
    """What any tool would attach."""
    return (
        "<disk type='file' device='disk'>"
        "<driver name='qemu' type='raw' cache='none' io='native'/>"
        f"<source file='{path}'/><target dev='{target}' bus='scsi'/>"
        f"<serial>{volume}</serial><alias name='ua-{volume}'/></disk>"
    )


def detach(domain: Any, alias: str) -> None:
    """Detach, and wait until it is gone."""
    domain.detachDeviceAlias(alias, BOTH)
    while alias in domain.XMLDesc():
        time.sleep(0.01)


def _processor_ms() -> float:
    """What all processes of the lab host have used, those that have ended aside."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def _rate(
    attach: Callable[[tuple[str, int]], None], places: Sequence[tuple[str, int]], threads: int
) -> float:
    with ThreadPoolExecutor(threads) as pool:
        took = milliseconds(lambda: list(pool.map(attach, places)))
    return len(places) / took * 1000
