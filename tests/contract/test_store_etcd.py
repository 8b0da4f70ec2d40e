"""The store on a real etcd of one member: the contract, and what only etcd does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moorline.errors import Compacted, Conflict, Denied, Refused, Unavailable, Uncertain
from moorline.ports import At, Put, Store
from moorline.testing.contracts.store import StoreContract, watch
from tests.support import etcd

if TYPE_CHECKING:
    from lab.etcd import Cluster
    from moorline.stores.etcd.store import EtcdStore


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with etcd.etcd_lab() as cluster:
        yield cluster


@pytest.fixture
def store(cluster: Cluster) -> Iterator[EtcdStore]:
    store = etcd.store(cluster)
    yield store
    cluster.control("del", "--prefix", "/")
    store.close()


class TestEtcd(StoreContract):
    @pytest.fixture
    def store(self, store: EtcdStore) -> Store:
        return store

    @pytest.fixture
    def reopen(self, cluster: Cluster) -> Callable[[], Store]:
        return lambda: etcd.store(cluster)


def test_a_watch_that_slept_through_a_compaction_lists_again(
    cluster: Cluster, store: EtcdStore
) -> None:
    _, after = store.list("/a/")
    store.commit([], [Put("/a/x", b"1")])
    store.commit([], [Put("/a/x", b"2")])
    cluster.compact()
    with pytest.raises(Compacted):
        next(iter(store.watch("/a/", after, threading.Event())))
    entries, after = store.list("/a/")
    assert [entry.value for entry in entries] == [b"2"]
    store.commit([], [Put("/a/x", b"3")])
    assert watch(store, "/a/", after) == {"/a/x": b"3"}


def test_a_watch_that_is_open_does_not_notice_a_compaction(
    cluster: Cluster, store: EtcdStore
) -> None:
    with etcd.Watching(store, "/a/", store.list("/a/")[1]) as watching:
        store.commit([], [Put("/a/x", b"1")])
        watching.wait_for("/a/x")
        cluster.compact()
        store.commit([], [Put("/a/y", b"2")])
        watching.wait_for("/a/y")
    assert watching.error is None


def test_a_bookmark_is_never_ahead_of_what_was_told(store: EtcdStore) -> None:
    with etcd.Watching(store, "/a/", store.list("/a/")[1]) as watching:
        for i in range(50):
            store.commit([], [Put(f"/a/{j}", b"x") for j in range(i % 7 + 1)])
        last = store.commit([], [Put("/a/last", b"")])
        watching.wait_for("/a/last")
        etcd.until(lambda: not watching.told[-1].key)
    assert watching.told[-1].revision == last
    told = 0
    for event in watching.told:
        assert event.revision >= told
        if event.key:
            assert event.revision > told, "a bookmark was ahead of this event"
        else:
            told = event.revision


def test_the_largest_commit_is_taken(store: EtcdStore) -> None:
    keys = [f"/a/{i:03}" for i in range(100)]
    store.commit([At(key, 0) for key in keys], [Put(key, b"x" * 10_000) for key in keys])
    assert len(store.list("/a/")[0]) == 100


def test_long_lists_come_whole(store: EtcdStore) -> None:
    for i in range(30):
        store.commit([], [Put(f"/a/{i}/{j}", b"x" * 2000) for j in range(100)])
    assert len(store.list("/a/")[0]) == 3000


def test_a_conflict_tells_what_is_there(store: EtcdStore) -> None:
    store.commit([], [Put("/a/x", b"1"), Put("/a/y", b"2")])
    with pytest.raises(Conflict) as conflict:
        store.commit([At("/a/x", 0), At("/a/y", 1), At("/a/z", 0)], [Put("/a/z", b"")])
    current = conflict.value.current
    assert {key: current[key].value for key in current} == {"/a/x": b"1", "/a/y": b"2"}


def test_nothing_is_said_in_the_clear(cluster: Cluster) -> None:
    from moorline.stores.etcd.access import Access

    files = etcd.access(cluster)
    for endpoint in ("http://127.0.0.1:2379", "127.0.0.1:2379", "https://etcd1", "https://:1"):
        with pytest.raises(Refused, match="not an endpoint"):
            Access((endpoint,), files.ca, files.certificate, files.key)
    with pytest.raises(Refused, match="no endpoint"):
        Access((), files.ca, files.certificate, files.key)


def test_a_certificate_of_another_authority_is_let_in_nowhere(
    cluster: Cluster, tmp_path: Path
) -> None:
    from moorline.stores.etcd.access import Access
    from moorline.stores.etcd.authority import Authority
    from moorline.stores.etcd.store import EtcdStore
    from moorline.stores.key_files import write_new

    strange = Authority.make(tmp_path).user("root")
    write_new(tmp_path / "pem", strange.certificate)
    write_new(tmp_path / "key", strange.key.reveal())
    ours = etcd.access(cluster)
    # They do not know us; we do not know them.
    for ca, files in ((ours.ca, tmp_path), (tmp_path / "ca.pem", None)):
        certificate = files / "pem" if files else ours.certificate
        key = files / "key" if files else ours.key
        store = EtcdStore(Access(ours.endpoints, ca, certificate, key), give_up_seconds=0.5)
        with pytest.raises(Unavailable, match="does not answer") as told:
            store.get("/a/x")
        assert "BEGIN" not in str(told.value)
        store.close()


def test_a_key_that_others_can_read_is_not_used(cluster: Cluster, tmp_path: Path) -> None:
    from moorline.stores.etcd.access import Access
    from moorline.stores.etcd.store import EtcdStore

    ours = etcd.access(cluster)
    (tmp_path / "key").write_bytes(ours.key.read_bytes())
    (tmp_path / "key").chmod(0o640)
    store = EtcdStore(Access(ours.endpoints, ours.ca, ours.certificate, tmp_path / "key"))
    with pytest.raises(Denied, match="can be read by others"):
        store.get("/a/x")


def test_where_nobody_listens_it_is_unavailable_and_nothing_is_uncertain(cluster: Cluster) -> None:
    from lab.etcd.member import free_ports

    nowhere = [f"https://127.0.0.1:{port}" for port in free_ports(3)]
    store = etcd.store(cluster, endpoints=nowhere, give_up_seconds=0.5)
    with pytest.raises(Unavailable, match="does not answer"):
        store.commit([], [Put("/a/x", b"1")])
    with pytest.raises(Unavailable, match="does not answer"):
        store.list("/a/")
    store.close()
    with pytest.raises(Unavailable, match="closed"):
        store.get("/a/x")


def test_it_waits_for_a_member_that_restarts(cluster: Cluster, store: EtcdStore) -> None:
    store.commit([], [Put("/a/x", b"1")])
    cluster.kill(cluster.members[0])
    timer = threading.Timer(0.5, lambda: cluster.restart(cluster.members[0]))
    timer.start()
    entry = store.get("/a/x")
    timer.join()
    assert entry is not None
    assert entry.value == b"1"
    cluster.wait()


def test_a_commit_to_a_member_that_hangs_is_uncertain(cluster: Cluster) -> None:
    store = etcd.store(cluster, call_seconds=0.5, give_up_seconds=1)
    before = store.commit([], [Put("/a/x", b"1")])
    cluster.members[0].stop()
    try:
        with pytest.raises(Uncertain):
            store.commit([At("/a/x", before)], [Put("/a/x", b"2")])
        # Now it is not even connected: surely nothing was sent.
        with pytest.raises(Unavailable):
            store.commit([At("/a/x", before)], [Put("/a/x", b"3")])
    finally:
        cluster.members[0].resume()
    # It had the first one in its socket, and its cancellation: both ends have been seen.
    entry = etcd.until(lambda: etcd.answered(lambda: store.get("/a/x")))
    assert entry.value in (b"1", b"2")
    store.close()


def test_a_closed_store_ends_its_watches(cluster: Cluster) -> None:
    store = etcd.store(cluster)
    with etcd.Watching(store, "/a/", store.list("/a/")[1]) as watching:
        store.commit([], [Put("/a/x", b"")])
        watching.wait_for("/a/x")
        store.close()
        assert watching.end(5) is None


def test_a_file_that_is_missing_ends_no_connection_that_works(
    cluster: Cluster, tmp_path: Path
) -> None:
    from moorline.stores.etcd.access import Access
    from moorline.stores.etcd.store import EtcdStore

    ours, key = etcd.access(cluster), tmp_path / "key"
    key.write_bytes(ours.key.read_bytes())
    key.chmod(0o600)
    store = EtcdStore(Access(ours.endpoints, ours.ca, ours.certificate, key), give_up_seconds=0.3)
    store.commit([], [Put("/a/x", b"1")])
    key.unlink()
    store.commit([], [Put("/a/x", b"2")])
    store.close()
    fresh = EtcdStore(Access(ours.endpoints, ours.ca, ours.certificate, key), give_up_seconds=0)
    with pytest.raises(Unavailable, match="cannot be read"):
        fresh.get("/a/x")
    fresh.close()


def test_a_new_certificate_is_used_without_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    from moorline.stores.etcd.access import Access
    from moorline.stores.etcd.store import EtcdStore
    from moorline.stores.key_files import write_over

    ours = etcd.access(cluster)
    pair = tmp_path / "pem", tmp_path / "key"

    def issue() -> None:
        made = cluster.authority.user("root")
        write_over(pair[1], made.key.reveal())
        write_over(pair[0], made.certificate)

    issue()
    store = EtcdStore(Access(ours.endpoints, ours.ca, *pair))
    with etcd.Watching(store, "/a/", store.list("/a/")[1]) as watching:
        store.commit([], [Put("/a/x", b"1")])
        watching.wait_for("/a/x")
        issue()
        store.commit([], [Put("/a/x", b"2")])
        assert isinstance(watching.end(), Unavailable), "it has the old certificate still"
    store.close()
