"""The store on a real etcd of three members, which are killed, stopped and cut off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from moorline.errors import Compacted, Conflict, Unavailable, Uncertain
from moorline.ports import At, Entry, Put, Store
from tests.support import etcd

if TYPE_CHECKING:
    from lab.etcd import Cluster
    from lab.etcd.member import Member


@pytest.fixture(scope="module")
def started() -> Iterator[Cluster]:
    with etcd.etcd_lab(3) as cluster:
        yield cluster


@pytest.fixture
def cluster(started: Cluster) -> Iterator[Cluster]:
    yield started
    started.mend()
    started.control("del", "--prefix", "/")


def kill(cluster: Cluster) -> Member:
    leader = cluster.leader()
    cluster.kill(leader)
    return leader


def stop(cluster: Cluster) -> Member:
    leader = cluster.leader()
    leader.stop()
    return leader


def cut_off(cluster: Cluster) -> Member:
    leader = cluster.leader()
    cluster.cut_off(leader)
    return leader


class Writer(threading.Thread):
    """Counts up an entry by compare-and-swap, and keeps what was acknowledged."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__()
        self._store = store
        self.key = key
        self.acknowledged = 0
        self.uncertain = 0
        """1: a commit was uncertain; it can be done for as long as the entry is at its revision."""
        self.wrong = ""
        self.ended = threading.Event()

    def run(self) -> None:
        while not (self.ended.is_set() or self.wrong):
            with suppress(Unavailable):
                self._count()

    def _count(self) -> None:
        entry = self._store.get(self.key)
        value = int(entry.value) if entry else 0
        if not self.acknowledged <= value <= self.acknowledged + self.uncertain:
            self.wrong = f"{value}, after {self.acknowledged} was acknowledged"
        if value > self.acknowledged:
            self.acknowledged, self.uncertain = value, 0
        try:
            revision = entry.revision if entry else 0
            self._store.commit([At(self.key, revision)], [Put(self.key, b"%d" % (value + 1))])
            self.acknowledged, self.uncertain = value + 1, 0
        except Uncertain:
            self.uncertain = 1
        except Conflict:
            if not self.uncertain:
                self.wrong = "nobody else writes here, and nothing was uncertain"


class Follower(threading.Thread):
    """Lists and watches, as agents do; has what it was told."""

    def __init__(self, store: Store, prefix: str) -> None:
        super().__init__()
        self._store, self._prefix = store, prefix
        self.has: dict[str, Entry] = {}
        self.stop = threading.Event()
        self.wrong = ""

    def run(self) -> None:
        after = -1
        while not self.stop.is_set():
            try:
                if after < 0:
                    entries, after = self._store.list(self._prefix)
                    self.has = {entry.key: entry for entry in entries}
                for event in self._store.watch(self._prefix, after, self.stop):
                    if event.revision <= after and event.key:
                        self.wrong = f"{event} after a bookmark at {after}"
                    after = event.revision if not event.key else after
                    if event.entry:
                        self.has[event.key] = event.entry
            except Compacted:
                after = -1
            except Unavailable:
                pass


@pytest.mark.parametrize("hurt", [kill, stop, cut_off], ids=lambda f: f.__name__)
def test_when_the_leader_goes_nothing_that_was_acknowledged_is_lost(
    cluster: Cluster, hurt: Callable[[Cluster], Member]
) -> None:
    stores = [etcd.store(cluster, endpoints=rotated(cluster.endpoints, i)) for i in range(3)]
    writers = [Writer(store, f"/w/{i}") for i, store in enumerate(stores)]
    followers = [Follower(store, "/w/") for store in stores]
    for thread in (*writers, *followers):
        thread.start()
    try:
        etcd.until(lambda: all(writer.acknowledged > 10 for writer in writers))
        hurt(cluster)
        at = [writer.acknowledged for writer in writers]
        etcd.until(
            lambda: all(w.acknowledged > n + 10 for w, n in zip(writers, at, strict=True)), 60
        )
    finally:
        for writer in writers:
            writer.ended.set()
        for writer in writers:
            writer.join()
    # Whatever they watch, and however it ended, they come to have what is there.
    there = {entry.key: entry for entry in stores[0].list("/w/")[0]}
    try:
        etcd.until(lambda: all(follower.has == there for follower in followers), 30)
    finally:
        for follower in followers:
            follower.stop.set()
        for follower in followers:
            follower.join()
    assert not any(thread.wrong for thread in (*writers, *followers))
    for writer in writers:
        assert int(there[writer.key].value) - writer.acknowledged in {0, writer.uncertain}
    for store in stores:
        store.close()


def rotated(endpoints: list[str], by: int) -> list[str]:
    return endpoints[by:] + endpoints[:by]


def test_a_watch_at_a_member_that_is_cut_off_ends(cluster: Cluster) -> None:
    """Without asking for a leader, it would hang for as long as the member is cut off."""
    member = cluster.followers()[0]
    store = etcd.store(cluster, endpoints=[member.endpoint], give_up_seconds=0.5)
    with etcd.Watching(store, "/a/", store.list("/a/")[1]) as watching:
        cluster.cut_off(member)
        assert isinstance(watching.end(), Unavailable)
    with pytest.raises(Unavailable, match="no leader"):
        store.get("/a/x")
    store.close()


def test_a_watch_at_a_member_that_hangs_ends(cluster: Cluster) -> None:
    """Nothing but a ping tells: its connection stays, and nobody else asks it anything."""
    member = cluster.followers()[0]
    store = etcd.store(cluster, endpoints=[member.endpoint])
    with etcd.Watching(store, "/a/", store.list("/a/")[1]) as watching:
        store.commit([], [Put("/a/x", b"")])
        watching.wait_for("/a/x")
        member.stop()
        assert isinstance(watching.end(30), Unavailable)
    store.close()


def test_a_member_that_is_cut_off_is_left_for_another(cluster: Cluster) -> None:
    member, other = cluster.followers()
    store = etcd.store(cluster, endpoints=[member.endpoint, other.endpoint])
    revision = store.commit([], [Put("/a/x", b"1")])
    cluster.cut_off(member)
    etcd.until(lambda: member_has_no_leader(cluster, member))
    assert store.get("/a/x") == Entry("/a/x", b"1", revision)
    store.commit([At("/a/x", revision)], [Put("/a/x", b"2")])
    store.close()


def member_has_no_leader(cluster: Cluster, member: Member) -> bool:
    return not cluster.status(member).get("leader")


def test_a_member_that_hangs_is_left_for_another(cluster: Cluster) -> None:
    member, other = cluster.followers()
    store = etcd.store(cluster, endpoints=[member.endpoint, other.endpoint], call_seconds=3)
    revision = store.commit([], [Put("/a/x", b"1")])
    member.stop()
    began = time.monotonic()
    for _ in range(20):
        assert store.get("/a/x") == Entry("/a/x", b"1", revision)
    # One time-out, not one for each call that goes to it in turn.
    assert time.monotonic() - began < 20
    store.close()


def test_without_a_majority_nothing_is_taken_and_it_is_said(cluster: Cluster) -> None:
    leader = cluster.leader()
    for follower in cluster.followers():
        cluster.kill(follower)
    store = etcd.store(cluster, endpoints=[leader.endpoint], give_up_seconds=1)
    with pytest.raises((Uncertain, Unavailable)):
        store.commit([At("/a/x", 0)], [Put("/a/x", b"1")])
    with pytest.raises(Unavailable):
        store.get("/a/x")
    store.close()
