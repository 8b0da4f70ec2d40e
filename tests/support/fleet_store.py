"""The fleet's store in toy fleets: who reaches it how, and what becomes of what is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from moorline.errors import Conflict, Unavailable, Uncertain
from moorline.fleet import keys
from moorline.ports import At, Delete, Entry, Event, Put, Store
from moorline.stores.key_seal import Seal
from moorline.testing.toy_moving import WatchedFaults
from moorline.testing.toy_store import MemoryStore

BEATS = (keys.LEADER, f"{keys.ROOT}heartbeat/")
"""Signs of life."""


class PlainSeal:
    """Seals nothing: what a seal is worth is tested where it is made."""

    def seal(self, at: str, definition: bytes) -> bytes:
        return at.encode() + b"\0" + definition

    def open(self, at: str, sealed: bytes) -> bytes:
        sealed_for, _, definition = sealed.partition(b"\0")
        assert sealed_for.decode() == at, "sealed for another"
        return definition

    def fits(self, at: str, sealed: bytes) -> bool:
        return True


class Changes:
    """Tells a controller which hosts something changed of, as watches do: *late*: so many passes
    later.
    """

    def __init__(self, store: Store, late: int = 0) -> None:
        self._store = store
        self._seen: dict[str, int] | None = None
        self._told: list[Collection[str] | None] = [None] * late

    def __call__(self) -> Collection[str] | None:
        self._told.append(self._changed())
        return self._told.pop(0)

    def _changed(self) -> Collection[str] | None:
        before, self._seen = self._seen, self._now()
        if before is None:
            return None
        return {unquote(key.split("/")[3]) for key, _ in before.items() ^ self._seen.items()}

    def _now(self) -> dict[str, int]:
        prefixes = (keys.DESIRED, keys.STATUS)
        return {each.key: each.revision for at in prefixes for each in self._store.list(at)[0]}


class Line:
    """How one process reaches a store: it can be cut, and a commit can land late."""

    def __init__(self, store: Store, faults: WatchedFaults) -> None:
        self._store = store
        self._faults = faults
        self.cut = False
        self.keep_late = False
        self.late: list[tuple[Sequence[At], Sequence[Put | Delete]]] = []
        self.beats_count = True
        """Whether signs of life are effects as all others are."""

    def cluster(self) -> str:
        """Which servers answered last; the toy's have no name."""
        return getattr(self._store, "cluster", str)()

    def get(self, key: str) -> Entry | None:
        self._demand()
        return self._store.get(key)

    def list(self, prefix: str) -> tuple[list[Entry], int]:
        assert prefix.endswith("/"), prefix
        self._demand()
        return self._store.list(prefix)

    def commit(self, when: Sequence[At], then: Sequence[Put | Delete]) -> int:
        self._demand()
        assert len(then) <= 100
        assert len(when) <= 100
        done: list[int] = []

        def do() -> int:
            self._demand()
            done.append(self._store.commit(when, then))
            return done[0]

        if not self.beats_count and all(each.key.startswith(BEATS) for each in then):
            return do()
        try:
            return self._faults.effect(do)
        except Uncertain:
            if not done and self.keep_late:
                self.late.append((when, then))
            raise

    def land(self) -> None:
        """What was on its way arrives, as far as it still can."""
        for when, then in self.late:
            try:
                self._store.commit(when, then)
            except Conflict:
                continue
        self.late = []

    def watch(self, prefix: str, after: int, stop: threading.Event) -> Iterator[Event]:
        return self._store.watch(prefix, after, stop)

    def close(self) -> None:
        pass

    def _demand(self) -> None:
        if self.cut:
            raise Unavailable("the store does not answer")


@dataclass(frozen=True)
class Backing:
    """What the fleet's store is, and who may do what in it; as a toy: everybody everything."""

    store: Store
    """As one who may do everything."""
    of: Callable[[str], Store]
    """As a host."""
    seal_of: Callable[[str], Seal]
    """A host's; '': that of controllers."""
    kinds: tuple[str, ...] = ("toy",)
    """What the toy's share is called in connections."""


def toy_backing() -> Backing:
    """A store in memory, in which the hosts h1, h2, h3, … are enrolled already."""
    store = MemoryStore()
    store.commit([], [Put(keys.EPOCH, b"1")])
    return Backing(store, lambda name: store, lambda name: PlainSeal())
