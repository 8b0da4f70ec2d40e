"""The seam to the store: a small ordered map with atomic conditional commits."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from moorline.model import Attachment


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored value; *revision* is that of the last commit that wrote it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class At:
    """Demands that *key* is still at *revision* (0: that it does not exist)."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a key. *entry* None: deleted. *key* '': all up to *revision* is told."""

    revision: int
    key: str
    entry: Entry | None


class Store(Protocol):
    """A small ordered map with atomic conditional commits.

    Keys are ``/``-separated UTF-8, ordered bytewise; prefixes end in ``/``.
    Values are opaque, at most 256 KiB. Each commit that succeeds has one
    revision, greater than all before it; gaps are legal. A commit is atomic,
    linearizable, durable when it returns, of at most 100 operations and 1 MiB
    of values, and names a key at most once. One that changes nothing (it deletes
    what is absent) may return the revision of the last that did.

    All methods may block for the engine's time-out, and raise Unavailable
    (nothing changed), Denied, or, from commit alone, Conflict (nothing
    changed) and Uncertain (it may have been applied, or may be yet: read again).

    A commit that was uncertain can be applied late, for as long as all of its
    *when* holds. So name in *when* what the commit was decided on, always: then
    whoever writes next decides which of the two is done.
    """

    def get(self, key: str) -> Entry | None: ...

    def list(self, prefix: str) -> tuple[list[Entry], int]:
        """One snapshot of all entries below *prefix*, in order, and its revision."""

    def commit(self, when: Sequence[At], then: Sequence[Put | Delete]) -> int:
        """Apply *then* if all of *when* holds; return the new revision."""

    def watch(self, prefix: str, after: int, stop: threading.Event) -> Iterator[Event]:
        """Tell each change after revision *after*, in order, until *stop* is set.

        Intermediate states may be skipped, a final one never. Raises Compacted.
        """

    def close(self) -> None: ...


class AttachmentCodec(Protocol):
    """Attachments to bytes and back ."""

    def encode(self, at: str, attachment: Attachment) -> bytes: ...

    def decode(self, entry: Entry) -> Attachment: ...

    def fits(self, entry: Entry) -> bool:
        """Whether it is sealed for all who are to read it now."""
        ...
