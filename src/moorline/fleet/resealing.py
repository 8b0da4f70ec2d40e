"""What was sealed for a host's earlier keys is sealed anew, for the ones that it has now."""

from __future__ import annotations

from collections.abc import Iterator

from moorline.errors import Refused, Unavailable
from moorline.fleet import keys
from moorline.fleet.record_store import Book, Change
from moorline.ports import At, Entry


class Resealing:
    """What a controller does about it: it can open what it, or the host, has sealed.

    A host's entries are looked through when it was enrolled since, and while it says that it
    cannot read some: not in each pass, as they are many.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._done: dict[str, int] = {}

    def due(self, host: str, enrolled: int, unread: int) -> Iterator[tuple[str, Change]]:
        """*enrolled*: the revision at which it was, last; *unread*: what it cannot read."""
        if not unread and self._done.get(host) == enrolled:
            return
        through = True
        try:
            for key, change in self._changes(host):
                through = False  # until it is found done
                yield f"{key} is sealed for the keys that {host} has now", change
        except Refused:
            pass  # it was revoked: nothing is for it
        if through:
            self._done[host] = enrolled

    def _changes(self, host: str) -> Iterator[tuple[str, Change]]:
        book = self._book
        wanted = keys.desired(host)
        for entry in book.store.list(wanted)[0]:
            is_volume = len(keys.below(wanted, entry.key)) > 1
            if is_volume and not book.codec.fits(entry):
                row = book.codec.decode(entry)
                yield entry.key, _anew(entry, book.codec.encode(entry.key, row))
        for entry in book.store.list(keys.definitions(host))[0]:
            if not book.vault.fits(entry.key, entry.value):
                try:
                    text = book.vault.open(entry.key, entry.value)
                except Unavailable:
                    continue  # the host sealed it, with its earlier key: it does so anew itself
                yield entry.key, _anew(entry, book.vault.seal(entry.key, text))


def _anew(entry: Entry, sealed: bytes) -> Change:
    change = Change()
    change.when[entry.key] = At(entry.key, entry.revision)
    change.put(entry.key, sealed)
    return change
