"""Observe, plan, act: at most one step a pass, safe to be killed anywhere in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from moorline.core import luks
from moorline.core.expect import LINK_IS_LEFT, Expect, is_no_matter
from moorline.core.file_checks import FileChecks
from moorline.core.file_clashes import FileClashes
from moorline.core.file_locking import FileLocking
from moorline.core.kept_disk import must_stay, not_taken
from moorline.core.limiting import has_other_limits, limit
from moorline.core.link_usage import Usage, usage, without
from moorline.core.links import Links
from moorline.core.locks import Locks
from moorline.core.own_disk import (
    diverged,
    elsewhere,
    is_somebody_elses,
    own_disk,
    path_of,
    snapshot,
    where_it_is,
)
from moorline.core.plan import Step, next_step
from moorline.core.reasons import reason
from moorline.core.records import Records
from moorline.core.renewals import Renewals
from moorline.core.survey import Survey
from moorline.core.took import Report, Took, no_report
from moorline.core.views import view
from moorline.errors import Conflict, MoorlineError
from moorline.model import (
    NO_DISK,
    Attachment,
    Broken,
    Client,
    Disk,
    GuestId,
    Held,
    Key,
    Level,
    Link,
    LinkName,
    Seen,
    Unknown,
    Unlinked,
    VolumeId,
)
from moorline.ports import Backends, Beginning, Hypervisor, StorageBackend, SurveyingChanges
from moorline.ports.results import Trouble, View

AboutTo = Callable[[Step], None]
_IDLE = frozenset({Step.NOTHING, Step.WAIT, Step.PARK})
_ON_LINK = frozenset({Step.CONNECT, Step.DISCONNECT, Step.FORGET})


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass saw and did."""

    step: Step
    row: Attachment | None
    """None: there is no such attachment."""
    seen: Seen
    reason: str = ""
    """Why nothing can be done now (WAIT, PARK)."""


