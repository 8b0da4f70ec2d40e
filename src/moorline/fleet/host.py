"""A host's side of the fleet: follows what is wanted of it, and reports what it sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from moorline.errors import (
    Conflict,
    Failed,
    MoorlineError,
    NotFound,
    Refused,
    Unavailable,
)
from moorline.fleet import keys
from moorline.fleet.event_sender import EventSender, News, no_news
from moorline.fleet.guest_reports import GuestReports, promised
from moorline.fleet.held import Holding
from moorline.fleet.host_look import Look, Pace, pace
from moorline.fleet.host_memory import Mark, Marks
from moorline.fleet.local_volumes import LocalVolumes
from moorline.fleet.own_volumes import OwnVolumes
from moorline.fleet.plan import HostStep, next_host_step
from moorline.fleet.record_store import Book, Change
from moorline.fleet.records import (
    Assignment,
    Bring,
    Heartbeat,
    Role,
)
from moorline.fleet.start_guard import Guard
from moorline.fleet.volume_reports import VolumeReports
from moorline.model import Attachment, GuestId, Level
from moorline.ports.moving import GuestMover, Presence

_BEATS_NOTED = 12
"""Of so many signs of life one is noted: a minute's."""
_ACTIVE = frozenset({Presence.RUNNING, Presence.SENT, Presence.INCOMING, Presence.ARRIVED})
Loud = Callable[[str], None]
"""Told what people must hear of: a copy that was stopped, a guest that was lost."""


