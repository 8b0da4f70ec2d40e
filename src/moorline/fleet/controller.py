"""The controller: looks at the whole fleet, and takes one step for each thing that needs one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from moorline.deadline import CLOCK, Clock, Deadline
from moorline.errors import Conflict, Unavailable, Uncertain
from moorline.fleet import keys, same_ids
from moorline.fleet.emptying import in_order, most_at_once, on_the_way
from moorline.fleet.host_choice import choose, lost_disks, why_it_stays
from moorline.fleet.hosts_at_rest import AtRest, Changed, is_settled
from moorline.fleet.liveness import SILENCE_SECONDS, Expiry, Leadership
from moorline.fleet.moves import Place, Situation, change_for, clean, place
from moorline.fleet.own_claims import Claims, OwnClaims
from moorline.fleet.ownership import Home, Ownership, registration
from moorline.fleet.plan import MoveStep, next_move_step
from moorline.fleet.record_store import Book, Change, OfHost
from moorline.fleet.records import Bring, GuestOwner, Heartbeat, HostRecord, Move, Role
from moorline.fleet.removed_guests import removed
from moorline.fleet.resealing import Resealing
from moorline.model import GuestId, Level
from moorline.ports.moving import Presence

KEPT_DECISIONS = 1000
_FORGETTING_SECONDS = 60.0
_MOST_FORGOTTEN = 100


@dataclass(slots=True)
class Look:
    """The fleet as it was seen in one pass."""

    hosts: dict[str, HostRecord]
    moves: dict[GuestId, Move]
    owners: dict[GuestId, GuestOwner]
    heartbeats: dict[str, Heartbeat | None]
    silent: frozenset[str]
    enrolled: dict[str, int] = field(default_factory=dict)
    desired: dict[str, OfHost] = field(default_factory=dict)
    reports: dict[str, OfHost] = field(default_factory=dict)
    due: set[str] = field(default_factory=set)
    """The hosts of which all that is wanted and reported was read; of others, see AtRest."""

    def place(self, guest: GuestId, host: str) -> Place:
        """What is known of a guest on one host."""
        return place(
            guest,
            host,
            self.hosts.get(host),
            self.desired.get(host, OfHost()),
            self.reports.get(host, OfHost()),
            silent=host in self.silent,
        )


Told = Callable[[str], None]
"""Told what is done, for people. Must neither block nor raise."""


def tell_nobody(_: str) -> None:
    """For whoever does not want to know."""


class Controller:
    """Drives moves, and what follows from them. Holds nothing but what time it saw things.

    It can be killed anywhere, and any number of them can run: each change expects that
    nothing it was decided by has changed.
    """

    def __init__(
        self,
        book: Book,
        session: str,
        clock: Clock = CLOCK,
        seconds: float = SILENCE_SECONDS,
        told: Told = tell_nobody,
        changed: Changed = lambda: None,
    ) -> None:
        self._book = book
        self._rest = AtRest(changed)
        self._heard: dict[str, Heartbeat | None] = {}
        self._expiry = Expiry(clock, seconds)
        self._leadership = Leadership(book, session, Expiry(clock, seconds))
        self._ownership = Ownership(book)
        self._own = OwnClaims(book, self._ownership)
        self._resealing = Resealing(book)
        self._told = told
        self._clock = clock
        self._next_forgetting = Deadline(0.0, clock)

    def advance(self) -> int:
        """Take one step for each thing that needs one; return how many were taken.

        Raises as the store; whatever was done by then is done.
        """
        if not self._leadership.leads():
            return 0
        self._forget_old_decisions()
        look = self.look()
        taken = 0
        for what, change in self._due(look):
            if change is not None and self._commit(change):
                self._told(what)
                taken += 1
        return taken

    def look(self) -> Look:
        """Look at all of it but hosts at rest. What is wanted of hosts is read after the moves:
        those keep it as it is. All are listened to where a host is to be chosen.
        """
        hosts = self._book.hosts()
        moves = self._book.moves()
        owners = self._book.owners()
        due = self._rest.due(hosts, moves)
        emptied = {name for name, record in hosts.items() if record.draining or record.fenced}
        chosen = any(owner.host in emptied for owner in owners.values())
        listened_to = {*hosts} if chosen else due | self._rest.listened_to(hosts)
        heartbeats = self._heartbeats(hosts, listened_to)
        silent = frozenset(name for name, each in heartbeats.items() if self._is_silent(name, each))
        enrolled = self._book.enrolled()
        look = Look(hosts, moves, owners, heartbeats, silent, enrolled, due=due)
        for name in hosts:
            if name in due:
                known = self._book.desired(name), self._book.reports(name)
                self._rest.saw(name, *known)
            else:
                known = self._rest.known(name)
            look.desired[name], look.reports[name] = known
        return look

    def _heartbeats(
        self, hosts: Collection[str], listened_to: Collection[str]
    ) -> dict[str, Heartbeat | None]:
        """The last sign of life of each, as far as was listened. Who seems silent is asked for
        once more.
        """
        before, self._heard = self._heard, {}
        for name in hosts:
            beat = before.get(name)
            if name in listened_to or name not in before or self._is_silent(name, beat):
                beat = self._book.heartbeat(name)
            self._heard[name] = beat
        return self._heard

    def _is_silent(self, name: str, heartbeat: Heartbeat | None) -> bool:
        revision = heartbeat.revision if heartbeat else 0
        return self._expiry.expired(keys.heartbeat(name), revision)

    def _commit(self, change: Change) -> bool:
        try:
            self._book.commit(change)
        except (Conflict, Uncertain):
            return False  # the next pass looks again
        return True

    def _forget_old_decisions(self) -> None:
        if not self._next_forgetting.over():
            return
        self._next_forgetting = Deadline(_FORGETTING_SECONDS, self._clock)
        for key in list(self._book.decisions())[:-KEPT_DECISIONS][:_MOST_FORGOTTEN]:
            change = Change()
            change.delete(key)
            self._commit(change)

    def _due(self, look: Look) -> Iterator[tuple[str, Change | None]]:
        for host in look.enrolled.keys() - look.hosts.keys():
            change = Change()
            change.replace(keys.host(host), None, HostRecord())
            yield f"{host} is of the fleet", change
        for host, revision in look.enrolled.items():
            beat = look.heartbeats.get(host)
            yield from self._resealing.due(host, revision, beat.unread if beat else 0)
        for guest, move in look.moves.items():
            yield self._of_move(look, guest, move)
        claims = self._book.own_claims()
        for host in look.hosts:
            if host in look.due:
                yield from self._of_due(look, host, claims)
        if self._rest.is_complete(look.hosts):
            yield from self._new_moves(look)

    def _of_due(self, look: Look, host: str, claims: Claims) -> Iterator[tuple[str, Change | None]]:
        known = look.hosts[host], look.desired[host], look.reports[host]
        settled = is_settled(*known)
        due = chain(
            same_ids.told(host, look.hosts[host], look.reports[host], look.owners),
            self._own.due(host, *known, claims),
            self._of_host(look, host),
        )
        for what, change in due:
            settled = settled and change is None
            yield what, change
        if settled:
            self._rest.rests(host)

    def _of_move(self, look: Look, guest: GuestId, move: Move) -> tuple[str, Change | None]:
        now = Situation(
            move,
            look.owners.get(guest),
            look.place(guest, move.source),
            look.place(guest, move.destination),
        )
        step = next_move_step(now.seen())
        what = f"{move.source} to {move.destination}: guest {guest}: {step.value}"
        if step is MoveStep.WAIT:
            return what, None
        try:
            return what, change_for(step, now, self._book)
        except Unavailable:  # one definition that cannot be opened keeps no other guest
            return what, None

    def _of_host(self, look: Look, host: str) -> Iterator[tuple[str, Change | None]]:
        record = look.hosts[host]
        yield f"{host} is back", _returned(host, record, look.heartbeats[host])
        for guest, assignment in look.desired[host].assignments.items():
            here = look.place(guest, host)
            if assignment.role is Role.GONE:
                yield f"{host} is without guest {guest}", clean(guest, here)
            if assignment.role is Role.HERE:
                yield f"guest {guest} was removed on {host}", removed(look, guest, here)
                yield f"guest {guest} is as wanted on {host}", _settled(guest, here)
                self._release(look, guest, here)
                yield from self._claims(look, host, guest)
        if record.fenced or host in look.silent:
            return
        for guest, report in look.reports[host].guests.items():
            if not report.assignment and guest not in look.owners:
                here_now = registration(self._book, host, guest, report)
                yield f"guest {guest} is of {host}", here_now

    def _claims(self, look: Look, host: str, guest: GuestId) -> Iterator[tuple[str, Change | None]]:
        """Have each volume of *guest* own the file that is its disk, too."""
        rows = look.desired[host].attachments
        for (of, volume), report in look.reports[host].volumes.items():
            row = rows.get((of, volume))
            claimed = {row.place} if row else set()  # with the attachment: no question to the store
            if of == guest and not claimed.issuperset(report.places):
                change = self._ownership.claim(guest, volume, report.places)
                yield f"volume {volume} has another file, too", change

    def _release(self, look: Look, guest: GuestId, here: Place) -> None:
        for volume, row in here.attachments.items():
            if row.want is Level.ABSENT and here.assignment and guest in look.owners:
                home = Home(guest, look.owners[guest], here.assignment)
                self._ownership.release(home, volume)

    def _new_moves(self, look: Look) -> Iterator[tuple[str, Change | None]]:
        """Have guests leave hosts that are drained, or evacuated."""
        for host, record in look.hosts.items():
            if not (record.draining or record.fenced):
                continue
            under_way = on_the_way(host, look)
            staying = {
                guest: owner
                for guest, owner in look.owners.items()
                if owner.host == host and guest not in look.moves
            }
            for guest in in_order(record, staying):
                if under_way >= most_at_once(record):
                    break
                what, change = self._new_move(look, guest, host, record)
                under_way += change is not None  # one that stays keeps no other
                yield what, change

    def _new_move(
        self, look: Look, guest: GuestId, host: str, record: HostRecord
    ) -> tuple[str, Change | None]:
        known = look.desired[host], look.reports[host]
        if whys := why_it_stays(guest, *known, dead=bool(record.fenced)):
            return f"guest {guest} stays on {host}: {whys[0]}", None
        if record.fenced and (why := self._book.unopened(host, guest)):
            return f"guest {guest} stays on {host}: {why}", None
        destination = choose(guest, host, look)
        if destination is None:
            return f"guest {guest} has nowhere to go", None
        why = record.fenced or f"{host} is drained"
        move = Move(guest=guest, source=host, destination=destination, why=why, by=record.fenced_by)
        change = Change()
        change.expect(keys.guest_owner(guest), look.owners[guest])
        change.expect(keys.host(host), record)
        change.replace(keys.move(guest), None, move)
        look.moves[guest] = move  # the next one that is chosen for in this pass comes beside it
        lost = ", ".join(lost_disks(guest, *known))
        gone = f"; what it wrote last is not in its disk: {lost}" if lost else ""
        told = f"to {destination}: {why}{gone}"
        change.note("migrate", host, told, guest=look.owners[guest].name)
        return f"guest {guest} goes from {host} to {destination}{gone}", change


def _returned(host: str, record: HostRecord, heartbeat: Heartbeat | None) -> Change | None:
    """Let a host that was fenced be one of the fleet again, once no copy runs there any more."""
    if not record.fenced or heartbeat is None or heartbeat.quiet != record.revision:
        return None
    change = Change()
    back = replace(
        record,
        fenced="",
        fenced_by="",
        fenced_at=0.0,
        cordoned=True,
        draining=False,
        first=(),
        at_once=0,
    )
    change.replace(keys.host(host), record, back)
    change.note("return", host, f"it was fenced: {record.fenced}")
    return change


def _settled(guest: GuestId, here: Place) -> Change | None:
    """What was to be brought once was brought: from now on its users have the word."""
    enough = {
        Bring.RUNNING: {Presence.RUNNING},
        Bring.DEFINED: {Presence.STOPPED, Presence.RUNNING},
        Bring.NOTHING: set(),
    }
    assignment = here.assignment
    if assignment is None or here.side.state not in enough[assignment.bring]:
        return None
    change = Change()
    change.replace(
        keys.assignment(here.name, guest), assignment, replace(assignment, bring=Bring.NOTHING)
    )
    return change
