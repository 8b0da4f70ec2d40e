"""A fleet at rest in etcd: hosts, guests and attachments, with what would be reported of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.fleet_agents import CODEC, Plain, wanted
from moorline.fleet import keys
from moorline.fleet.held import digest
from moorline.fleet.record_store import Book
from moorline.fleet.records import (
    Assignment,
    GuestOwner,
    GuestReport,
    Heartbeat,
    Held,
    HostRecord,
    Role,
    VolumeOwner,
    VolumeReport,
)
from moorline.model import GuestId, VolumeId
from moorline.ports import Put, Store
from moorline.ports.moving import Presence

WRITERS = 4
MOST_AT_ONCE = 100
"""Operations of a commit."""


@dataclass(frozen=True)
class Size:
    """How many of what."""

    hosts: int
    guests: int
    """Of each host."""
    volumes: int
    """Of each guest."""

    @property
    def attachments(self) -> int:
        """In all."""
        return self.hosts * self.guests * self.volumes

    def names(self) -> list[str]:
        """Of the hosts."""
        return [f"host{number}" for number in range(self.hosts)]

    def guests_of(self, host: str) -> list[GuestId]:
        """By id."""
        return [GuestId(f"{host}-g{number}") for number in range(self.guests)]

    def volumes_of(self, guest: GuestId) -> list[str]:
        """By id."""
        return [f"{guest}-v{number}" for number in range(self.volumes)]


def fill(store: Store, size: Size, live: Sequence[str]) -> None:
    """Write it. Those that *live* have yet to come to what is wanted, and report it themselves."""
    store.commit([], [Put(keys.EPOCH, b"1")])
    book = Book(store, CODEC, Plain())
    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(_host, book, size, h, h in live) for h in size.names()]:
            done.result()


def _host(book: Book, size: Size, host: str, live: bool) -> None:
    enrolled = f"{keys.ENROLLED}{host}"
    _write(book, [Put(keys.host(host), HostRecord().encode()), Put(enrolled, b"{}")])
    if not live:
        _write(book, [Put(keys.heartbeat(host), Heartbeat(session="s", count=1).encode())])
    guests = size.guests_of(host)
    here = {g: Assignment(name=g, role=Role.HERE, generation=1) for g in guests}
    told = [Put(keys.assignment(host, guest), each.encode()) for guest, each in here.items()]
    owned = [Put(keys.guest_owner(g), GuestOwner(host=host, name=g).encode()) for g in guests]
    revision = _write(book, told)
    _write(book, owned)
    if not live:
        reports = [(guest, _guest_report(revision, guest)) for guest in guests]
        _write(book, [Put(_report(host, guest), each.encode()) for guest, each in reports])
        named = Held(digests=tuple(sorted(map(digest, guests))))
        _write(book, [Put(keys.held(host), named.encode())])
    of = [(guest, volume) for guest in guests for volume in size.volumes_of(guest)]
    for first in range(0, len(of), MOST_AT_ONCE):
        _volumes(book, host, of[first : first + MOST_AT_ONCE], live)


def _volumes(book: Book, host: str, of: Sequence[tuple[GuestId, str]], live: bool) -> None:
    rows = [(guest, volume, wanted(volume, guest)) for guest, volume in of]
    revision = _write(book, [Put(*book.sealed(each, host)) for _, _, each in rows])
    owners = [(v, VolumeOwner(guests=(g,), place=row.place)) for g, v, row in rows]
    _write(book, [Put(keys.volume_owner(VolumeId(v)), each.encode()) for v, each in owners])
    _write(book, [Put(keys.place(row.place), volume.encode()) for _, volume, row in rows])
    if not live:
        seen = [(g, v, _seen(revision, row.place)) for g, v, row in rows]
        _write(book, [Put(f"{_report(host, g)}/{v}", each.encode()) for g, v, each in seen])


def _seen(revision: int, place: str) -> VolumeReport:
    return VolumeReport(attachment=revision, seen="attached", places=(place,), path=f"/{place}")


def _guest_report(revision: int, guest: GuestId) -> GuestReport:
    """With its own disk, which somebody else plugged."""
    return GuestReport(
        assignment=revision,
        seen=Presence.RUNNING,
        looked=True,
        others=(guest,),
        written=(guest,),
    )


def _report(host: str, guest: GuestId) -> str:
    return keys.report(keys.assignment(host, guest))


def _write(book: Book, what: list[Put]) -> int:
    return book.store.commit([], what)
