"""Whether a guest may be started here: what is asked before each start, whoever starts it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from moorline.core.validation import check_reason
from moorline.deadline import Deadline
from moorline.errors import Failed, Refused, Unavailable, Uncertain
from moorline.fleet.host_memory import Marks
from moorline.fleet.record_store import Book
from moorline.fleet.records import HostRecord, Role
from moorline.fleet.restore_differences import differences
from moorline.fleet.same_ids import WAY_OUT
from moorline.fleet.unattended import VOUCHING, Told, Unattended, tell_nobody
from moorline.model import GuestId, VolumeId

ARRIVAL_SECONDS = 30.0
"""Between the word that a guest is about to come, and the start of the process that it comes to."""
_log = logging.getLogger("moorline.fleet")


class _Fenced(Refused):
    """This host may run nothing for now, and perhaps its guests are its own afterwards."""


class Guard(Unattended):
    """Lets a guest start where it is at home. What it is told is read afresh each time."""

    def __init__(
        self,
        book: Book,
        host: str,
        marks: Marks,
        boot: Callable[[], str],
        told: Told = tell_nobody,
    ) -> None:
        super().__init__(marks, boot, told)
        self._book = book
        self._host = host
        self._arrivals: dict[GuestId, Deadline] = {}
        self.alive = False
        """Whether the agent of this process was heard by the fleet: until then this host may have
        been fenced since it last was."""
        self._disputed: frozenset[str] = frozenset()
        self._same_ids: frozenset[GuestId] = frozenset()
        self._unread: frozenset[tuple[GuestId, VolumeId]] = frozenset()
        self.recorded: Callable[[], object] = lambda: None
        """Called when something was recorded by a person's word: the fleet is told at once."""

    def demand(self, guest: GuestId, vouch: str = "", *, dry_run: bool = False) -> None:
        """Raise Refused if another host has *guest*, Failed if that cannot be told now, or this
        host was fenced: it is remembered, and started when that is over. With *dry_run* it is
        not, and Failed is Unavailable, or Refused.
        """
        if not dry_run:
            self.vouch(guest, vouch)
        try:
            self._demand(guest)
        except _Fenced as e:
            if dry_run:
                raise
            self._marks.ask(guest)
            raise Failed(e.message, hint="it starts once this host is let in again") from e
        except (Unavailable, Uncertain) as e:
            if vouch or self._is_vouched(guest):
                return
            text = (
                f"guest {guest} does not start yet: it cannot be told whether another host has it"
                f" ({e.message})"
            )
            hint = f"it starts when that can be told; or say moorline start {VOUCHING} REASON"
            if dry_run:
                raise Unavailable(text, hint=hint) from e
            self._marks.ask(guest)
            raise Failed(text, hint=hint) from e

    def permit(self, guest: GuestId, *, ours: bool, arriving: bool) -> None:
        """As :meth:`demand`; a copy that comes because the fleet has the guest come may start,
        as it stays paused. What the fleet never spoke of, and has no disk of ours, may start, too.
        """
        if not ours and guest not in {*self._marks.guests(), *self._same_ids}:
            return
        if arriving:
            self._expect(guest)
            return
        arrival = self._arrivals.pop(guest, None)
        if arrival is None or arrival.over():
            self.demand(guest)

    def note(self, volume: VolumeId, why: str) -> None:
        """As :meth:`Unattended.note`."""
        super().note(volume, why)
        self.recorded()

    def may_heal(self) -> bool:
        """Whether links and disks may be made anew: the fleet was heard since this host booted.

        Until then another host may have been given what this one had.
        """
        return self._marks.proven() == self._boot()

    def follow(self, *, vouch: str = "", dry_run: bool = False) -> Sequence[str]:
        """Take the store for the one to follow, although it is not what it was.

        Return what a person should know of. Raises Refused: that is more than nothing, and
        nobody vouched for it.
        """
        if vouch:
            check_reason(vouch)
        desired, now = self._book.desired(self._host), self._book.history()
        if self._marks.follows(*now):
            return []
        found = differences(self._marks, desired)
        if dry_run:
            return found
        if found and not vouch:
            raise Refused(
                f"the store differs from what this host did since: {'; '.join(found)}",
                hint=f"see where they are now, and say {VOUCHING} REASON",
            )
        self._told(f"this host follows the fleet's store again: {vouch or 'it does not differ'}")
        self._marks.accept(*now)
        return found

    def hear(self, record: HostRecord) -> None:
        """Learn what this host has by itself, and somebody else has by the fleet's word; say so."""
        for id in sorted(set(record.same_ids) - self._same_ids):
            self._say(f"{_another(id)}: {WAY_OUT}")
        self._same_ids = frozenset(record.same_ids)
        for of in sorted(set(record.disputed) - self._disputed):
            guest, volume = of.split("/", 1)
            text = (
                f"volume {volume}, which guest {guest} has here without the fleet, is another's in"
                f" the fleet: both may write; detach it here: moorline detach {guest} {volume}"
            )
            self._say(text)
        self._disputed = frozenset(record.disputed)

    def miss(self, unread: Mapping[tuple[GuestId, VolumeId], str]) -> None:
        """Learn which attachments the fleet wants here that cannot be read, and why; say so."""
        for guest, volume in sorted(unread.keys() - self._unread):
            text = (
                f"what the fleet wants of volume {volume} of guest {guest} cannot be read here, and"
                f" nothing is done about it: {unread[guest, volume]}"
            )
            self._say(text)
        self._unread = frozenset(unread)

    def _say(self, text: str) -> None:
        _log.error("%s", text)
        self._told(text)

    def disputes(self, guest: GuestId, volume: VolumeId) -> bool:
        """Whether the attachment is this host's own, and the volume another's in the fleet."""
        return f"{guest}/{volume}" in self._disputed

    def waits(self, guest: GuestId, volume: VolumeId) -> bool:
        """Whether an attachment may not be made anew yet; one that the fleet knows not of may."""
        heard = self.may_heal() and (guest, volume) not in self._unread
        if heard or self._is_vouched(guest):
            return False
        return (guest, volume) in self._marks.volumes()

    def _expect(self, guest: GuestId) -> None:
        assignment = self._book.assignment(self._host, guest)
        self._demand_present()
        if assignment is None or assignment.role is not Role.ARRIVING:
            raise Refused(
                f"the fleet does not have guest {guest} come here",
                hint="moorline fleet migrate moves the guests of a fleet",
            )
        self._arrivals[guest] = Deadline(ARRIVAL_SECONDS)

    def _demand_present(self) -> None:
        """Raise Unavailable if all that was read until now is of a backup, and may be long ago."""
        if not self._marks.follows(*self._book.history()):
            raise Unavailable("the fleet's store was restored: what it says may be out of date")

    def _demand(self, guest: GuestId) -> None:
        if not self.alive:
            raise Unavailable(
                "the fleet has not heard this agent, or hears another one as this host"
            )
        record = self._book.host(self._host)
        assignment = self._book.assignment(self._host, guest)
        self._demand_present()
        if record is None:
            raise Refused("this host is not of the fleet any more")
        if record.fenced:
            raise _Fenced(f"this host was fenced, and is not back yet: {record.fenced}")
        others = [of for of in record.disputed if of.startswith(f"{guest}/")]
        if others:
            volume = others[0].split("/", 1)[1]
            raise Refused(
                f"guest {guest} does not start here: its volume {volume}, which this host attached"
                " without the fleet, is another's in the fleet",
                hint=f"moorline detach {guest} {volume}",
            )
        if guest in record.same_ids:
            raise Refused(_another(guest), hint=WAY_OUT)
        if assignment is None:
            raise Unavailable("the fleet has not said that it is of this host")
        if assignment.role is not Role.HERE:
            going = {Role.LEAVING: "goes to", Role.ARRIVING: "comes from"}
            where = f"{going.get(assignment.role, 'is not here but on')} {assignment.peer}"
            raise Refused(f"guest {assignment.name} does not start here: it {where}")


def _another(guest: GuestId) -> str:
    there = "the fleet has the guest of that UUID on another host"
    return f"guest {guest} does not start here: {there}"
