"""What the steps of a move are: each one commit, which holds only if nothing of it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moorline.errors import Unavailable
from moorline.fleet import keys
from moorline.fleet.host_choice import hosts_own
from moorline.fleet.plan import MoveStep, SeenMove, Side
from moorline.fleet.record_store import Book, Change, OfHost
from moorline.fleet.records import (
    Assignment,
    Bring,
    GuestOwner,
    GuestReport,
    HostRecord,
    Move,
    Role,
)
from moorline.fleet.same_ids import is_another, why_not
from moorline.model import Attachment, GuestId, Level, VolumeId
from moorline.ports.moving import Presence

_BORN = Assignment(name="", role=Role.GONE, generation=0)


@dataclass(frozen=True, slots=True)
class Place:
    """One of the two hosts, with what is wanted of it and what it reports."""

    name: str
    record: HostRecord | None
    assignment: Assignment | None
    attachments: Mapping[VolumeId, Attachment]
    report: GuestReport | None
    side: Side
    paths: Mapping[VolumeId, str]
    """Where its volumes are there, as far as that host has told."""
    kept: Sequence[str] = ()
    """Why it stays there: volumes that are that host's own."""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a step of a move is decided by."""

    move: Move
    owner: GuestOwner | None
    source: Place
    destination: Place

    @property
    def guest(self) -> GuestId:
        """Whose move it is."""
        return self.move.guest

    def seen(self) -> SeenMove:
        """As the planner sees it."""
        owner = {self.source.name: "source", self.destination.name: "destination"}.get(
            self.owner.host if self.owner else "", "other"
        )
        leaving = (row.want is Level.ABSENT for row in self.source.attachments.values())
        assignment = self.destination.assignment
        there = self.destination.side
        if self.other_path():
            there = replace(there, error="refused", ready=False)
        return SeenMove(
            self.source.side,
            there,
            owner,
            called=assignment is not None and assignment.calls > 0,
            given_up=bool(self.move.given_up),
            blocked=any(leaving),
            kept=bool(self.source.kept),
        )

    def other_path(self) -> str:
        """Which volume is at another path on the destination, where QEMU would open what is at the
        same one; '': none, as far as both hosts have told.
        """
        if not self.destination.side.ready:
            return ""  # what it told may be of an earlier stay
        for volume, here in self.source.paths.items():
            there = self.destination.paths.get(volume, "")
            if here and there and here != there:
                return f"volume {volume} is at {there} there, and at {here} on {self.source.name}"
        return ""


def place(
    guest: GuestId,
    name: str,
    record: HostRecord | None,
    desired: OfHost,
    reports: OfHost,
    *,
    silent: bool,
) -> Place:
    """Put together what is known of *guest* on one host."""
    assignment = desired.assignments.get(guest)
    attachments = desired.attachments_of(guest)
    report = reports.guests.get(guest)
    if assignment is None or report is None or report.assignment != assignment.revision:
        of_now = None
    else:
        of_now = report
    side = Side(
        assignment.role if assignment else None,
        of_now.seen if of_now else None,
        (of_now.error if of_now else "") or _refusal(guest, attachments, reports),
        all(_is_as_wanted(row, reports) for row in attachments.values()),
        silent,
        bool(record and record.fenced),
        is_another(of_now if assignment else report),
    )
    told = {volume: reports.volumes.get((guest, volume)) for volume in attachments}
    paths = {volume: report.path for volume, report in told.items() if report}
    kept = hosts_own(guest, desired, reports)
    return Place(name, record, assignment, attachments, report, side, paths, kept)


def _is_as_wanted(row: Attachment, reports: OfHost) -> bool:
    report = reports.volumes.get((row.key.guest, row.key.volume))
    return report is not None and (report.attachment, report.seen) == (row.revision, str(row.want))


def _refusal(guest: GuestId, rows: Mapping[VolumeId, Attachment], reports: OfHost) -> str:
    """``refused`` if the host refuses one of the attachments as it is wanted now."""
    for volume, row in rows.items():
        report = reports.volumes.get((guest, volume))
        if report and report.attachment == row.revision and report.error == "refused":
            return report.error
    return ""


