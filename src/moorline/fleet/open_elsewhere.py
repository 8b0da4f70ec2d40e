"""Who has a storage open by what hosts report, though it is in no volume's owner yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from moorline.errors import Refused
from moorline.fleet.held import as_own, who_may_have
from moorline.fleet.own_reports import way_out
from moorline.fleet.record_store import Book, OfHost
from moorline.fleet.same_ids import is_another
from moorline.model import GuestId, VolumeId


@dataclass(frozen=True, slots=True)
class Asked:
    """A storage that a guest is to get."""

    host: str
    """Where the guest is."""
    guest: GuestId
    name: str
    volume: VolumeId
    places: frozenset[str]
    """What identifies the storage."""
    shared: bool


def demand_unopened(
    book: Book, asked: Asked, dead: Collection[tuple[str, GuestId, VolumeId]]
) -> None:
    """Raise Refused if a guest has the storage as its disk of another volume, or a host has the
    volume by itself: that is in no owner yet where no controller has seen it. Or if another guest
    has it as a disk that it may write to, by somebody else's doing.

    *dead*: of what hosts had by themselves, what they write no more. Raises as the store.
    """
    local = (f"local:{place}" for place in asked.places)
    named = {*asked.places, *local, as_own(asked.volume)}
    reports = {host: book.reports(host) for host in who_may_have(book, asked.host, named)}
    _demand_no_other_volume(book, asked, reports, dead)
    _demand_no_other_disk(book, asked, reports)


def _demand_no_other_volume(
    book: Book,
    asked: Asked,
    reports: Mapping[str, OfHost],
    dead: Collection[tuple[str, GuestId, VolumeId]],
) -> None:
    for host, guest, other, report in book.told(reports):
        if other != asked.volume and not asked.places.isdisjoint(report.places):
            raise Refused(
                f"the same storage is the disk of volume {other} of {_name(book, guest)} on {host}",
                hint=way_out(host, guest, other, report)
                if report.own
                else f"moorline fleet explain {other}",
            )
        here = (asked.host, asked.guest, asked.volume)
        elsewhere = (host, guest, other) not in {here, *dead}
        shared = report.shared and asked.shared
        if other == asked.volume and report.own and elsewhere and not shared:
            raise Refused(
                f"volume {other} is not attached to {asked.name}: {host} has it by itself, for"
                f" {_name(book, guest)}",
                hint=way_out(host, guest, other, report),
            )


def _demand_no_other_disk(book: Book, asked: Asked, reports: Mapping[str, OfHost]) -> None:
    told = ((h, g, report) for h, its in reports.items() for g, report in its.guests.items())
    for host, other, report in told:
        here = host == asked.host
        its = {*asked.places, *(f"local:{place}" for place in asked.places if here)}
        same = other == asked.guest and (here or not is_another(report))
        if same or its.isdisjoint(report.written):
            continue
        record = book.host(host)
        if record is not None and record.fenced:
            continue  # that copy of the guest writes no more
        raise Refused(
            f"volume {asked.volume} is not attached: {report.name or other} has it on {host} as a"
            " disk that was not plugged by the fleet",
            hint=f"whoever plugged it takes it away; on {host}: moorline disks {other}",
        )


def _name(book: Book, guest: GuestId) -> str:
    who = book.owner(guest)
    return who.name if who else guest
