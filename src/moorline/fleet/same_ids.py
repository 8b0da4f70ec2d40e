"""Guests that only have the id of one of the fleet: told, left alone, and given nothing of it.

They are other guests, or copies of that one which somebody defined on a second host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from moorline.fleet import keys
from moorline.fleet.record_store import Book, Change, OfHost
from moorline.fleet.records import GuestOwner, GuestReport, HostRecord
from moorline.model import GuestId
from moorline.ports.moving import Presence

WAY_OUT = "give the other one a UUID of its own there: virsh dumpxml, undefine and define"
_THERE = (Presence.RUNNING, Presence.STOPPED)


def is_another(report: GuestReport | None) -> bool:
    """Whether a host that was not given the guest tells of one with its id."""
    if report is None:
        return False
    return report.another or (not report.assignment and report.seen in _THERE)


def why_not(host: str, report: GuestReport) -> str:
    """Why the guest of that id cannot come to *host*."""
    return f"{host} has another guest of that UUID, {report.name}: {WAY_OUT}"


def others(book: Book) -> Mapping[GuestId, list[str]]:
    """Of each guest of the fleet that has others of its id, where those are. Raises as the store.

    What a fenced host told of them is of no more account.
    """
    found: dict[GuestId, list[str]] = {}
    owners, hosts = book.owners(), book.hosts()
    for host, guest, report in book.guests_reported():
        elsewhere = guest in owners and owners[guest].host != host
        if elsewhere and is_another(report) and not (host in hosts and hosts[host].fenced):
            found.setdefault(guest, []).append(why_not(host, report))
    return found


def told(
    host: str, record: HostRecord, reports: OfHost, owners: Mapping[GuestId, GuestOwner]
) -> Iterator[tuple[str, Change]]:
    """Tell *host* which of its guests are other hosts' by their ids, and people, once of each."""
    now = tuple(
        sorted(
            guest
            for guest, report in reports.guests.items()
            if guest in owners and owners[guest].host != host and is_another(report)
        )
    )
    if record.fenced or now == record.same_ids:
        return
    change = Change()
    change.replace(keys.host(host), record, replace(record, same_ids=now))
    for guest in now:
        if guest not in record.same_ids:
            name, home = reports.guests[guest].name, owners[guest].host
            said = f"{name} has the UUID of a guest that the fleet has on {home}: {WAY_OUT}"
            change.note("dispute", host, said, guest=owners[guest].name)
    yield f"{host} has guests with ids of others: {len(now)}", change
