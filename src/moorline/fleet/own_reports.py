"""What hosts report to have by themselves, for whoever asks the fleet for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from moorline.core.name_lookup import is_whole, meant
from moorline.errors import MoorlineError, NotFound, NotOurs, Refused
from moorline.fleet.held import of_guest, who_may_have
from moorline.fleet.record_store import Book
from moorline.fleet.records import VolumeReport
from moorline.model import GuestId, VolumeId


@dataclass(frozen=True, slots=True)
class OwnReport:
    """One volume of one guest that a host has without the fleet."""

    host: str
    guest: GuestId
    volume: VolumeId
    report: VolumeReport

    @property
    def way_out(self) -> str:
        """How it is let go of."""
        return way_out(self.host, self.guest, self.volume, self.report)

    @property
    def stands(self) -> str:
        """Whose it is."""
        if self.report.local:
            return f"{self.host} has it by itself, on storage that no other host has"
        return f"{self.host} has it by itself, and the fleet does not want it"


def own_reports(book: Book) -> list[OwnReport]:
    """All of them, but what the fleet has come to want there since. Raises as the store."""
    return _own(book.reported())


def own_reports_of(book: Book, home: str, guest: GuestId) -> list[OwnReport]:
    """Those of one guest, which is at *home*, on whatever host. Raises as the store."""
    reports = {host: book.reports(host) for host in who_may_have(book, home, [of_guest(guest)])}
    return [each for each in _own(book.told(reports)) if each.guest == guest]


def _own(told: Iterable[tuple[str, GuestId, VolumeId, VolumeReport]]) -> list[OwnReport]:
    return [OwnReport(*each) for each in told if each[3].by_itself]


def volume_called(book: Book, text: str, also: Collection[VolumeId] = ()) -> VolumeId | None:
    """The volume that *text* means: by its id, the beginning of a UUID, or the whole id that is
    derived of its storage. *also*: ids that others know. None: none. Raises Refused, as the store.
    """
    own = own_reports(book)
    if id := meant(text, {*book.volumes(), *(each.volume for each in own), *also}):
        return id
    place = text.casefold() if is_whole(text) else text
    had = (each.volume for each in own if place in (*each.report.places, *each.report.local))
    return book.volume_at(place) or next(had, None)


def way_out(host: str, guest: GuestId, volume: VolumeId, report: VolumeReport | None = None) -> str:
    """How a host lets go of what it has without the fleet, as it has told in *report*."""
    detach = f"moorline detach {guest} {volume}"
    if report and report.hint:  # of what was released, and is another file: that is not detached
        return f"on {host}, as `{detach}` does not take it: {report.hint}"
    return f"on {host}: {detach}"


def has_all_the_same(
    book: Book, home: str, guest: GuestId, name: str, id: VolumeId
) -> MoorlineError | None:
    """Why *guest*, which is at *home*, has the storage *id* though the fleet does not want it as
    that: by a host itself (NotOurs), or under another id (Refused). Who is told that it is no
    disk deletes the file. Raises as the store.
    """
    for own in own_reports_of(book, home, guest):
        if id not in (own.volume, *own.report.places, *own.report.local):
            continue
        record = book.host(own.host)
        if own.host != home and record is not None and record.fenced:
            continue  # that copy of the guest writes no more
        return NotOurs(
            f"volume {own.volume} is not taken from {name}: {own.host} has it by itself",
            hint=own.way_out,
        )
    volume = book.volume_at(id) or id
    wanted = [each for each in (id, volume) if book.attachment(home, guest, each) is not None]
    if volume != id and wanted == [volume]:
        return Refused(
            f"nothing is taken from {name}: that storage is volume {volume} of {name}",
            hint=f"moorline fleet detach {name} {volume}",
        )
    return None


def other_disk(
    book: Book, home: str, guest: GuestId, name: str, id: VolumeId
) -> MoorlineError | None:
    """Why it may not be said that *id* is no disk of *guest*, of which the fleet has none: it is
    one that somebody else plugged (NotOurs), or that is not known (NotFound), as *home*
    reported. Raises as the store.
    """
    report = book.guest_report(home, guest)
    if report is None or not report.looked:
        return NotFound(
            f"no volume of {name} is {id} in the fleet, and {home} has not told which other disks"
            f" {name} has",
            hint=f"{way_out(home, guest, id)}; its agent may be of an earlier release",
        )
    here = {each.path for (_, of), each in book.reports(home).volumes.items() if of == id}
    owner = book.volume_owner(id)
    names = {id.casefold(), f"local:{id}", *here, *(owner.places if owner else ())} - {""}
    if names.isdisjoint(report.others):
        return None
    return NotOurs(
        f"{name} has volume {id} as a disk on {home} that was not plugged by the fleet",
        hint=f"whoever plugged it takes it away; on {home}: moorline disks {name}",
    )
