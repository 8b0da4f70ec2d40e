"""What a host's event log has, told to the fleet with the next sign of life."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from moorline.fleet import keys
from moorline.fleet.record_store import Book, Change
from moorline.fleet.records import HostEvent
from moorline.ports.results import EventLogEntry

_AT_ONCE = 32
"""Entries that one commit takes. What came between is not told the fleet: the host has it."""
News = Callable[[int, int], Sequence[EventLogEntry]]
"""The latest entries, at most so many, after the one with that id. Cheap if there are none."""


def no_news(_: int, __: int) -> Sequence[EventLogEntry]:
    """For a host that keeps no event log."""
    return ()


class EventSender:
    """Not safe from several threads."""

    def __init__(self, book: Book, host: str, news: News) -> None:
        self._book = book
        self._host = host
        self._news = news
        self._told = -1
        """The id of the last entry that the fleet has; -1: not looked up yet."""
        self._sent = 0

    def add_to(self, change: Change) -> None:
        """Have *change* tell what is new. Raises as the store."""
        if self._told < 0:
            told = self._book.events(self._host)
            self._told = max((event.id for event in told), default=0)
        self._sent = self._told
        for entry in self._news(self._told, _AT_ONCE):
            change.put(keys.event(self._host, entry.id), HostEvent(**asdict(entry)))
            self._sent = entry.id

    def done(self) -> None:
        """The change was committed."""
        self._told = self._sent
