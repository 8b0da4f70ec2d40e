"""How a guest or a volume of the fleet stands: what it waits for, and what to do about that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moorline.core.name_lookup import recorded_as
from moorline.errors import NotFound
from moorline.fleet import same_ids
from moorline.fleet.host_choice import why_it_stays
from moorline.fleet.moves import Place, Situation, place
from moorline.fleet.own_reports import OwnReport, own_reports, volume_called
from moorline.fleet.plan import MoveStep, next_move_step
from moorline.fleet.record_store import Book, OfHost
from moorline.fleet.records import Bring, GuestOwner, GuestReport, Heartbeat, HostRecord, Move, Role
from moorline.fleet.results import FleetExplanation
from moorline.model import Attachment, GuestId, GuestName, Level, VolumeId
from moorline.ports.moving import Presence
from moorline.redaction import quotable

Of = tuple[str, GuestId, VolumeId]
_HOSTS = "moorline fleet hosts"
_CONTROLLER = "moorline fleet controller, on some machine, if none runs"


@dataclass(frozen=True, slots=True)
class _OnHost:
    """One host, as it is and as it reports."""

    name: str
    record: HostRecord
    heartbeat: Heartbeat | None
    desired: OfHost
    reports: OfHost

    @property
    def heard(self) -> float:
        return self.heartbeat.at if self.heartbeat else 0.0


class Explainer:
    """Explains what *book* says. Every method raises what the store raises."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._hosts: dict[str, _OnHost] = {}
        self._others = same_ids.others(book)

    def explain(self, name: str) -> list[FleetExplanation]:
        """A guest (name or id) with its volumes, or a volume (id, or the beginning of a UUID).

        Raises NotFound, Refused (several are called so).
        """
        owners = self._book.owners()
        guests = recorded_as(name, (GuestName(id, each.name) for id, each in owners.items()))
        own = self._by_themselves()
        if guests:
            its = [row for guest in sorted(guests) for row in self._guest(guest, owners[guest])]
            return [*its, *(self._own(of, own[of], owners) for of in own if of[1] in guests)]
        if volume := volume_called(self._book, name, {of[2] for of in own}):
            owner = self._book.volume_owner(volume)
            its = [
                row
                for guest in (owner.guests if owner else ())
                if guest in owners
                for row in self._guest(guest, owners[guest])
            ]
            had = (self._own(of, own[of], owners) for of in own if of[2] == volume)
            return [*(row for row in its if row.volume == volume), *had]
        if strangers := list(self._strangers(name)):
            return strangers
        raise NotFound(
            f"the fleet knows no guest and no volume {quotable(name)}",
            hint="moorline fleet guests; moorline fleet list",
        )

    def _on(self, name: str) -> _OnHost:
        if name not in self._hosts:
            record = self._book.host(name) or HostRecord()
            desired, reports = self._book.desired(name), self._book.reports(name)
            heartbeat = self._book.heartbeat(name)
            self._hosts[name] = _OnHost(name, record, heartbeat, desired, reports)
        return self._hosts[name]

    def _by_themselves(self) -> dict[Of, OwnReport | None]:
        """What hosts have by themselves. None: not any more, though its owner says so still."""
        claimed = dict.fromkeys(self._book.own_claims())
        return claimed | {(o.host, o.guest, o.volume): o for o in own_reports(self._book)}

    def _own(
        self, of: Of, own: OwnReport | None, owners: Mapping[GuestId, GuestOwner]
    ) -> FleetExplanation:
        host, guest, volume = of
        waits_for, next = "a controller that gives it free", _CONTROLLER
        if own is not None:
            waits_for = f"nothing: {own.stands}"
            next = own.way_out
            if not own.report.local:
                next = f"moorline fleet attach, to its guest; or {next}"
        return FleetExplanation(
            guest=owners[guest].name if guest in owners else guest,
            guest_id=guest,
            host=host,
            volume=volume,
            wanted="",
            seen=own.report.seen if own else "",
            waits_for=waits_for,
            heard=self._on(host).heard,
            next=next,
        )

    def _strangers(self, name: str) -> Iterator[FleetExplanation]:
        """Guests that a host reports, and that no controller has registered yet."""
        for host in map(self._on, self._book.hosts()):
            for id, report in host.reports.guests.items():
                if name in (id, report.name) and not report.assignment:
                    yield FleetExplanation(
                        guest=report.name,
                        guest_id=id,
                        host=host.name,
                        volume="",
                        wanted="",
                        seen=str(report.seen),
                        waits_for=f"a controller that registers it as a guest of {host.name}",
                        heard=host.heard,
                        next=_CONTROLLER,
                    )

    def _guest(self, guest: GuestId, owner: GuestOwner) -> Iterator[FleetExplanation]:
        """The guest on the host that has it, then its volumes, there and where it goes."""
        home, move = self._on(owner.host), self._book.move(guest)
        hosts = [home, *([self._on(move.destination)] if move else [])]
        there = {host.name: _place(guest, host) for host in hosts}
        waits_for, next = _of_guest(guest, there[home.name], owner, home)
        if move is not None:
            waits_for, next = _of_move(
                Situation(move, owner, there[home.name], there[move.destination])
            )
        goes = move or home.record.fenced or home.record.draining
        if goes and (why := self._book.unopened(home.name, guest)):
            waits_for, next = why, f"on {home.name}: systemctl restart moorline-agent"
        if others := "; ".join(self._others.get(guest, ())):
            waits_for = f"{waits_for or 'nothing'}: {others}"
            next = next or "moorline fleet guests"
        report, assignment = there[home.name].report, there[home.name].assignment
        yield FleetExplanation(
            guest=owner.name,
            guest_id=guest,
            host=home.name,
            volume="",
            wanted=_role(assignment.role if assignment else None, move),
            seen=str(report.seen) if report else "",
            waits_for=waits_for,
            heard=home.heard,
            note=owner.note,
            next=next,
        )
        for host in hosts:
            for volume, row in there[host.name].attachments.items():
                yield self._volume(owner.name, volume, row, host)

    def _volume(
        self, name: str, volume: VolumeId, row: Attachment, host: _OnHost
    ) -> FleetExplanation:
        report = host.reports.volumes.get((row.key.guest, volume))
        now = report if report and report.attachment == row.revision else None
        waits_for = next = ""
        if now is None or now.seen != str(row.want):
            waits_for, next = _unreported(host)
            if now is not None and now.message and not host.record.fenced:
                waits_for = now.message
                next = f"on {host.name}: moorline explain {volume}"
        elif row.want is Level.ABSENT:
            waits_for = "a controller, or whoever detached it, that gives it free"
            next = _CONTROLLER
        return FleetExplanation(
            guest=name,
            guest_id=row.key.guest,
            host=host.name,
            volume=volume,
            wanted=str(row.want),
            seen=now.seen if now else "",
            waits_for=waits_for,
            heard=host.heard,
            next=next,
        )