def change_for(step: MoveStep, now: Situation, book: Book) -> Change | None:
    """Return what *step* writes; None: nothing is to be written."""
    builders = {
        MoveStep.PREPARE: _prepare,
        MoveStep.SEND: _send,
        MoveStep.CALL: _call,
        MoveStep.HAND_OVER: _hand_over,
        MoveStep.BACK: _back,
        MoveStep.FORGET: _forget,
    }
    if step not in builders or (step is not MoveStep.FORGET and now.owner is None):
        return None
    return builders[step](now, book)


def _unchanged(now: Situation) -> Change:
    """Expect all that was decided by to be as it was."""
    change = Change()
    change.expect(keys.move(now.guest), now.move)
    change.expect(keys.guest_owner(now.guest), now.owner)
    for side in (now.source, now.destination):
        change.expect(keys.assignment(side.name, now.guest), side.assignment)
        change.expect(keys.host(side.name), side.record)
    if now.source.side.role is Role.LEAVING:
        # What it promised is what it says now.
        at = keys.report(keys.assignment(now.source.name, now.guest))
        change.expect(at, now.source.report)
    return change


def _prepare(now: Situation, book: Book) -> Change:
    assert now.owner is not None
    change = _unchanged(now)
    arriving = Assignment(
        name=now.owner.name,
        role=Role.ARRIVING,
        generation=now.owner.generation,
        peer=now.source.name,
    )
    at = keys.assignment(now.destination.name, now.guest)
    change.expect(keys.report(at), now.destination.report)
    change.put(at, arriving)
    for row in now.source.attachments.values():
        _write(
            change, book, now.destination.name, replace(row, want=min(row.want, Level.CONNECTED))
        )
    return change


def _send(now: Situation, book: Book) -> Change | None:
    source, destination = now.source.assignment, now.destination.assignment
    if source is None or destination is None:
        return None
    # It may be all that is left of the guest then. Raises Unavailable: we cannot open it.
    book.definition(now.source.name, now.guest)
    change = _unchanged(now)
    at = keys.assignment(now.source.name, now.guest)
    peer = now.destination.name
    change.put(at, replace(source, role=Role.LEAVING, peer=peer, bring=_brought(now)))
    if destination.calls:  # it was called for another reason: what it said then is old
        change.put(keys.assignment(now.destination.name, now.guest), replace(destination, calls=0))
    return change


def _call(now: Situation, book: Book) -> Change | None:
    destination = now.destination.assignment
    if destination is None:
        return None
    change = _unchanged(now)
    at = keys.assignment(now.destination.name, now.guest)
    change.put(at, replace(destination, calls=destination.calls + 1))
    return change


def _hand_over(now: Situation, book: Book) -> Change:
    """The one commit after which the guest is the destination's, with all its volumes."""
    assert now.owner is not None
    change = _unchanged(now)
    _settle(change, now, now.destination, note="", peer=now.source.name)
    _lose(change, book, now, now.source, now.destination)
    for row in now.source.attachments.values():
        _write(change, book, now.destination.name, row)
    _bring_definition(change, now, book)
    change.delete(keys.move(now.guest))
    told = f"from {now.source.name}"
    change.note("hand over", now.destination.name, told, guest=now.owner.name)
    return change


def _bring_definition(change: Change, now: Situation, book: Book) -> None:
    at = keys.definition(now.destination.name, now.guest)
    try:
        definition = book.definition(now.source.name, now.guest)
    except Unavailable:  # sealed with a key that the source has had: it seals anew what it has
        if now.destination.side.state is not Presence.ARRIVED:
            raise
        change.delete(keys.definition(now.source.name, now.guest))
        return  # whoever has the guest keeps its definition
    if definition is not None:
        change.put(at, book.vault.seal(at, definition))
        change.delete(keys.definition(now.source.name, now.guest))


