"""Finds attachments whose state differs from what is wanted, with one cheap look at the host."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from moorline.core import luks
from moorline.core.limiting import has_other_limits
from moorline.core.own_disk import diverged, elsewhere, own_disk, path_of, snapshot
from moorline.core.plan import Step, next_step
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records, trouble_key
from moorline.core.survey import Survey
from moorline.core.views import paused as why_paused
from moorline.errors import MoorlineError
from moorline.model import (
    Attachment,
    Disk,
    Guest,
    GuestId,
    Key,
    Level,
    Link,
    LinkName,
    Seen,
    Unknown,
    VolumeId,
)
from moorline.ports import Hypervisor

_Disks = Mapping[GuestId, Mapping[VolumeId, Disk] | None]
"""The disks of each guest; None: the guest cannot be read.

A guest that is not there is left out.
"""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a look at every attachment found."""

    rows: int
    """How many attachments there are."""
    due: Sequence[Attachment]
    """Those that need a pass."""
    seconds: float
    """How many seconds the look took."""
    error: str = ""
    """Why the guests could not be looked at; the links were all the same."""
    links: Mapping[str, int] = field(default_factory=dict)
    """How many links are *linked*, *unlinked*, *broken*, *foreign*, *hung* or *unknown*."""
    parked: int = 0
    """How many attachments only a person can help: another mount or disk is in the way."""
    paused: Mapping[str, str] = field(default_factory=dict)
    """The guests with attachments that an error of a disk's has paused, by name: why, in words."""


Known = Callable[[Attachment], bool]


def nobody(row: Attachment) -> bool:
    """A :data:`Known` that knows no attachment."""
    return False


class DriftDetector:
    """Tells which attachments need a pass, with one look at the host.

    The answer may be out of date a moment later: the pass itself looks afresh.
    Not for several threads.
    """

    def __init__(self, records: Records, reconciler: Reconciler, hypervisor: Hypervisor) -> None:
        self._records = records
        self._reconciler = reconciler
        self._hypervisor = hypervisor
        self._links: dict[LinkName, str] = {}
        self._parked: set[Key] = set()

    def everywhere(self) -> Sweep:
        """Look at every attachment. Raises Unavailable (the store)."""
        begun = time.monotonic()
        self._links, self._parked = {}, set()
        survey = self._reconciler.survey()
        rows = survey.rows
        troubled = self._records.troubles()
        disks: _Disks | None = None
        error, paused = "", dict[str, str]()
        try:
            guests = survey.guests if rows else ()
            disks = {guest.id: None if guest.unreadable else guest.disks for guest in guests}
            paused = _pauses(rows, guests, survey)
        except MoorlineError as e:
            error = str(e)
        due = [
            row
            for row in rows
            # One that became as wanted by itself still has a trouble to be cleared.
            if self._is_due(row, disks, survey) or trouble_key(row.key) in troubled
        ]
        seconds = time.monotonic() - begun
        links, parked = Counter(self._links.values()), len(self._parked)
        return Sweep(len(rows), due, seconds, error, links, parked, paused)

    def at(self, guest: GuestId, known: Known = nobody) -> Sequence[Attachment]:
        """Attachments of *guest* that need a pass and are not *known*. Raises Unavailable."""
        rows = [row for row in self._records.of(guest) if not known(row)]
        if not rows:
            return []
        disks: _Disks | None = None
        with suppress(MoorlineError):
            disks = {guest: self._hypervisor.disks(guest)}
        survey = self._reconciler.survey()
        return [row for row in rows if self._is_due(row, disks, survey)]

    def links(self, known: Known = nobody) -> Sequence[Attachment]:
        """Attachments whose link is missing or not sound; no guest is looked at.

        A hung share is not waited for if its attachments are *known*. Raises Unavailable.
        """
        survey = self._reconciler.survey()
        return [
            row
            for row in survey.rows
            if row.want > Level.ABSENT and not known(row) and self._is_due(row, None, survey)
        ]

    def _is_due(self, row: Attachment, disks: _Disks | None, survey: Survey) -> bool:
        """Whether *row* needs a pass; *disks* None: the guests cannot be looked at.

        Notes the state of the link in either case.
        """
        try:
            link = survey.links.inspect(row)
        except MoorlineError:
            self._links[row.link] = "unknown"
            return True
        self._links[row.link] = _called(link)
        mine = disks if disks is None else disks.get(row.key.guest, {})
        if mine is None:
            # A link is made without asking guests, so that it is there when they come.
            want = min(row.want, Level.CONNECTED)
            return next_step(want, Seen(link)) is not Step.NOTHING
        disk = own_disk(row, mine)
        above = snapshot(path_of(link), disk)
        seen = Seen(
            link,
            disk,
            elsewhere=elsewhere(row, link, disk),
            snapshot=above,
            renews=self._reconciler.renewals.is_due(row, survey),
            diverged=diverged(link, disk),
            other_limits=has_other_limits(row, disk),
            locked=self._is_locked(row, disk),
        )
        step = next_step(row.want, seen)
        if step is Step.PARK:
            self._parked.add(row.key)
        return step is not Step.NOTHING

    def _is_locked(self, row: Attachment, disk: Disk) -> bool:
        try:
            return luks.is_locked(self._hypervisor, row, disk)
        except MoorlineError:
            return True  # the pass itself says why it cannot be told


def _pauses(rows: Sequence[Attachment], guests: Sequence[Guest], survey: Survey) -> dict[str, str]:
    """Which guests with *rows* an error has paused, by name, and why."""
    still = {guest.id: guest for guest in guests if guest.paused_by_error}
    whys: dict[str, set[str]] = {}
    for row in rows:
        if guest := still.get(row.key.guest):
            seen: Seen | str = ""
            with suppress(MoorlineError):
                seen = Seen(survey.links.inspect(row), own_disk(row, guest.disks))
            whys.setdefault(row.guest_name, set()).add(why_paused(row, seen, survey))
    return {name: "; ".join(sorted(found)) for name, found in whys.items()}


def _called(link: Link) -> str:
    return "hung" if isinstance(link, Unknown) and link.hangs else type(link).__name__.lower()