class Reconciler:
    """Brings one host's attachments from what is seen to what is wanted."""

    def __init__(
        self,
        records: Records,
        backends: Backends,
        hypervisor: Hypervisor,
        locks: Locks,
        report: Report = no_report,
        file_clashes: FileClashes | None = None,
        turns: FileLocking | None = None,
        looking: Callable[[], Backends] | None = None,
    ) -> None:
        """*looking* makes back ends for looking alone, which ask each share once."""
        self._records = records
        self._links = Links(backends)
        self.storage = self._links.storage
        self._hypervisor = hypervisor
        self._locks = locks
        self._report = report
        self.files = FileChecks(
            self._links, file_clashes or FileClashes(), turns or FileLocking(), self._survey_changes
        )
        self.renewals = Renewals(records, hypervisor, self._links, self.files)
        self._looking = looking or (lambda: backends)
        # Share and hypervisor look at the same time.
        self._begin_disks: Callable[[GuestId], Callable[[], Mapping[VolumeId, Disk]]] = (
            hypervisor.begin_disks
            if isinstance(hypervisor, Beginning)
            else lambda guest: partial(hypervisor.disks, guest)
        )

    def advance(
        self,
        key: Key,
        about_to: AboutTo = lambda step: None,
        timeout: float | None = None,
        expect: Expect = Expect.ANYTHING,
    ) -> Pass:
        """Take the next step for *key*; *about_to* is told which before it is taken.

        Blocks as long as that step may (a client command's deadline, or the
        hypervisor's), and up to *timeout* seconds for each lock (None: the locks' own
        patience). Raises Busy (a lock was not free in time) and what the step raises.
        """
        if expect in LINK_IS_LEFT and (done := self._leave(key, about_to, timeout, expect)):
            return done
        with self.with_guest(key.guest, timeout):
            done = self._pass(key, about_to, on_link=False, timeout=timeout, expect=expect)
        if done.row is None or done.step not in _ON_LINK:
            return done
        # Under its own lock. Never both locks at once: their order would deadlock.
        with self.with_link(done.row.link, timeout):
            return self._pass(key, about_to, on_link=True)

    def connect(
        self, row: Attachment, about_to: AboutTo = lambda step: None, timeout: float | None = None
    ) -> Pass:
        """Take the next step for the link of *row* alone. The hypervisor is not asked.

        For a caller that libvirt itself waits for (its hook). Without the hypervisor it cannot be
        told whether a guest has a broken link open, so only a dead one is made anew.
        """
        with self.with_link(row.link, timeout):
            seen = Seen(self.link(row))
            step = next_step(Level.CONNECTED, seen)
            about_to(step)
            self._take(step, row, seen)
        if isinstance(seen.link, Broken) and step is Step.WAIT:
            return Pass(step, row, seen, f"{seen.link.reason}; `moorline start` can renew it")
        return Pass(step, row, seen, reason(step, seen))

    def prepare(
        self, row: Attachment, about_to: AboutTo = lambda step: None, timeout: float | None = None
    ) -> Pass:
        """Take the next step for the link of *row*, which is not recorded.

        Its guest is looked at and not changed: the attachment that is recorded in its place
        stays valid. A step that concerns anything but the link is not taken.
        """
        with self.with_link(row.link, timeout):
            return self._serve(row, about_to, on_link=True)

    def survey(self) -> Survey:
        """Begin a look at this host, for all that one call looks at."""
        return Survey(self._records, self._hypervisor.survey, self._links.by(self._looking()))

    def _survey_changes(self) -> Survey:
        """As :meth:`survey`, for what decides that nothing goes."""
        virt = self._hypervisor
        guests = virt.survey_changes if isinstance(virt, SurveyingChanges) else virt.survey
        return Survey(self._records, guests, self._links.by(self._looking()))

    def observe(
        self,
        row: Attachment,
        survey: Survey | None = None,
        *,
        foresee: bool = True,
        expect: Expect = Expect.ANYTHING,
    ) -> Seen:
        """Look at one attachment, or tell what *survey* says of it.

        *foresee*: also find out who needs the link of an attachment that is to go.
        Raises Refused (the connection or the configuration no longer fits),
        Unavailable or Uncertain (the hypervisor).
        """
        disks: Mapping[VolumeId, Disk] = survey.disks(row.key.guest) if survey else {}
        looked = survey or Survey(self._records, self._hypervisor.survey, self._links)
        _, connection = looked.links.parsed(row)
        # Who wants it attached may go by what was just seen: the hypervisor plugs nothing twice,
        # and who else has the file is looked at anew.
        bare = expect is Expect.NO_DISK_YET and row.want is Level.ATTACHED
        asked = survey is None and not bare and not is_somebody_elses(row)
        seen = self._begin_disks(row.key.guest) if asked else lambda: disks
        # It is attached next if its link works, so its file is looked at by the same question.
        link = (looked.links.ready(row) if bare else None) or looked.links.inspect(row)
        disk = own_disk(row, seen())
        # The disk goes before the link does. Until it has, no other guest needs to be looked at.
        later = row.want is Level.ABSENT and (not foresee or is_no_matter(link, disk, expect))
        use = Usage(Held.UNKNOWN) if later else self._use(row, link, disk, looked)
        # A disk can be told from its volume's snapshot while the link is not there, too.
        volume = path_of(link) or (f"{row.link}/{connection.name}" if connection.name else "")
        return Seen(
            *(link, disk, use.held, use.by, use.unsure),
            *(elsewhere(row, link, disk), snapshot(volume, disk)),
            self.renewals.is_due(row, looked),
            *(diverged(link, disk), has_other_limits(row, disk)),
            luks.is_locked(self._hypervisor, row, disk),
        )

    def look(self, row: Attachment, survey: Survey) -> Seen | str:
        """What *survey* says of *row*; a text, if it can say nothing: why."""
        try:
            return self.observe(row, survey)
        except MoorlineError as e:
            return str(e)

    def view(self, row: Attachment, seen: Seen | str, trouble: Trouble | None = None) -> View:
        """Describe *row*. *seen*: what was observed, or, as text, why nothing was."""
        return view(row, seen, trouble, self.storage(row))

    def demand_takeable(self, row: Attachment) -> None:
        """Refuse to take away a disk that is not the volume, if that can be seen.

        The guest would lose what it wrote. If it cannot be seen now, nothing is refused: each
        pass looks again before its step. Raises Refused.
        """
        if is_somebody_elses(row):
            return
        try:
            _, connection = self._links.parsed(row)
            disks = self._begin_disks(row.key.guest)
            # This lets the kernel know what became of the image's name on a share.
            self._links.ready(row)
            disk = own_disk(row, disks())
            if not disk.replaced and disk.source in ("", f"{row.link}/{connection.name}"):
                return  # it is the volume itself
            seen = self.observe(row)
        except MoorlineError:
            return
        if must_stay(seen):
            raise not_taken(row, seen)

    def link(self, row: Attachment) -> Link:
        """Look at the link alone, without the hypervisor. Raises Refused as :meth:`observe`."""
        return self._links.inspect(row)

    def size(self, row: Attachment) -> int | None:
        """As :meth:`moorline.core.links.Links.size`."""
        return self._links.size(row)

    def with_guest(
        self, guest: GuestId, timeout: float | None = None
    ) -> AbstractContextManager[None]:
        """Hold the lock of *guest*, as each pass does. Raises Busy after *timeout* seconds."""
        return self._locks.hold(f"guest {guest}", timeout)

    def with_link(
        self, link: LinkName, timeout: float | None = None
    ) -> AbstractContextManager[None]:
        """Hold the lock of *link*, as each pass does. Raises Busy after *timeout* seconds."""
        return self._locks.hold(f"link {link}", timeout)

    def unlock(self, row: Attachment, link: Link) -> None:
        """Have the hypervisor know what a disk is opened with, also one that is still to come.

        Raises as the hypervisor, and Refused.
        """
        luks.unlock(self._hypervisor, row, link, lambda: self._links.login(row))

    def tidy(self, row: Attachment, seen: Seen) -> None:
        """Remove the empty mount point, and the key, that a crash left. Raises as disconnect."""
        with self.with_link(row.link):
            self._tidy(row, seen)

    def read(self, row: Attachment) -> tuple[StorageBackend[Any], Any]:
        """As :meth:`Links.read`. Raises Refused."""
        return self._links.read(row)

    def backend(self, kind: str) -> StorageBackend[Any]:
        """Return the back end of *kind*. Raises Refused if there is none."""
        return self._links.backend(kind)

    def _use(self, row: Attachment, link: Link, disk: Disk, survey: Survey) -> Usage:
        """Whether the link must stay, if that matters for the next step, and which guests hold it.

        The volume's own disk does not count: it goes before the link does.
        """
        leaving = row.want is Level.ABSENT
        if not leaving and (not isinstance(link, Broken) or link.client is Client.GONE):
            return Usage(Held.UNKNOWN)
        if leaving and not row.hands_off and survey.others(row):
            return Usage(Held.HELD)
        try:
            guests = survey.guests
        except MoorlineError as e:
            return Usage(Held.UNKNOWN, unsure=str(e))
        if leaving and row.hands_off:
            # If the attachment were forgotten while its own guest still names the link, nobody
            # would disconnect the link later. Where another attachment keeps it, only the own path
            # matters.
            others = survey.others(row)
            what = path_of(link) or row.link if others else row.link
            own = usage(what, [guest for guest in guests if guest.id == row.key.guest])
            if own.held is not Held.FREE:
                return replace(own, held=Held.UNKNOWN)
            if others:
                return Usage(Held.HELD)
        if leaving:
            guests = [without(disk, guest, row.key.guest) for guest in guests]
        else:
            guests = [guest for guest in guests if guest.running]
        return usage(row.link, guests)

    def _leave(
        self, key: Key, about_to: AboutTo, timeout: float | None, expect: Expect
    ) -> Pass | None:
        """Take the next step for the link; None: that of the guest is not over."""
        row = self._records.get(key)
        if row is None or row.want is not Level.ABSENT:
            return None
        with self.with_link(row.link, timeout):
            done = self._pass(key, about_to, on_link=True, expect=expect)
        return done if done.step in _IDLE | _ON_LINK else None

    def _pass(self, key: Key, about_to: AboutTo, *, on_link: bool, **how: Any) -> Pass:
        row = self._records.get(key)
        if row is None:
            return Pass(Step.NOTHING, None, Seen(Unknown("there is no such attachment")))
        return self._serve(row, about_to, on_link=on_link, **how)

    def _serve(
        self,
        row: Attachment,
        about_to: AboutTo,
        *,
        on_link: bool,
        timeout: float | None = None,
        expect: Expect = Expect.ANYTHING,
    ) -> Pass:
        seen = self.observe(row, foresee=on_link, expect=expect)
        # An attach that was killed may plug it later, when nobody would look any more.
        gone = row.want is Level.ABSENT and not on_link and seen.disk == NO_DISK
        if gone and not is_somebody_elses(row) and self.files.settle(row.key.guest):
            seen = self.observe(row, foresee=on_link, expect=expect)
        # Finding out who needs the link is costly, so it is done once: under the link's lock.
        free = row.want is Level.ABSENT and not on_link
        step = next_step(row.want, replace(seen, held=Held.FREE) if free else seen)
        if (step in _ON_LINK) is on_link:
            about_to(step)
            self._take(step, row, seen, timeout)
        return Pass(step, row, seen, reason(step, seen))

    def _take(self, step: Step, row: Attachment, seen: Seen, timeout: float | None = None) -> None:
        """Act, and report what came of it."""
        if step in _IDLE:
            return
        begun = time.monotonic()
        try:
            self._act(step, row, seen, timeout)
        except MoorlineError as e:
            self._report(Took(step, row, time.monotonic() - begun, e))
            raise
        found = where_it_is(seen) if step is Step.DETACH else ""
        self._report(Took(step, row, time.monotonic() - begun, None, found))

    def _act(self, step: Step, row: Attachment, seen: Seen, timeout: float | None) -> None:
        if step is Step.FORGET:
            self._forget(row, seen)
        elif step is Step.DETACH:
            self._hypervisor.detach(row.key.guest, row.key.volume)
        elif step is Step.ATTACH:
            # What is opened is what is given: not what the look before it told.
            with self.files.alone(row, timeout, seen.link) as source:
                luks.give_key(self._hypervisor, row)
                options = self._links.options(row)
                self._hypervisor.attach(row.key.guest, row.key.volume, source, options)
        elif step is Step.RENEW:
            self.renewals.renew(row, seen.link, timeout)
        elif step is Step.LIMIT:
            limit(self._hypervisor, row)
        elif step is Step.UNLOCK:
            self.unlock(row, seen.link)
        else:
            backend, connection = self._links.parsed(row)
            if step is Step.CONNECT:
                backend.connect(connection)
            elif step is Step.DISCONNECT:
                self.renewals.note_death(row, seen.link)
                backend.disconnect(connection)

    def _forget(self, row: Attachment, seen: Seen) -> None:
        self._tidy(row, seen)
        with suppress(Conflict):  # it changed meanwhile: the next pass serves the new one
            self._records.forget(row)

    def _tidy(self, row: Attachment, seen: Seen) -> None:
        if isinstance(seen.link, Unlinked) and seen.held is Held.FREE:
            backend, connection = self._links.parsed(row)
            backend.disconnect(connection)
        luks.take_key(self._hypervisor, row)
        luks.take_login(self._hypervisor, row, seen.link)
