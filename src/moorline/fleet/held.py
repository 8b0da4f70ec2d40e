"""What the guests of a host have, in one entry: who gives a volume away reads those of all hosts.

He reads the reports of those hosts alone that may name what he asks for. An entry never lacks
what its host reports: what is new is written in one commit with the report. A host that has
none (its agent is of an earlier release, or its grants are) may have anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from hashlib import sha256

from moorline.errors import Denied, Unavailable
from moorline.fleet import keys
from moorline.fleet.record_store import Book, Change, OfHost
from moorline.fleet.records import Held, VolumeReport
from moorline.model import Attachment, GuestId, VolumeId

_DIGEST_CHARACTERS = 12
"""Two that are alike by chance cost a look at reports, and no more."""
_MOST = 5000
"""Of one entry. A host with more is always asked for its reports."""
ANYTHING = "*"
"""In an entry: it names everything."""


def who_may_have(book: Book, host: str, what: Collection[str]) -> list[str]:
    """The hosts whose reports may name one of *what*; *host* is always one of them.

    *what*: what identifies a storage; see also :func:`as_own` and :func:`of_guest`.
    """
    asked = {ANYTHING, *map(digest, what)}
    held = book.held_by_hosts()
    others = {*book.hosts(), *book.enrolled()} - {host}
    unknown = others - held.keys()
    return [host, *sorted(n for n in others if n in unknown or not asked.isdisjoint(held[n]))]


def as_own(volume: VolumeId) -> str:
    """That a host has a volume by itself."""
    return f"volume:{volume}"


def of_guest(guest: GuestId) -> str:
    """That a guest has a volume by its host itself."""
    return f"guest:{guest}"


class Holding:
    """Keeps the entry of one host, whose agent alone writes it. Methods raise as the store."""

    def __init__(self, book: Book, name: str) -> None:
        self._book = book
        self._at = keys.held(name)
        self._entry: Held | None = None
        self._is_known = False
        self._name = name
        self.granted = True
        """Whether this host may write one: etcd's grants may be of an earlier release."""

    def begin(self, desired: OfHost, reports: OfHost) -> None:
        """Bring the entry to what is reported now, before anything more is."""
        if not self.granted:
            return
        named = {digest(each) for each in _named(desired, reports)}
        digests = tuple(sorted(named)) if len(named) <= _MOST else (ANYTHING,)
        try:
            if not self._is_known:
                self._entry = self._book.held(self._name)
            # What is on its way still comes too late once this is written.
            if not self._is_known or self._entry is None or self._entry.digests != digests:
                self._write(Change(), digests)
        except Denied:
            self.granted = False

    def commit(self, change: Change, named: Collection[str]) -> int:
        """Make *change*, which has a report that names this; return its revision."""
        if not self.granted:
            return self._book.commit(change)
        if self._entry is None or not self._is_known:
            raise Unavailable("nothing is reported before it is written what the reports name")
        there = {*self._entry.digests}
        missing = {digest(each) for each in named} - there
        if ANYTHING in there or not missing:
            return self._book.commit(change)
        return self._write(change, tuple(sorted(there | missing)))

    def doubt(self) -> None:
        """Read it anew: the store is not the one that it was."""
        self._is_known = False

    def drop(self) -> None:
        """This agent ends: the next may be of an earlier release, and know nothing of the entry."""
        if self._entry is not None:
            self._is_known = False
            change = Change()
            change.delete(self._at, self._entry)
            self._book.commit(change)

    def _write(self, change: Change, digests: tuple[str, ...]) -> int:
        after = Held(digests=digests)
        change.replace(self._at, self._entry, after)
        self._is_known = False  # until that is
        revision = self._book.commit(change)
        self._entry, self._is_known = replace(after, revision=revision), True
        return revision


def named_by(
    report: VolumeReport, guest: GuestId, volume: VolumeId, row: Attachment | None
) -> set[str]:
    """What a report names, but for what the attachment *row* has claimed for its volume."""
    claimed = {row.place, *row.aliases} if row else set()
    own = {as_own(volume), of_guest(guest)} if report.by_itself else set()
    return {*(set(report.places) - claimed), *own}


def _named(desired: OfHost, reports: OfHost) -> Iterator[str]:
    for of, report in reports.volumes.items():
        yield from named_by(report, *of, desired.attachments.get(of))
    for guest in reports.guests.values():
        yield from guest.written


def digest(text: str) -> str:
    """How an entry names something."""
    return sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]