def _role(role: Role | None, move: Move | None) -> str:
    return f"{role or ''}, and to go to {move.destination}" if move else str(role or "")


def _place(guest: GuestId, host: _OnHost) -> Place:
    # Whether it is silent takes half a minute of listening; a question does not listen.
    return place(guest, host.name, host.record, host.desired, host.reports, silent=False)


def _unreported(host: _OnHost) -> tuple[str, str]:
    if host.record.fenced:
        return f"{host.name}, which is fenced: {host.record.fenced}", _HOSTS
    return f"{host.name}, which has not said anything of it yet", _HOSTS


def _of_guest(guest: GuestId, here: Place, owner: GuestOwner, host: _OnHost) -> tuple[str, str]:
    """What a guest that is on no move waits for, and what to run."""
    assignment, report = here.assignment, here.report
    if assignment is None or report is None:
        return _unreported(host)
    # What is dead says nothing of what was written since.
    if report.assignment != assignment.revision and not host.record.fenced:
        return _unreported(host)
    if host.record.fenced or host.record.draining:
        dead = bool(host.record.fenced)
        whys = why_it_stays(guest, host.desired, host.reports, dead=dead)
        why = next(iter(whys), owner.note)
        turn = "a controller that finds it another host"
        return (f"{turn}: {why}" if why else turn), _HOSTS
    if report.message:
        return report.message, f"on {host.name}: moorline events"
    if report.due or assignment.bring is Bring.RUNNING:
        return "its start: its volumes come first", f"moorline fleet list --host {host.name}"
    if assignment.bring is Bring.DEFINED:
        return f"{host.name} to define it", f"on {host.name}: moorline events"
    return "", ""


def _of_move(now: Situation) -> tuple[str, str]:
    """What a move waits for, and what to run."""
    step = next_move_step(now.seen())
    if step is not MoveStep.WAIT:
        return f"a controller, for the move's next step: {step.value}", _CONTROLLER
    source, to = now.source, now.destination
    if any(row.want is Level.ABSENT for row in source.attachments.values()) and not to.side.role:
        return "a volume that is on its way out of it", f"moorline fleet list --host {source.name}"
    if to.side.role is not Role.ARRIVING:
        return f"{to.name}, which cleans up after an earlier stay", f"on {to.name}: moorline list"
    if source.side.role is Role.LEAVING and source.side.state is not Presence.ABSENT:
        return _said(
            source.report
        ) or f"{source.name} to send it", f"on {source.name}: moorline events"
    return (
        _said(to.report) or f"{to.name}, which makes its volumes ready",
        f"moorline fleet list --host {to.name}",
    )


def _said(report: GuestReport | None) -> str:
    return report.message if report else ""
