"""What can be asked of the fleet: where its guests and volumes are. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from moorline.core.name_lookup import recorded_as
from moorline.errors import NotFound
from moorline.fleet import same_ids
from moorline.fleet.explaining import Explainer
from moorline.fleet.host_choice import why_it_stays
from moorline.fleet.own_reports import OwnReport, own_reports, volume_called
from moorline.fleet.record_store import Book, OfHost
from moorline.fleet.records import HostEvent, HostRecord, Role
from moorline.fleet.results import FleetEvent, FleetExplanation, FleetView, GuestView, HostView
from moorline.model import GuestName, VolumeId
from moorline.redaction import quotable


class Queries:
    """Looks at the fleet. Every method raises what the store raises."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def hosts(self) -> list[HostView]:
        """Every host, and what is on it; also those that no controller has taken in yet."""
        records = dict.fromkeys(self._book.enrolled(), HostRecord()) | self._book.hosts()
        return [self._host_view(name, record) for name, record in sorted(records.items())]

    def guests(self) -> list[GuestView]:
        """Every guest, and where it is."""
        moves, hosts = self._book.moves(), self._book.hosts()
        others = same_ids.others(self._book)
        emptied = {
            name: (self._book.desired(name), self._book.reports(name), bool(record.fenced))
            for name, record in hosts.items()
            if record.fenced or record.draining
        }
        views = []
        beats = {host: self._book.heartbeat(host) for host in hosts}
        gone = {host for host, beat in beats.items() if beat and beat.left}
        for guest, owner in self._book.owners().items():
            report = self._book.guest_report(owner.host, guest)
            move = moves.get(guest)
            stays: list[str] = []
            if owner.host in emptied and guest not in moves:
                desired, reports, dead = emptied[owner.host]
                stays = why_it_stays(guest, desired, reports, dead=dead)
            if (owner.host in emptied or move) and (why := self._book.unopened(owner.host, guest)):
                stays = [*stays, why]
            note = "; ".join(stays) or (report.message if report else "") or owner.note
            left = [f"{owner.host} left the fleet, and has it by itself"] * (owner.host in gone)
            note = "; ".join(filter(None, [note, *left, *others.get(guest, ())]))
            seen = str(report.seen) if report else ""
            to = move.destination if move else ""
            where = owner.host, owner.generation
            views.append(GuestView(owner.name, guest, *where, seen, to, note))
        return views

    def attachments(self, host: str | None = None, guest: str | None = None) -> list[FleetView]:
        """Every attachment, or those of one host, of the guests of one name or id; also those
        that hosts have by themselves.

        Raises NotFound: the fleet knows no such host or guest.
        """
        if host is not None and self._book.host(host) is None:
            raise NotFound(f"there is no host {host} in the fleet", hint="moorline fleet hosts")
        names = [host] if host is not None else list(self._book.hosts())
        if guest is None:
            return [view for name in names for view in self._views(name)]
        known = [GuestName(id, owner.name) for id, owner in self._book.owners().items()]
        its = recorded_as(guest, known)
        if not its:
            raise NotFound(f"the fleet knows no guest {guest}", hint="moorline fleet guests")
        return [view for name in names for view in self._views(name) if view.guest_id in its]

    def show(self, volume: str) -> list[FleetView]:
        """The attachments of a volume, by its id or the beginning of a UUID. Raises NotFound."""
        own = own_reports(self._book)
        id = volume_called(self._book, volume)
        owner = self._book.volume_owner(id) if id else None
        homes = (self._book.owner(guest) for guest in (owner.guests if owner else ()))
        hosts = [home.host for home in homes if home]
        hosts += [each.host for each in own if each.volume == id]
        found = [v for host in dict.fromkeys(hosts) for v in self._views(host) if v.volume == id]
        if not found:
            raise NotFound(
                f"the fleet knows no volume {quotable(volume)}", hint="moorline fleet list"
            )
        return found

    def explain(self, name: str) -> list[FleetExplanation]:
        """How a guest (name or id) and its volumes stand, or a volume (as of :meth:`show`).

        Raises NotFound.
        """
        return Explainer(self._book).explain(name)

    def events(
        self,
        host: str | None = None,
        *,
        guest: str = "",
        volume: str = "",
        since: float = 0.0,
        most: int = 1000,
    ) -> list[FleetEvent]:
        """The latest *most* of what was done, seen and decided, oldest first.

        Each is told with the time of the host where it was. Only those of *host*, of *guest*
        (name or id), of *volume* (as of :meth:`show`), not before *since* (seconds since the
        epoch). Raises NotFound.
        """
        names = [host] if host is not None else list(self._book.hosts())
        if host is not None and self._book.host(host) is None:
            raise NotFound(f"there is no host {host} in the fleet", hint="moorline fleet hosts")
        told = [
            FleetEvent(**_fields(event), host=name)
            for name in names
            for event in self._book.events(name)
        ]
        told += [
            FleetEvent(0, d.at, d.step, "done", guest=d.guest, message=d.message, host=d.host)
            for d in self._book.decisions().values()
            if d.host in names
        ]
        if guest:
            its = self._called(guest, told)
            told = [event for event in told if event.guest in its]
        if volume:
            id = volume_called(self._book, volume, {VolumeId(e.volume) for e in told})
            if id is None:
                raise NotFound(f"the fleet knows no volume {quotable(volume)}, nor is it told of")
            told = [event for event in told if event.volume == id]
        told = [event for event in told if event.at >= since]
        return sorted(told, key=lambda event: (event.at, event.host, event.id))[-most:]

    def _called(self, guest: str, told: list[FleetEvent]) -> set[str]:
        """What a guest is called in events. Raises NotFound."""
        owners = self._book.owners()
        found = recorded_as(guest, (GuestName(id, each.name) for id, each in owners.items()))
        its = {guest, *found, *(owners[id].name for id in found)}
        if not found and not any(event.guest == guest for event in told):
            raise NotFound(f"the fleet knows no guest {guest}, nor is it told of")
        return its

    def _host_view(self, name: str, record: HostRecord) -> HostView:
        heartbeat, desired = self._book.heartbeat(name), self._book.desired(name)
        left = heartbeat is not None and heartbeat.left
        by_role: dict[Role, list[str]] = {role: [] for role in Role}
        for assignment in desired.assignments.values():
            by_role[assignment.role].append(assignment.name)
        return HostView(
            host=name,
            heard=heartbeat.at if heartbeat else 0.0,
            cordoned=record.cordoned,
            draining=record.draining,
            fenced=record.fenced,
            fenced_by=record.fenced_by,
            guests=[] if left else by_role[Role.HERE] + by_role[Role.LEAVING],
            arriving=[] if left else by_role[Role.ARRIVING],
            leaving=[] if left else by_role[Role.LEAVING],
            volumes=0 if left else len(desired.attachments),
            left=left,
            unread=heartbeat.unread if heartbeat else 0,
        )

    def _views(self, host: str) -> list[FleetView]:
        desired, reports = self._book.desired(host), self._book.reports(host)
        views = []
        for (guest, volume), row in desired.attachments.items():
            assignment = desired.assignments.get(guest)
            report = reports.volumes.get((guest, volume))
            now = report if report and report.attachment == row.revision else None
            views.append(
                FleetView(
                    volume,
                    assignment.name if assignment else guest,
                    guest,
                    host,
                    str(row.want),
                    now.seen if now else "",
                    now.error if now else "",
                    now.message if now else "",
                )
            )
        views = [*views, *self._own_views(host, desired, reports)]
        beat = self._book.heartbeat(host) if views else None
        if beat is None or not beat.left:
            return views
        left = f"{host} left the fleet, and this is what it told last"
        return [replace(v, message=f"{left}: {v.message}" if v.message else left) for v in views]

    def _own_views(self, host: str, desired: OfHost, reports: OfHost) -> Iterator[FleetView]:
        """What the host has by itself."""
        its = {
            of: report
            for of, report in reports.volumes.items()
            if report.by_itself and of not in desired.attachments
        }
        record = self._book.host(host) if its else None
        for (guest, volume), report in its.items():
            own = OwnReport(host, guest, volume, report)
            there = desired.assignments.get(guest) or reports.guests.get(guest)
            disputed = record is not None and f"{guest}/{volume}" in record.disputed
            stands = f"{host} has it by itself, and it is another's" if disputed else own.stands
            yield FleetView(
                volume,
                there.name if there else guest,
                guest,
                host,
                wanted="",
                seen=report.seen,
                error="notours" if disputed else "",
                message=f"{stands}: {own.way_out}",
            )


def _fields(event: HostEvent) -> dict[str, Any]:
    return {name: value for name, value in asdict(event).items() if name != "revision"}
