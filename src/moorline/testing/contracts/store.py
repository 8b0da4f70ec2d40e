"""What every store keeps: subclass, and give the fixture ``store``."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from moorline.deadline import Deadline
from moorline.errors import Compacted, Conflict
from moorline.ports import At, Delete, Event, Put, Store


class StoreContract:
    """The contract of :class:`moorline.ports.Store`.

    The fixture ``store`` gives a fresh, empty store. Where the engine can be
    opened twice, ``reopen`` gives a function that returns another client of
    the same data; the default skips what needs it.
    """

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def reopen(self) -> Callable[[], Store]:
        pytest.skip("this engine has no second client")

    def test_an_empty_store_has_nothing(self, store: Store) -> None:
        assert store.get("/a/x") is None
        assert store.list("/a/")[0] == []

    def test_a_commit_is_read_back_with_its_revision(self, store: Store) -> None:
        revision = store.commit([], [Put("/a/x", b"1"), Put("/a/y", b"2")])
        assert [(e.key, e.value, e.revision) for e in store.list("/a/")[0]] == [
            ("/a/x", b"1", revision),
            ("/a/y", b"2", revision),
        ]
        assert store.list("/a/")[1] >= revision

    def test_revisions_only_grow(self, store: Store) -> None:
        revisions = [store.commit([], [Put("/a/x", bytes([i]))]) for i in range(5)]
        assert revisions == sorted(set(revisions))

    def test_a_prefix_ends_in_a_slash_and_takes_no_neighbours(self, store: Store) -> None:
        store.commit([], [Put("/a/x", b""), Put("/ab/x", b""), Put("/a0", b""), Put("/a./y", b"")])
        assert [e.key for e in store.list("/a/")[0]] == ["/a/x"]

    def test_keys_are_ordered_bytewise(self, store: Store) -> None:
        keys = ["/a/Z", "/a/a", "/a/a/b", "/a/ä", "/a/~", "/a/-"]
        store.commit([], [Put(key, b"") for key in keys])
        assert [e.key for e in store.list("/a/")[0]] == sorted(keys, key=str.encode)

    def test_values_are_opaque(self, store: Store) -> None:
        value = bytes(range(256)) * 1024
        store.commit([], [Put("/a/x", value)])
        entry = store.get("/a/x")
        assert entry is not None
        assert entry.value == value

    def test_create_needs_absence(self, store: Store) -> None:
        first = store.commit([At("/a/x", 0)], [Put("/a/x", b"1")])
        with pytest.raises(Conflict) as conflict:
            store.commit([At("/a/x", 0)], [Put("/a/x", b"2")])
        assert conflict.value.current["/a/x"].revision == first
        entry = store.get("/a/x")
        assert entry is not None
        assert entry.value == b"1"

    def test_a_replaced_entry_rejects_the_old_revision(self, store: Store) -> None:
        old = store.commit([], [Put("/a/x", b"1")])
        new = store.commit([At("/a/x", old)], [Put("/a/x", b"2")])
        for then in (Put("/a/x", b"3"), Delete("/a/x")):
            with pytest.raises(Conflict):
                store.commit([At("/a/x", old)], [then])
        store.commit([At("/a/x", new)], [Delete("/a/x")])
        assert store.get("/a/x") is None

    def test_a_conflict_changes_nothing_at_all(self, store: Store) -> None:
        store.commit([], [Put("/a/x", b"1")])
        before = store.list("/a/")
        with pytest.raises(Conflict):
            store.commit([At("/a/x", 0)], [Put("/a/y", b"2"), Delete("/a/x")])
        assert store.list("/a/") == before

    def test_deleting_what_is_absent_is_success(self, store: Store) -> None:
        store.commit([], [Delete("/a/never")])
        assert store.get("/a/never") is None

    def test_a_deleted_key_can_be_made_again(self, store: Store) -> None:
        store.commit([], [Put("/a/x", b"1")])
        store.commit([], [Delete("/a/x")])
        store.commit([At("/a/x", 0)], [Put("/a/x", b"2")])
        assert len(store.list("/a/")[0]) == 1

    def test_a_key_twice_in_a_commit_is_a_mistake(self, store: Store) -> None:
        with pytest.raises(ValueError, match="twice"):
            store.commit([], [Put("/a/x", b"1"), Delete("/a/x")])

    def test_a_commit_has_bounds(self, store: Store) -> None:
        keys = [f"/a/{i:03}" for i in range(101)]
        largest = b"x" * (256 << 10)
        store.commit([At(key, 0) for key in keys[:100]], [Put(key, b"") for key in keys[:100]])
        store.commit([], [Put(key, largest) for key in keys[:4]])
        before = store.list("/a/")
        for when, then in (
            ([At(key, 0) for key in keys], [Delete("/a/000")]),
            ([], [Delete(key) for key in keys]),
            ([], [Put(key, largest) for key in keys[:5]]),
            ([], [Put("/a/x", largest + b"x")]),
        ):
            with pytest.raises(ValueError, match=r"more than|larger than"):
                store.commit(when, then)
        assert store.list("/a/") == before

    def test_a_prefix_without_a_slash_is_a_mistake(self, store: Store) -> None:
        """It would have the entries of host ``h10`` among those of ``h1``."""
        with pytest.raises(ValueError, match="ends in"):
            store.list("/a")
        with pytest.raises(ValueError, match="ends in"):
            next(iter(store.watch("/a", 0, threading.Event())))

    def test_one_of_many_racing_writers_wins_each_round(self, store: Store) -> None:
        revision = store.commit([], [Put("/a/x", b"0")])
        won: list[int] = []

        def race() -> None:
            try:
                store.commit([At("/a/x", revision)], [Put("/a/x", b"1")])
                won.append(1)
            except Conflict:
                pass

        threads = [threading.Thread(target=race) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [1]

    def test_a_watch_tells_what_came_after(self, store: Store) -> None:
        _, after = store.list("/a/")
        store.commit([], [Put("/a/x", b"1"), Put("/b/x", b"-")])
        store.commit([], [Put("/a/y", b"2")])
        store.commit([], [Delete("/a/x")])
        assert watch(store, "/a/", after) == {"/a/x": None, "/a/y": b"2"}

    def test_a_watch_tells_what_comes_while_it_waits(self, store: Store) -> None:
        _, after = store.list("/a/")
        timer = threading.Timer(0.1, lambda: store.commit([], [Put("/a/x", b"late")]))
        timer.start()
        assert watch(store, "/a/", after) == {"/a/x": b"late"}
        timer.join()

    def test_a_watch_from_the_future_is_compacted(self, store: Store) -> None:
        with pytest.raises(Compacted):
            next(iter(store.watch("/a/", 10**9, threading.Event())))

    def test_a_stopped_watch_ends(self, store: Store) -> None:
        stop = threading.Event()
        threading.Timer(0.1, stop.set).start()
        assert [e for e in store.watch("/a/", store.list("/a/")[1], stop) if e.key] == []

    def test_another_client_sees_and_is_seen(
        self, store: Store, reopen: Callable[[], Store]
    ) -> None:
        revision = store.commit([], [Put("/a/x", b"1")])
        other = reopen()
        entry = other.get("/a/x")
        assert entry is not None
        assert entry.revision == revision
        _, after = store.list("/a/")
        other.commit([], [Put("/a/x", b"2")])
        assert watch(store, "/a/", after) == {"/a/x": b"2"}
        other.close()


def watch(store: Store, prefix: str, after: int) -> dict[str, bytes | None]:
    """Return the last state of each key that a watch told, once it told something."""
    stop = threading.Event()
    last: dict[str, bytes | None] = {}
    deadline = Deadline(10)
    for event in store.watch(prefix, after, stop):
        _note(last, event)
        if (last and not event.key) or deadline.over():
            stop.set()
    return last


def _note(last: dict[str, bytes | None], event: Event) -> None:
    if event.key:
        last[event.key] = event.entry.value if event.entry else None
