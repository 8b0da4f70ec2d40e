"""A real etcd that is full, and one whose backup is brought back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moorline.errors import Compacted, Denied, MoorlineError, Unavailable, Uncertain
from moorline.model import Attachment, GuestId, Key, Level, LinkName, VolumeId
from moorline.ports import At, Delete, Put
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.stores.fleet_seal import BoxKey, for_controllers, for_host
from tests.support import etcd

if TYPE_CHECKING:
    from lab.etcd import Cluster
    from moorline.stores.etcd.store import EtcdStore

QUOTA = 4 << 20


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with etcd.etcd_lab(options=[f"--quota-backend-bytes={QUOTA}"]) as cluster:
        yield cluster


def fill(store: EtcdStore, below: str) -> tuple[int, MoorlineError]:
    """Write until etcd takes no more. Return how much was taken, and what the last try was told."""
    for number in range(1000):
        try:
            store.commit([], [Put(f"{below}{number}", bytes(256 << 10))])
        except MoorlineError as e:
            return number, e
    pytest.fail("it is never full")


def test_a_full_etcd_is_told_as_such_and_taken_up_again(cluster: Cluster) -> None:
    store = etcd.store(cluster)
    revision = store.commit([], [Put("/a/x", b"1")])
    written, error = fill(store, "/fill/")
    # The one that fills it may be in: etcd notices when it is applied.
    assert isinstance(error, Uncertain)
    assert "full" in error.message
    assert "quota-backend-bytes" in error.hint
    # From then on it surely is not.
    with pytest.raises(Unavailable, match="is full"):
        store.commit([At("/a/x", revision)], [Put("/a/x", b"2")])
    assert store.get("/a/x") is not None
    # What only takes away is taken, so that there can be room again.
    for i in range(written + 1):
        store.commit([], [Delete(f"/fill/{i}")])
    cluster.make_room()
    store.commit([At("/a/x", revision)], [Put("/a/x", b"2")])
    store.close()


def test_a_full_etcd_that_checks_no_grants_is_told(cluster: Cluster) -> None:
    """A host fills it with what it may write, and then deletes what it may not: or is denied."""
    from moorline.stores.etcd.enrolment import Enrolment

    enrolment = Enrolment(etcd.access(cluster))
    enrolment.initialise()
    enrolment.enrol("h1", "box")
    root, host = etcd.store(cluster), etcd.store(cluster, "host:h1:1")
    victim = Delete("/moorline/owners/volumes/v1")
    root.commit([], [Put(victim.key, b"h10")])
    with pytest.raises(Denied):
        host.commit([], [victim])
    assert isinstance(fill(host, "/moorline/status/h1/")[1], Uncertain)
    with suppress(Denied):
        host.commit([], [victim])
    held = root.get(victim.key) is not None
    assert held or any("while it is full" in warning for warning in host.warnings)
    for each in (enrolment, root, host):
        each.close()


@pytest.mark.parametrize("token", ["moorline-lab", "restored"], ids=["same id", "new id"])
def test_a_backup_that_is_brought_back_has_everyone_list_again(
    cluster: Cluster, tmp_path: Path, token: str
) -> None:
    store = etcd.store(cluster)
    for i in range(10):
        store.commit([], [Put("/a/x", b"%d" % i)])
    cluster.save(tmp_path / "backup")
    for i in range(10):
        store.commit([], [Put("/a/y", b"%d" % i)])
    entries, after = store.list("/a/")
    assert len(entries) == 2
    with etcd.Watching(store, "/a/", after) as watching:
        after = store.commit([], [Put("/a/y", b"last")])
        watching.wait_for("/a/y")
        cluster.restore(tmp_path / "backup", token=token)
        assert isinstance(watching.end(), Unavailable)
    # Others have gone on, beyond what was: by its number alone, all is as before.
    other = etcd.store(cluster)
    while other.commit([], [Put("/a/z", b"")]) <= after + 5:
        pass
    if token == "moorline-lab":
        # Nothing but the epoch can tell. Whoever brings a backup back says so.
        from moorline.stores.etcd.enrolment import Enrolment

        store.list("/b/")
        enrolment = Enrolment(etcd.access(cluster))
        with etcd.Watching(store, "/b/", store.list("/b/")[1]) as watching:
            store.commit([], [Put("/b/x", b"")])
            watching.wait_for("/b/x")
            assert enrolment.restored() != enrolment.restored()
            assert isinstance(watching.end(), Compacted)
        enrolment.close()
    with pytest.raises(Compacted):
        next(iter(store.watch("/a/", after, threading.Event())))
    entries, after = store.list("/a/")
    assert [entry.key for entry in entries] == ["/a/x", "/a/z"]
    with etcd.Watching(store, "/a/", after) as watching:
        other.commit([], [Put("/a/z", b"news")])
        watching.wait_for("/a/z")
    store.close()
    other.close()


def test_neither_etcd_nor_its_backup_has_a_connection(cluster: Cluster, tmp_path: Path) -> None:
    fleet, host = (BoxKey.made(tmp_path / name) for name in ("fleet.key", "h1.key"))
    codec = Codec(for_controllers(fleet, lambda _: host.public))
    at, row = "/moorline/desired/h1/g1/v1", attachment(Secret({"export": "mds:/c:p4ssw0rd"}))
    store = etcd.store(cluster)
    store.commit([], [Put(at, codec.encode(at, row))])
    cluster.save(tmp_path / "backup")
    files = [file for file in cluster.members[0].directory.rglob("*") if file.is_file()]
    everything = b"".join(file.read_bytes() for file in [*files, tmp_path / "backup"])
    assert everything.count(b"link-of-h1") >= 3  # its log, its database and the backup
    assert b"p4ssw0rd" not in everything
    entry = store.get(at)
    assert entry is not None
    opened = Codec(for_host(host, fleet.public)).decode(entry)
    assert opened.connection == row.connection
    store.close()


def attachment(connection: Secret[dict[str, str]]) -> Attachment:
    return Attachment(
        key=Key("h1", VolumeId("v1"), GuestId("g1")),
        backend="quobyte",
        connection=connection,
        link=LinkName("/mnt/link-of-h1"),
        place="p",
        want=Level.ATTACHED,
    )


def test_revisions_that_go_back_are_another_history(cluster: Cluster, tmp_path: Path) -> None:
    """Noticed by whatever is asked, also with the same id, and without a word of the operator."""
    store = etcd.store(cluster)
    store.commit([], [Put("/a/x", b"")])
    cluster.save(tmp_path / "backup")
    for _ in range(10):
        store.commit([], [Put("/a/x", b"")])
    _, after = store.list("/a/")
    cluster.restore(tmp_path / "backup")
    assert store.get("/a/x")  # goes back here
    while store.commit([], [Put("/a/y", b"")]) <= after + 5:
        pass
    with pytest.raises(Compacted, match="backup"):
        next(iter(store.watch("/a/", after, threading.Event())))
    store.close()
