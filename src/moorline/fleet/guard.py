"""Whether a guest may be started here: what is asked before each start, whoever starts it."""

from __future__ import annotations

from collections.abc import Callable

from moorline.errors import Refused, Unavailable, Uncertain
from moorline.fleet.book import Book
from moorline.fleet.marks import Marks
from moorline.fleet.records import Role
from moorline.model import GuestId


class Guard:
    """Lets a guest start where it is at home. What it is told is read afresh each time."""

    def __init__(self, book: Book, host: str, marks: Marks, boot: Callable[[], str]) -> None:
        self._book = book
        self._host = host
        self._marks = marks
        self._boot = boot
        self.alive = False
        """Whether the agent of this process was heard by the fleet: until then this host may have
        been fenced since it last was."""

    def demand(self, guest: GuestId) -> None:
        """Raise Refused if another host has *guest*, Unavailable if that cannot be told now.

        Where it may be this host's still, it is remembered, and started when that is certain.
        """
        try:
            self._demand(guest)
        except (Unavailable, Uncertain) as e:
            if self._marks.vouched(guest) == self._boot():
                return
            self._marks.ask(guest)
            raise Unavailable(
                f"guest {guest} does not start yet: it cannot be told whether another host has it"
                f" ({e.message})",
                hint="it starts when that can be told, or when a person vouches for it",
            ) from e

    def vouch(self, guest: GuestId) -> None:
        """Take a person's word that no other host has *guest*, until this host boots again."""
        self._marks.vouch(guest, self._boot())

    def may_heal(self) -> bool:
        """Whether links and disks may be made anew: the fleet was heard since this host booted.

        Until then another host may have been given what this one had.
        """
        return self._marks.proven() == self._boot()

    def _demand(self, guest: GuestId) -> None:
        if not self.alive:
            raise Unavailable("the fleet's store has not answered since this agent started")
        if self._book.epoch() != self._marks.epoch():
            raise Unavailable("the fleet's store was restored: what it says may be out of date")
        record = self._book.host(self._host)
        if record is None:
            raise Refused("this host is not of the fleet any more")
        if record.fenced:
            self._marks.ask(guest)
            raise Refused(f"this host was fenced, and is not back yet: {record.fenced}")
        assignment = self._book.assignment(self._host, guest)
        if assignment is None:
            raise Unavailable("the fleet has not said that it is of this host")
        if assignment.role is not Role.HERE:
            going = {Role.LEAVING: "goes to", Role.ARRIVING: "comes from"}
            where = f"{going.get(assignment.role, 'is not here but on')} {assignment.peer}"
            raise Refused(f"guest {assignment.name} does not start here: it {where}")