def _back(now: Situation, book: Book) -> Change:
    """The one commit after which the guest is the source's, and the destination cleans up."""
    assert now.owner is not None
    change = _unchanged(now)
    why = _why_back(now)
    _settle(change, now, now.source, note=why)
    _lose(change, book, now, now.destination, now.source)
    change.delete(keys.move(now.guest))
    change.note("stay", now.source.name, why, guest=now.owner.name)
    return change


def _settle(change: Change, now: Situation, home: Place, note: str, peer: str = "") -> None:
    assert now.owner is not None
    owner = replace(now.owner, host=home.name, generation=now.owner.generation + 1, note=note)
    change.put(keys.guest_owner(now.guest), owner)
    here = Assignment(
        name=owner.name,
        role=Role.HERE,
        generation=owner.generation,
        bring=_brought(now),
        peer=peer,
    )
    change.put(keys.assignment(home.name, now.guest), here)


def _lose(change: Change, book: Book, now: Situation, loser: Place, home: Place) -> None:
    """Have *loser* clean up; a host that is fenced finds this when it comes back."""
    at = keys.assignment(loser.name, now.guest)
    if loser.side.another:
        change.expect(keys.report(at), loser.report)
        _drop(change, now.guest, loser)
        return  # it did nothing, and is to do nothing to the guest that it has
    before = loser.assignment or _BORN
    assert now.owner is not None
    gone = replace(
        before,
        name=now.owner.name,
        role=Role.GONE,
        peer=home.name,
        bring=Bring.NOTHING,
        generation=now.owner.generation + 1,
        never_here=loser is now.destination,
    )
    change.put(at, gone)
    for row in loser.attachments.values():
        _write(change, book, loser.name, replace(row, want=Level.ABSENT))


def _forget(now: Situation, book: Book) -> Change:
    change = Change()
    change.delete(keys.move(now.guest), now.move)
    if now.owner is not None and now.owner.host == now.source.name and now.destination.side.another:
        noted = replace(now.owner, note=_why_back(now))
        change.replace(keys.guest_owner(now.guest), now.owner, noted)
    return change


def clean(guest: GuestId, loser: Place) -> Change | None:
    """Drop what was wanted of a host that cleaned up after it lost *guest*; None: it has not."""
    if loser.side.role is not Role.GONE or loser.assignment is None:
        return None
    gone = loser.side.state is Presence.ABSENT and loser.side.ready
    if not (gone or loser.side.another):
        return None
    change = Change()
    change.expect(keys.host(loser.name), loser.record)
    _drop(change, guest, loser)
    return change


def _drop(change: Change, guest: GuestId, loser: Place) -> None:
    change.delete(keys.assignment(loser.name, guest), loser.assignment)
    for volume, row in loser.attachments.items():
        change.delete(keys.attachment(loser.name, guest, volume), row)
    change.delete(keys.definition(loser.name, guest))


_RAN = frozenset({Presence.RUNNING, Presence.SENT, Presence.ARRIVED})


def _brought(now: Situation) -> Bring:
    """How far the guest is to be brought at its new home: as far as it was."""
    source, report = now.source.assignment, now.source.report
    if source is not None and source.role is Role.LEAVING:
        stayed = now.source.side.error and not now.source.side.fenced
        return Bring.NOTHING if stayed else source.bring
    if report is not None and (report.seen in _RAN or report.due):
        return Bring.RUNNING
    if source is not None and source.bring is not Bring.NOTHING:
        return source.bring
    return Bring.DEFINED


def _why_back(now: Situation) -> str:
    if now.move.given_up:
        return now.move.given_up
    if now.source.kept:
        return f"{now.source.name}: {now.source.kept[0]}"
    if other := now.other_path():
        return f"{now.destination.name}: {other}"
    if now.destination.side.another and now.destination.report:
        return why_not(now.destination.name, now.destination.report)
    for side, report in (
        (now.source, now.source.report),
        (now.destination, now.destination.report),
    ):
        if side.side.error:
            return f"{side.name}: {(report.message if report else '') or side.side.error}"
    return f"{now.destination.name} is silent, or fenced"


def _write(change: Change, book: Book, host: str, row: Attachment) -> None:
    at, sealed = book.sealed(row, host)
    change.put(at, sealed)
