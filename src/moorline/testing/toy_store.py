"""A store in memory, with the real ones' manners."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from moorline.errors import Compacted, Conflict
from moorline.ports import At, Delete, Entry, Event, Put
from moorline.ports.limits import prefix_ends, within_limits
from moorline.testing.faults import Faults


class MemoryStore:
    """The store contract on a dictionary; its commits are effects."""

    def __init__(self, faults: Faults | None = None) -> None:
        self._faults = faults or Faults()
        self._entries: dict[str, Entry] = {}
        self._gone: dict[str, int] = {}
        self._revision = 0
        self._compacted = 0
        self._changed = threading.Condition(threading.RLock())

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def list(self, prefix: str) -> tuple[list[Entry], int]:
        prefix_ends(prefix)
        with self._changed:
            keys = sorted(key for key in self._entries if key.startswith(prefix))
            return [self._entries[key] for key in keys], self._revision

    def commit(self, when: Sequence[At], then: Sequence[Put | Delete]) -> int:
        within_limits(when, then)
        with self._changed:
            current = {at.key: self._entries.get(at.key) for at in when}
            lost = [at for at in when if _revision(current[at.key]) != at.revision]
            if lost:
                raise Conflict(
                    "changed meanwhile", current={at.key: current[at.key] for at in lost}
                )
            return self._faults.effect(lambda: self._apply(then))

    def watch(self, prefix: str, after: int, stop: threading.Event) -> Iterator[Event]:
        prefix_ends(prefix)
        while not stop.is_set():
            with self._changed:
                if not self._compacted <= after <= self._revision:
                    raise Compacted(f"revision {after} is not known")
                events = self._since(prefix, after)
                if self._revision == after:
                    self._changed.wait(0.05)
                    continue
                after = self._revision
            yield from events
            yield Event(after, "", None)

    def close(self) -> None:
        pass

    def _since(self, prefix: str, after: int) -> Sequence[Event]:
        puts = [Event(e.revision, key, e) for key, e in self._entries.items()]
        gone = [Event(revision, key, None) for key, revision in self._gone.items()]
        news = [e for e in puts + gone if e.revision > after and e.key.startswith(prefix)]
        return sorted(news, key=lambda event: (event.revision, event.key))

    def _apply(self, then: Sequence[Put | Delete]) -> int:
        self._revision += 1
        for operation in then:
            if isinstance(operation, Put):
                entry = Entry(operation.key, operation.value, self._revision)
                self._entries[operation.key] = entry
                self._gone.pop(operation.key, None)
            elif self._entries.pop(operation.key, None):
                self._gone[operation.key] = self._revision
        self._changed.notify_all()
        return self._revision


def _revision(entry: Entry | None) -> int:
    return entry.revision if entry else 0
