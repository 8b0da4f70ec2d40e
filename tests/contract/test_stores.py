"""Every store against the store contract."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moorline.errors import Refused, Unavailable
from moorline.ports import Delete, Entry, Put, Store
from moorline.stores.sqlite import SqliteStore
from moorline.testing.contracts.store import StoreContract
from moorline.testing.toys import MemoryStore
from tests.support.full_disk import full_disk


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestSqlite(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = SqliteStore(tmp_path / "db", poll=0.05)
        yield store
        store.close()

    @pytest.fixture
    def reopen(self, store: Store, tmp_path: Path) -> Callable[[], Store]:
        return lambda: SqliteStore(tmp_path / "db", poll=0.05)


def test_a_reopened_database_has_everything_but_tombstones(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")
    store.commit([], [Put("/a/x", b"1"), Put("/a/y", b"2")])
    store.commit([], [Delete("/a/y")])
    store.close()
    store = SqliteStore(tmp_path / "db")
    assert [e.key for e in store.list("/a/")[0]] == ["/a/x"]
    assert store._db.execute("select count(*) from entry").fetchone() == (1,)


def test_only_its_owner_can_read_the_database(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "db").close()
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o600


def test_a_database_of_a_newer_moorline_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "db").close()
    db = sqlite3.connect(tmp_path / "db")
    db.execute("insert into migration values (99, 0)")
    db.commit()
    db.close()
    with pytest.raises(Refused, match="newer Moorline"):
        SqliteStore(tmp_path / "db")


def test_what_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(Unavailable, match="not a database") as told:
        SqliteStore(tmp_path / "db")
    assert "restore a backup" in told.value.hint


def test_a_directory_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        SqliteStore(tmp_path / "no" / "db")


def test_a_busy_database_is_unavailable_after_its_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db", busy=0.1)
    other = sqlite3.connect(tmp_path / "db", isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(Unavailable):
        store.commit([], [Put("/a/x", b"1")])
    other.execute("rollback")
    store.commit([], [Put("/a/x", b"1")])


def test_what_another_process_has_locked_is_not_read_behind_its_back(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "db").close()
    other = sqlite3.connect(tmp_path / "db", isolation_level=None)
    other.execute("begin exclusive")
    with pytest.raises(Unavailable, match="locked"):
        SqliteStore(tmp_path / "db", busy=0.1)
    other.execute("rollback")
    other.close()


def test_on_a_full_disk_what_was_closed_well_can_be_read(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")
    before = store.commit([], [Put("/a/x", b"1")])
    store.close()
    with full_disk():
        store = SqliteStore(tmp_path / "db")
        assert store.get("/a/x") == Entry("/a/x", b"1", before)
        with pytest.raises(Unavailable):
            store.commit([], [Put("/a/y", b"2")])
        assert [entry.key for entry in store.list("/a/")[0]] == ["/a/x"]
    store.commit([], [Put("/a/y", b"2")])  # there is room again
    assert [entry.key for entry in store.list("/a/")[0]] == ["/a/x", "/a/y"]
    store.close()
    assert SqliteStore(tmp_path / "db").get("/a/y")


def test_on_a_full_disk_nothing_that_was_committed_is_left_out(tmp_path: Path) -> None:
    """What a crash left beside the database is no part of a database that is only read."""
    store = SqliteStore(tmp_path / "db")
    store.commit([], [Put("/a/x", b"1")])
    for suffix in ("", "-wal"):
        shutil.copy(f"{tmp_path}/db{suffix}", f"{tmp_path}/copy{suffix}")
    assert (tmp_path / "copy-wal").stat().st_size
    with full_disk(), pytest.raises(Unavailable):
        SqliteStore(tmp_path / "copy")
    assert SqliteStore(tmp_path / "copy").get("/a/x")
