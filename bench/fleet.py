"""A fleet's pace and its size: ``make bench-fleet``, which needs etcd.

One real etcd has the entries of all hosts, at rest. A few hosts have an agent: its store and loop
are the real ones, on toys. Raw is etcd's own watch in the same run: from a commit until somebody
who watches is told. What 10,000 hosts with 1,000,000 attachments would take is reckoned up from it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.fleet_agents import (
    CODEC,
    Plain,
    Spent,
    cpu_seconds,
    measured,
    quiet,
    rss_bytes,
    run_agents,
    wanted,
)
from bench.fleet_store import Size, fill
from lab.etcd import Cluster
from moorline.fleet import keys
from moorline.fleet.controller import Controller
from moorline.fleet.hosts_at_rest import ChangedHosts
from moorline.fleet.ownership import Ownership
from moorline.fleet.record_store import Book
from moorline.ports import At, Delete, Entry, Put
from moorline.stores.etcd.access import Access
from moorline.stores.etcd.store import EtcdStore

HOSTS, ATTACHMENTS = 10_000, 1_000_000
PATIENCE_SECONDS = 60.0
FRESH = multiprocessing.get_context("spawn")
"""gRPC does not live on in a process that was forked."""


class Counting(EtcdStore):
    """Counts the questions, and notes when a commit began."""

    asked = 0
    began = 0.0

    def get(self, key: str) -> Entry | None:
        self.asked += 1
        return super().get(key)

    def list(self, prefix: str) -> tuple[list[Entry], int]:
        self.asked += 1
        return super().list(prefix)

    def commit(self, when: Sequence[At], then: Sequence[Put | Delete]) -> int:
        self.asked += 1
        self.began = time.perf_counter()
        return super().commit(when, then)


@dataclass
class Etcd:
    """The one that all use."""

    cluster: Cluster

    @property
    def pid(self) -> int:
        return self.cluster.members[0].pid

    def cpu_of(self, do: Callable[[], Any]) -> tuple[Any, float]:
        """What *do* returns, and the processor time that etcd took for it."""
        before = cpu_seconds(self.pid)
        return do(), cpu_seconds(self.pid) - before

    def size_bytes(self) -> int:
        return int(self.cluster.status(self.cluster.members[0])["dbSize"])


def main() -> None:
    quiet()
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--hosts", type=int, default=300)
    given.add_argument("--guests", type=int, default=10, help="of each host")
    given.add_argument("--volumes", type=int, default=10, help="of each guest")
    given.add_argument("--agents", type=int, default=10, help="hosts that have one")
    given.add_argument("--attaches", type=int, default=100)
    given.add_argument("--idle", type=float, default=20.0, help="seconds of rest to measure")
    options = given.parse_args()
    size = Size(options.hosts, options.guests, options.volumes)
    quota = "--quota-backend-bytes=8589934592"
    with Cluster(1, [quota]) as cluster:
        access = Access(tuple(cluster.endpoints), cluster.ca, *cluster.user("root"))
        live = size.names()[: options.agents]
        _head(size, len(live))
        etcd = Etcd(cluster)
        store = EtcdStore(access)
        spent = measured(lambda: fill(store, size, live))
        store.close()
        _say("filling etcd", f"{spent.seconds:.0f} s", "")
        _tell_etcd(etcd, size)
        with _agents(access, size, live) as (order, begun):
            _tell_agents(etcd, order, len(live), options.idle)
            _tell_attaches(access, size, live, begun, options.attaches)
        _tell_controller(etcd, access, size)


def _head(size: Size, live: int) -> None:
    print(f"{size.hosts} hosts, {size.attachments} attachments, {live} agents, one etcd")
    print(f"\n| what | measured | reckoned: {HOSTS} hosts, {ATTACHMENTS} attachments |")
    print("|---|---|---|", flush=True)


def _say(what: str, measure: str, reckoned: str) -> None:
    print(f"| {what} | {measure} | {reckoned} |", flush=True)


def _tell_etcd(etcd: Etcd, size: Size) -> None:
    more = ATTACHMENTS / size.attachments
    data, memory = etcd.size_bytes(), rss_bytes(etcd.pid)
    _say("etcd's file", _mib(data), _mib(data * more))
    _say("etcd's memory", _mib(memory), f"{_mib(memory * more)} (grows less: the file is mapped)")


def _tell_agents(etcd: Etcd, order: Callable[[Any], Spent], count: int, idle: float) -> None:
    base = order("look")
    order("start")
    order("end")
    again, of_etcd = etcd.cpu_of(lambda: order("start"))
    _say(
        f"restart of {count} agents, until all have followed",
        f"{again.seconds:.1f} s; {again.cpu_seconds / count * 1000:.0f} ms of an agent's core,"
        f" {of_etcd / count * 1000:.0f} ms of etcd's",
        f"within a minute: {of_etcd / count * HOSTS / 60:.1f} cores of etcd's",
    )
    rest, of_etcd = etcd.cpu_of(lambda: order(idle))
    _say(
        "an agent at rest",
        f"{rest.cpu_seconds / count / idle:.2%} of a core, {of_etcd / count / idle:.3%} of etcd's;"
        f" {_mib((rest.rss_bytes - base.rss_bytes) / count)} over {_mib(base.rss_bytes)} of Python",
        f"{of_etcd / count / idle * HOSTS:.1f} cores of etcd's",
    )


def _tell_attaches(
    access: Access, size: Size, live: Sequence[str], begun: Any, attaches: int
) -> None:
    store, watched = Counting(access), EtcdStore(access)
    told: dict[str, float] = {}
    stop = threading.Event()
    _watch(watched, live, told, stop)
    ownership = Ownership(Book(store, CODEC, Plain()))
    raw: list[float] = []
    ours: list[float] = []
    whole: list[float] = []
    for number in range(attaches):
        host = live[number % len(live)]
        guest = size.guests_of(host)[number // len(live) % size.guests]
        volume = f"new{number}"
        start = time.perf_counter()
        home = ownership.find(guest)
        ownership.attach(home, wanted(volume, guest))
        whole.append(time.perf_counter() - start)
        ours.append(_begun(begun, volume) - store.began)
        _await(lambda of=volume: of in told)
        raw.append(told[volume] - store.began)
    stop.set()
    of_raw = statistics.quantiles(raw, n=100)
    for what, seconds in (("etcd's own watch", raw), ("an attach, until its agent begins", ours)):
        cuts = statistics.quantiles(seconds, n=100)
        _say(
            what,
            f"p50 {cuts[49] * 1000:.1f} ms ({cuts[49] / of_raw[49]:.1f}×),"
            f" p99 {cuts[98] * 1000:.1f} ms ({cuts[98] / of_raw[98]:.1f}×)",
            "the goal is 3×" if seconds is ours else "",
        )
    median = statistics.median(whole)
    more = HOSTS / size.hosts
    _say(
        "a person's attach, until it is committed",
        f"{median * 1000:.0f} ms, {store.asked / attaches:.0f} questions",
        f"{median * more:.1f} s: it reads an entry of each host, and the owner of each guest",
    )
    for each in (store, watched):
        each.close()


def _tell_controller(etcd: Etcd, access: Access, size: Size) -> None:
    orders, theirs = FRESH.Pipe()
    process = FRESH.Process(target=_controller, args=(theirs, access))
    process.start()
    more = ATTACHMENTS / size.attachments
    base = orders.recv()
    for what in ("a controller that starts: its first pass", "its next pass", "and one more"):
        (spent, asked, steps), of_etcd = etcd.cpu_of(orders.recv)
        _say(
            what,
            f"{spent.seconds:.1f} s, {spent.cpu_seconds:.1f} s of its core, {of_etcd:.1f} s of"
            f" etcd's; {asked} questions, {steps} steps; {_mib(spent.rss_bytes - base.rss_bytes)}"
            f" over {_mib(base.rss_bytes)} of Python",
            f"{spent.seconds * more:.0f} s; {_mib((spent.rss_bytes - base.rss_bytes) * more)}",
        )
        orders.send("go on")
    process.join()


def _controller(orders: Any, access: Access) -> None:
    quiet()
    store = Counting(access)
    with ChangedHosts(store) as changed:
        orders.send(measured(lambda: None))
        controller = Controller(Book(store, CODEC, Plain()), "bench", changed=changed)
        for _ in range(3):
            store.asked = 0
            steps: list[int] = []
            spent = measured(lambda taken=steps: taken.append(controller.advance()))
            orders.send((spent, store.asked, sum(steps)))
            orders.recv()
    store.close()


@contextmanager
def _agents(
    access: Access, size: Size, live: Sequence[str]
) -> Iterator[tuple[Callable[[Any], Spent], Any]]:
    orders, theirs = FRESH.Pipe()
    begun, told = FRESH.Pipe(duplex=False)
    homes = {host: size.guests_of(host) for host in live}
    process = FRESH.Process(target=run_agents, args=(theirs, told, access, homes), daemon=True)
    process.start()
    orders.recv()

    def order(what: Any) -> Spent:
        while begun.poll():
            begun.recv()
        orders.send(what)
        while not orders.poll(0.01):
            while begun.poll():
                begun.recv()
        spent: Spent = orders.recv()
        return spent

    yield order, begun
    order("end")
    orders.send("stop")
    process.join(PATIENCE_SECONDS)


def _begun(begun: Any, volume: str) -> float:
    """When the agent began with it."""
    while begun.poll(PATIENCE_SECONDS):
        of, at = begun.recv()
        if of == volume:
            return float(at)
    raise TimeoutError(volume)


def _watch(
    store: EtcdStore, hosts: Sequence[str], told: dict[str, float], stop: threading.Event
) -> None:
    """Note when etcd tells of a volume that is wanted of one of *hosts*."""
    for host in hosts:
        prefix = keys.desired(host)
        _, revision = store.list(prefix)

        def watch(prefix: str = prefix, revision: int = revision) -> None:
            for event in store.watch(prefix, revision, stop):
                if event.key and len(keys.below(prefix, event.key)) == 2:
                    told.setdefault(keys.last(event.key), time.perf_counter())

        threading.Thread(target=watch, daemon=True).start()


def _await(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.001)


def _mib(bytes_: float) -> str:
    return f"{bytes_ / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