class FleetHost:
    """Takes one step for each guest and each attachment a pass. One at a time, one process a host.

    What the hypervisor has and what the fleet's store says is looked at afresh in each pass;
    the host's own store only tells what was followed here once.
    """

    def __init__(
        self,
        book: Book,
        name: str,
        session: str,
        marks: Marks,
        guard: Guard,
        volumes: LocalVolumes,
        hypervisor: GuestMover,
        boot: Callable[[], str],
        loud: Loud = lambda text: None,
        news: News = no_news,
        memory: int = 0,
    ) -> None:
        self._book = book
        self._name = name
        self._session = session
        self._marks = marks
        self._guard = guard
        self._volumes = volumes
        self._hypervisor = hypervisor
        self._boot = boot
        self._loud = loud
        self._quiet = 0
        self._beating = threading.Lock()
        self._events = EventSender(book, name, news)
        self._memory = memory
        self._holding = Holding(book, name)
        self._guests = GuestReports(book, name, self._holding, marks, volumes, hypervisor)
        self._own = OwnVolumes(name, self._holding, volumes, self._guests.refresh)
        self._reports = VolumeReports(name, self._holding)
        self._unread = 0
        self._beats = marks.beats()
        """Of this host's signs of life, so many are in the store for sure."""
        self._beaten = False
        self._others = 0
        """The revision of the last sign of life of another agent of this host."""
        self.pace = Pace.HURRIED
        """How soon the next pass is worth while, as the last one found it."""

    def advance(self) -> None:
        """Tell that this host lives, take a step for each thing that needs one, and report.

        What keeps one guest from being served keeps no other, nor does an attachment that cannot
        be read. Raises the first of that, and
        Unavailable and Uncertain where the store or the hypervisor does not answer,
        NotFound (this host is not of the fleet), Refused (the store is not the one it was).
        """
        look = self._look()
        self._guard.alive = True
        failures: list[MoorlineError] = []
        _collect(failures, partial(self._holding.begin, look.desired, look.reports))
        guests = look.desired.assignments.keys() | look.marks.keys() | look.present.keys()
        # What is another's goes first, before anything is made or started here.
        for guest in sorted(guests, key=lambda guest: (look.role(guest) is not Role.GONE, guest)):
            _collect(failures, partial(self._serve, look, guest))
        for wanted in look.desired.attachments.values():
            _collect(failures, partial(self._follow, look, wanted))
        _collect(failures, partial(self._reports.unread, look))
        _collect(failures, partial(self._own.report, look))
        _collect(failures, partial(self._tidy, look))
        self.pace = pace(look)
        if failures:
            raise failures[0]
        if not look.fenced:
            self._marks.prove(self._boot())
        if look.desired.unread:  # last: what can be read is healed all the same
            raise Unavailable(next(iter(look.desired.unread.values())).why)

    def _look(self) -> Look:
        """Beat, and look. The beat comes first: whoever fences this host expects it unchanged."""
        self.beat()
        record = self._book.host(self._name)
        if record is None:
            raise NotFound(f"{self._name} is not of this fleet", hint="moorline fleet enrol")
        look = Look(
            bool(record.fenced),
            self._book.desired(self._name, also_unread=True),
            self._book.reports(self._name),
            self._marks.guests(),
            self._hypervisor.present(),
        )
        self._demand_present()  # asked after all that is acted on was read
        self._guard.hear(record)
        self._guard.miss({of: unread.why for of, unread in look.desired.unread.items()})
        self._unread = len(look.desired.unread)
        if look.fenced:
            self._obey(look, record.revision)
        return look

    def _demand_present(self) -> None:
        """Refuse a store that was restored: what it lacks may have happened all the same."""
        now, epoch = self._book.history(), self._marks.epoch()
        unknown = now.cluster and not self._marks.cluster()
        if (not epoch and now.epoch) or (epoch == now.epoch and unknown):
            self._marks.accept(*now)
        elif not self._marks.follows(*now):
            self._holding.doubt()
            untold = "moorline fleet restored, where it is administered; " * (now.epoch == epoch)
            raise Refused(
                "the fleet's store was restored from a backup: this host follows it no more, and"
                " leaves everything as it is",
                hint=f"{untold}see what differs: moorline fleet follow --dry-run",
            )

    def beat(self) -> None:
        """Tell that this host lives. Safe to call beside :meth:`advance`. Raises as the store."""
        with self._beating:
            before = self._book.heartbeat(self._name)
            self._notice_the_past(before.count if before else 0)
            self._demand_alone(before)
            count = before.count + 1 if before else 1
            beat = Heartbeat(
                session=self._session,
                count=count,
                quiet=self._quiet,
                at=time.time(),
                memory=self._memory,
                unread=self._unread,
            )
            change = Change()
            change.replace(keys.heartbeat(self._name), before, beat)
            self._events.add_to(change)
            self._book.commit(change)
            self._beaten, self._beats = True, count
            self._events.done()
            if count % _BEATS_NOTED == 1:
                self._marks.beat(count)

    def end(self) -> None:
        """This agent follows no more. Raises as the store."""
        self._holding.drop()

    def _notice_the_past(self, count: int) -> None:
        """A store that has fewer signs of life of this host than were written was restored, though
        nobody says so, and its servers are called as before.
        """
        if count < self._beats:
            self._marks.doubt()
            self._marks.beat(count)
            self._beaten, self._beats = False, count

    def _demand_alone(self, last: Heartbeat | None) -> None:
        """Refuse to follow beside another agent that follows as this host: both would start what
        is wanted here. Its last word from before this process is none of that.
        """
        if last is None or last.session == self._session:
            return
        if self._beaten and last.revision != self._others:
            self._others = last.revision
            self._guard.alive = False
            raise Refused(
                f"another agent follows the fleet as {self._name}: this one follows it no more, and"
                " leaves everything as it is",
                hint="see where its credentials were copied to, or joined; end one of the two",
            )

    def _obey(self, look: Look, fencing: int) -> None:
        """Stop whatever copy is here: this host was given up, and its guests may be anywhere."""
        ours = look.marks.keys() | look.desired.assignments.keys()
        ours -= {guest for guest in ours if look.is_another(guest)}
        for guest in ours & look.present.keys():
            if look.presence(guest) in _ACTIVE:
                if look.role(guest) in (Role.HERE, Role.LEAVING):
                    self._marks.ask(guest)  # if it is still of this host when that is back
                self._loud(f"this host was fenced: stopping its copy of {guest}")
                self._hypervisor.stop(guest)
        look.present = self._hypervisor.present()
        if not any(look.presence(guest) in _ACTIVE for guest in ours):
            self._quiet = fencing

    def _serve(self, look: Look, guest: GuestId) -> None:
        """Take the next step for one guest, and report how it is then."""
        assignment = look.desired.assignments.get(guest)
        if assignment is None:
            if guest not in look.marks:
                self._guests.stranger(look, guest)
            return  # without a word of whose it is, it is left as it is
        if look.is_another(guest):
            self._guests.another(look, guest, assignment)
            return
        self._remember(look, guest, assignment)
        self._recall(look, guest, assignment)
        step = self._step(look, guest, assignment)
        if step is HostStep.SEND:
            # Whatever was reported before, and is on its way still, comes too late from now on.
            self._guests.served(look, guest, assignment, None, f"going to {assignment.peer}")
        error: MoorlineError | None = None
        try:
            self._act(step, look, guest, assignment)
        except MoorlineError as e:
            error = e
        if step is not HostStep.NOTHING:
            look.present = self._hypervisor.present()
        waits = _not_ready(look, guest) if _is_to_start(look, guest, assignment) else ""
        self._guests.served(look, guest, assignment, error, waits=waits)

    def _remember(self, look: Look, guest: GuestId, assignment: Assignment) -> None:
        mark = Mark(assignment.role, assignment.generation)
        if assignment.role is not Role.HERE:
            self._marks.unvouch(guest)
        if look.marks.get(guest) != mark:
            self._marks.follow(mark, guest)

    def _recall(self, look: Look, guest: GuestId, assignment: Assignment) -> None:
        """Have a guest started that ran when this host went down, if it is this host's still.

        One that runs by now, or was undefined, is not started any more when it is stopped next.
        """
        if look.presence(guest) in (Presence.RUNNING, Presence.ABSENT):
            if guest in self._marks.asked():
                self._marks.answered(guest)
            return
        report = look.reports.guests.get(guest)
        ran = report is not None and report.seen in (Presence.RUNNING, Presence.ARRIVED)
        stopped = assignment.role is Role.HERE and look.presence(guest) is Presence.STOPPED
        if ran and stopped and self._marks.proven() not in ("", self._boot()):
            self._marks.ask(guest)

    def _step(self, look: Look, guest: GuestId, assignment: Assignment) -> HostStep:
        report = look.reports.guests.get(guest)
        step = next_host_step(
            assignment.role,
            Bring.RUNNING if guest in self._marks.asked() else assignment.bring,
            look.presence(guest),
            kept=report is not None and report.definition == self._guests.digest(look, guest),
            promised=promised(report, assignment),
        )
        # What is fenced stops and cleans up, and does nothing else.
        if look.fenced and step not in (HostStep.STOP, HostStep.UNDEFINE):
            return HostStep.NOTHING
        if step is HostStep.START and _not_ready(look, guest):
            return HostStep.NOTHING
        return step

    def _act(self, step: HostStep, look: Look, guest: GuestId, assignment: Assignment) -> None:
        hypervisor = self._hypervisor
        if step is HostStep.STOP:
            name = look.present[guest].name
            self._loud(f"stopping the copy of {name} that is here: it is another host's")
            hypervisor.stop(guest)
        elif step is HostStep.UNDEFINE:
            hypervisor.undefine(guest)
        elif step is HostStep.RESUME:
            hypervisor.resume(guest)
        elif step is HostStep.START:
            self._guard.demand(guest)
            with self._volumes.giving(guest):
                hypervisor.start(guest)
            self._marks.answered(guest)
        elif step is HostStep.DEFINE:
            definition = self._book.definition(self._name, guest)
            if definition is None:
                raise Failed(f"the fleet has no definition of {guest}")
            its = {volume for of, volume in look.desired.spoken_of() if of == guest}
            hypervisor.define(guest, definition, its)
        elif step is HostStep.SEND:
            hypervisor.send(guest, assignment.peer)

    def _follow(self, look: Look, wanted: Attachment) -> None:
        """Take a step for one attachment, and report how it is then."""
        guest, volume = wanted.key.guest, wanted.key.volume
        role, absent = look.role(guest), look.presence(guest) is Presence.ABSENT
        # The guest goes before its disks do, and those of one that leaves are left alone.
        waits = role is Role.GONE and not absent
        other = look.is_another(guest)
        if look.fenced or role in (None, Role.LEAVING) or waits or other:
            return
        unborn = role is Role.HERE and absent and wanted.want > Level.ABSENT
        self._marks.follow(Mark(), guest, volume)
        served = self._volumes.serve(wanted, link_only=role is Role.ARRIVING or unborn)
        if served.as_wanted and wanted.want is Level.ABSENT:
            self._guests.refresh(look, guest)  # before it is anybody else's
        if not unborn:
            self._reports.served(look, wanted, served)

    def _tidy(self, look: Look) -> None:
        """Forget what is neither wanted nor here any more, and what was reported of it.

        What is here, and is wanted no more without having been called off, is left as it is.
        """
        volumes = self._marks.volumes()
        for guest, volume in volumes - look.desired.spoken_of():
            if not self._volumes.has(guest, volume):
                self._marks.forget(guest, volume)
        left = {guest for guest, _ in volumes}
        for guest in look.marks.keys() - look.desired.assignments.keys() - left:
            if look.presence(guest) is Presence.ABSENT:
                self._marks.answered(guest)
                self._marks.forget(guest)
        for guest in self._marks.removed():
            # As long as it is reported, a controller may register it.
            unknown = guest not in {*look.desired.assignments, *look.reports.guests}
            if guest in look.present or unknown:
                self._marks.keep(guest)
        change = Change()
        for guest, report in look.reports.guests.items():
            if guest not in look.desired.assignments and guest not in look.present:
                change.delete(keys.report(keys.assignment(self._name, guest)), report)
        if change.then:
            with suppress(Conflict):
                self._book.commit(change)


def _collect(failures: list[MoorlineError], do: Callable[[], None]) -> None:
    try:
        do()
    except MoorlineError as e:
        failures.append(e)


def _is_to_start(look: Look, guest: GuestId, assignment: Assignment) -> bool:
    wanted = assignment.role is Role.HERE and assignment.bring is Bring.RUNNING
    return wanted and look.presence(guest) is Presence.STOPPED and not look.fenced


def _not_ready(look: Look, guest: GuestId) -> str:
    """Which volume the start of *guest* waits for, and why, as was reported; '': for none.

    One that it has with another file, on a share that is known, is as its guest had it: that
    is all that is left of what the guest wrote last.
    """
    for of, unread in look.desired.unread.items():
        if of[0] == guest:
            return f"it does not start yet: volume {of[1]} cannot be read: {unread.why}"
    for volume, row in look.desired.attachments_of(guest).items():
        told = look.reports.volumes.get((guest, volume))
        now = told if told is not None and told.attachment == row.revision else None
        as_it_was = now is not None and now.other_file and bool(now.places)
        if now is None or not (now.seen == str(row.want) or as_it_was):
            why = f"is not as wanted: {now.message}" if now and now.message else "is not ready yet"
            return f"it does not start yet: volume {volume} {why}"
    return ""
