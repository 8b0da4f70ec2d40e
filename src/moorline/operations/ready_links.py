"""Makes the links ready that a guest needs, and tells which are not.

Of the hypervisor no guest is asked, which waits for us: only whether it has the keys and
passwords of disks.
"""

from __future__ import annotations

from collections.abc import Sequence

from moorline.core import luks
from moorline.core.driver import Driver
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.deadline import Deadline
from moorline.errors import Failed, MoorlineError
from moorline.model import (
    Attachment,
    DiskSource,
    GuestId,
    Level,
    Linked,
    NetworkDisk,
    Unlinked,
)
from moorline.ports import Hypervisor
from moorline.ports.progress import Progress, no_progress

_POLL_SECONDS = 1.0


class ReadyLinks:
    """ready and unready of :class:`moorline.ports.api.Guests`."""

    def __init__(
        self, records: Records, reconciler: Reconciler, driver: Driver, hypervisor: Hypervisor
    ) -> None:
        self._hypervisor = hypervisor
        self._records = records
        self._reconciler = reconciler
        self._driver = driver

    def unready(self, guest: str) -> list[str]:
        links = self._reconciler.survey().links
        away: list[str] = []
        for row in self._wanted_by(guest):
            if not isinstance(links.inspect(row), Linked):
                away.append(row.key.volume)
            elif is_ours_to_plug(row):
                source = self._reconciler.files.demand_opening(row)
                locked = luks.lacks_login(self._hypervisor, row, source)
                taken = bool(_others(row, source))
                if taken or locked or luks.lacks_key(self._hypervisor, row):
                    away.append(row.key.volume)
        return away

    def ready(
        self, guest: str, *, timeout: float = 60.0, progress: Progress = no_progress
    ) -> list[str]:
        deadline = Deadline(timeout)
        # Last those without which the guest starts, too: they may be waited for in vain.
        rows = sorted(self._wanted_by(guest), key=_may_be_missing)
        made: list[str] = []
        for row in rows:
            try:
                if self._driver.connect(row, deadline, progress):
                    made.append(row.key.volume)
            except MoorlineError as e:
                # Where nothing is mounted there is no file, and libvirt leaves the disk out.
                link = self._reconciler.link(row)
                if not (_may_be_missing(row) and isinstance(link, Unlinked)):
                    raise
                progress(f"the guest starts without volume {row.key.volume}: {e}")
                continue
            if is_ours_to_plug(row):
                source = self._free(row, deadline, progress)
                luks.give_key(self._hypervisor, row)
                luks.give_login(self._hypervisor, row, source)
        return made

    def _free(self, row: Attachment, deadline: Deadline, progress: Progress) -> DiskSource:
        """What *row* may open, once nobody has it who would write to it, too."""
        said = False
        while others := _others(row, source := self._reconciler.files.demand_opening(row)):
            why = f"somebody else has volume {row.key.volume} open: {', '.join(others)}"
            if deadline.over():
                raise Failed(why, hint="who died is forgotten after a while (Ceph: 30 s)")
            if not said:
                progress(why)
            said = True
            deadline.sleep(_POLL_SECONDS)
        return source

    def _wanted_by(self, guest: str) -> Sequence[Attachment]:
        id = GuestId(guest)
        rows = self._records.all()
        return [row for row in rows if row.key.guest == id and row.want > Level.ABSENT]


def _others(row: Attachment, source: DiskSource) -> Sequence[str]:
    """Who has a server's disk open, whose guest does not run yet and does not share it."""
    shares = row.options.shared or row.options.readonly
    return source.opened if isinstance(source, NetworkDisk) and not shares else ()


def _may_be_missing(row: Attachment) -> bool:
    return row.options.startup_policy == "optional"


def is_ours_to_plug(row: Attachment) -> bool:
    """Whether the guest of *row* has, or gets, its volume as a disk from us."""
    return row.want is Level.ATTACHED and not row.hands_off
