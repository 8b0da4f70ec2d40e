"""What a host reports of guests, and the definitions that it keeps in the fleet's store."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

from moorline.errors import Failed, MoorlineError, Refused, Unavailable
from moorline.fleet import keys
from moorline.fleet.held import Holding
from moorline.fleet.host_look import Look
from moorline.fleet.host_memory import Marks
from moorline.fleet.local_volumes import LocalVolumes
from moorline.fleet.record_store import Book, Change
from moorline.fleet.records import Assignment, GuestReport, Role
from moorline.model import GuestId
from moorline.ports.moving import GuestMover, Presence


class GuestReports:
    """Writes them, where they say something new. Every method raises as the store."""

    def __init__(
        self,
        book: Book,
        name: str,
        holding: Holding,
        marks: Marks,
        volumes: LocalVolumes,
        hypervisor: GuestMover,
    ) -> None:
        self._book = book
        self._holding = holding
        self._name = name
        self._marks = marks
        self._volumes = volumes
        self._hypervisor = hypervisor
        self._opened: set[GuestId] = set()

    def stranger(self, look: Look, guest: GuestId) -> None:
        """Report a guest of which the fleet has said nothing yet."""
        present = look.present[guest]
        before = look.reports.guests.get(guest)
        report = GuestReport(
            seen=present.presence,
            name=present.name,
            memory=present.memory,
            due=guest in self._marks.asked(),
            definition=before.definition if before else "",
        )
        self._tell(look, guest, before, report, keep=True)

    def another(self, look: Look, guest: GuestId, assignment: Assignment) -> None:
        """Report one that only has the id of the guest that *assignment* is about."""
        present = look.present[guest]
        error = Refused(f"another guest of that UUID is here, {present.name}, and stays as it is")
        report = GuestReport(
            assignment=assignment.revision,
            seen=present.presence,
            name=present.name,
            memory=present.memory,
            error=error.kind,
            message=error.message,
            another=True,
        )
        self._tell(look, guest, look.reports.guests.get(guest), report, keep=False)

    def served(
        self,
        look: Look,
        guest: GuestId,
        assignment: Assignment,
        error: MoorlineError | None,
        doing: str = "",
        waits: str = "",
    ) -> None:
        """Report what came of *assignment*. *doing*: what begins now, which is written whatever
        was reported before. *waits*: what its start waits for.
        """
        before = look.reports.guests.get(guest)
        if assignment.role is Role.LEAVING and promised(before, assignment):
            return  # what was promised stands
        present = look.present.get(guest)
        promises = isinstance(error, Refused | Failed)  # not Uncertain: it may go on
        told = error if promises or assignment.role is not Role.LEAVING else None
        report = GuestReport(
            assignment=assignment.revision,
            seen=look.presence(guest),
            name=present.name if present else assignment.name,
            memory=present.memory if present else 0,
            error=told.kind if told else "",
            message=str(error) if error else doing or waits,
            due=guest in self._marks.asked(),
            definition=before.definition if before else "",
            removed=present is None and guest in self._marks.removed(),
        )
        keep = assignment.role in (Role.HERE, Role.LEAVING)
        self._tell(look, guest, before, report, keep=keep, anew=bool(doing))

    def refresh(self, look: Look, guest: GuestId) -> None:
        """Keep what defines it now, if it is this host's: what was taken from it is in nothing by
        which it may be made elsewhere.
        """
        before = look.reports.guests.get(guest)
        if before is not None and look.role(guest) in (None, Role.HERE):
            self._tell(look, guest, before, replace(before, revision=0), keep=True)

    def digest(self, look: Look, guest: GuestId) -> str:
        """Of what defines the guest here now; '': nothing does."""
        if look.presence(guest) not in (Presence.STOPPED, Presence.RUNNING):
            return ""
        with suppress(Refused):  # it cannot be made elsewhere, and will not go
            return sha256(self._hypervisor.definition(guest)).hexdigest()
        return ""

    def _tell(
        self,
        look: Look,
        guest: GuestId,
        before: GuestReport | None,
        report: GuestReport,
        *,
        keep: bool,
        anew: bool = False,
    ) -> None:
        """Write a report, and with *keep* the guest's definition in the same commit."""
        change = Change()
        if keep and (digest := self.digest(look, guest)):
            if digest != report.definition or not self._opens(guest):
                at = keys.definition(self._name, guest)
                change.put(at, self._book.vault.seal(at, self._hypervisor.definition(guest)))
            report = replace(report, definition=digest)
        report = self._volumes.with_other_disks(report, guest, look.desired.spoken_of())
        same = before is not None and replace(before, revision=0) == report
        if same and not anew and not change.then:
            return
        change.replace(keys.report(keys.assignment(self._name, guest)), before, report)
        revision = self._holding.commit(change, report.written)
        look.reports.guests[guest] = replace(report, revision=revision)

    def _opens(self, guest: GuestId) -> bool:
        """Whether its kept definition opens; else it was sealed with keys that this host had
        before this process, and a controller takes it no more.
        """
        if guest not in self._opened:
            with suppress(Unavailable):  # not the store: then the commit fails
                if self._book.definition(self._name, guest) is not None:
                    self._opened.add(guest)
        return guest in self._opened


def promised(report: GuestReport | None, assignment: Assignment) -> bool:
    """Whether it was reported that the guest does not go under this assignment."""
    return report is not None and report.assignment == assignment.revision and bool(report.error)
