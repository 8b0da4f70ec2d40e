"""Gives paused guests their disks anew after the client of a share died, where that was allowed.

What is recorded of each disk is the proof that its client was seen gone, and when: that is gone
itself once the dead mount is. It stays until the guest goes on, and is never made newer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

from moorline.core.file_checks import FileChecks
from moorline.core.links import Links
from moorline.core.records import Records
from moorline.core.survey import Survey
from moorline.errors import MoorlineError, Refused
from moorline.model import (
    Attachment,
    Broken,
    CheckedAs,
    Client,
    DiskSource,
    GuestId,
    ImageFile,
    Key,
    Level,
    Link,
    Renewal,
    VolumeId,
)
from moorline.ports import DiskRenewal, Hypervisor, RenewingHypervisor, WritingThrough

CLOCK_SKEW_SECONDS = 2.0
"""How far the clock of a share's server may be ahead of ours: a file whose last change is later
than the death of its client by more than that was changed by somebody else."""


class Renewals:
    """Decides whether a disk is to be given anew, and does it.

    *clock*: the wall clock, with which the times of files are compared.
    """

    def __init__(
        self,
        records: Records,
        hypervisor: Hypervisor,
        links: Links,
        files: FileChecks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self._hypervisor = hypervisor
        self._links = links
        self._files = files
        self._clock = clock

    @cached_property
    def _disks(self) -> DiskRenewal | None:
        """None: this hypervisor cannot give a disk anew."""
        hypervisor = self._hypervisor
        return hypervisor.disk_renewal() if isinstance(hypervisor, RenewingHypervisor) else None

    def is_due(self, row: Attachment, survey: Survey) -> bool:
        """Whether the disk of *row* is to be given anew, or its guest to go on. Raises Refused."""
        mine = survey.renewals.get(row.key)
        if mine is None or not self.is_allowed(row):
            return False
        return not mine.done or _all_done(survey.renewals, row.key.guest)

    def is_allowed(self, row: Attachment) -> bool:
        """Whether a paused guest may be given the disk of *row* anew. Raises Refused."""
        return row.want is Level.ATTACHED and not row.hands_off and self._writes_through(row)

    def is_recorded(self, row: Attachment, survey: Survey) -> bool:
        """Whether the client of its share was seen gone under the disk of *row*."""
        return row.key in survey.renewals

    def demand_not_awaited(self, row: Attachment, survey: Survey) -> None:
        """Refuse to take away a lost disk that its guest, which stands still, is to get anew.

        It lets go of no disk, and could not be given one any more that is to go. If that cannot
        be seen, nothing is refused.
        """
        try:
            guest = survey.guest(row.key.guest) if self.is_allowed(row) else None
            disk = guest.disks.get(row.key.volume) if guest and guest.paused_by_error else None
            lost = disk and (disk.stale or isinstance(survey.links.inspect(row), Broken))
        except MoorlineError:
            return
        if lost:
            raise Refused(
                f"{row.guest_name} is paused by an I/O error, and lets no disk go: it is to be"
                f" given volume {row.key.volume} anew",
                hint="moorline sweep does that, and tells what is in the way; or give it up first:"
                f" virsh destroy {row.guest_name}",
            )

    def foresee(self, row: Attachment) -> None:
        """Refuse now what :meth:`renew` would refuse once the client of its share is gone.

        The share is not asked. Raises as :class:`moorline.ports.DiskRenewal`.
        """
        if self._disks is None or not self.is_allowed(row):
            raise Refused(
                f"its share is not said to write through what it acknowledges ({row.key.volume})"
            )
        self._disks.foresee(row.key.guest, row.key.volume)

    def note_death(self, row: Attachment, link: Link) -> None:
        """Record of all disks on the link of *row* that its client was seen gone, if it was.

        To be called before the dead mount goes, by which alone that can be told.
        """
        gone = isinstance(link, Broken) and link.client is Client.GONE and not link.presumed
        if not gone:
            return
        now, known = self._clock(), self._records.renewals()
        for each in self._records.all():
            same = each.backend == row.backend and each.link == row.link
            if same and self.is_allowed(each):
                before = known.get(each.key)
                # Until it is let go on, the earlier death is the guest's last possible write.
                keeps = before is not None and not before.let_go
                self._records.note_renewal(
                    each.key, replace(before, done=False) if before and keeps else Renewal(now)
                )

    def renew(self, row: Attachment, link: Link, timeout: float | None) -> None:
        """Give the disk anew; let the guest go on if it was the last of its disks.

        Under the guest's lock. Raises as :class:`moorline.ports.DiskRenewal`, and Busy.
        """
        assert self._disks is not None, "is_due() says no"
        mine = self._records.renewals()[row.key]
        if not mine.done:
            renewed = self._renewed(self._disks, row, link, mine, timeout)
            self._records.note_renewal(row.key, renewed)
        left = self._left(self._disks, row.key.guest)
        if left and all(renewal.done for renewal in left.values()):
            self._disks.resume(row.key.guest, lambda: self._let_go(left))
            for key in left:
                self._records.note_renewal(key, None)

    def _let_go(self, renewals: Mapping[Key, Renewal]) -> None:
        """Look at the files of a guest's disks once more before it goes on, and record that it may.

        It may have been long since each was given to it: we were killed, or another disk waited.
        """
        for row in self._records.all():
            if renewal := renewals.get(row.key):
                self._demand_unchanged(row, renewal)
        for key, renewal in renewals.items():
            self._records.note_renewal(key, replace(renewal, let_go=True))

    def _left(self, disks: DiskRenewal, guest: GuestId) -> Mapping[Key, Renewal]:
        """The renewals of *guest*, but for those of disks that have lost nothing.

        A volume may be wanted and not plugged yet: no guest stays paused for that.
        """
        left = {}
        for key, renewal in self._records.renewals().items():
            if key.guest != guest:
                continue
            if not renewal.inode and _has_lost_nothing(disks, key):
                self._records.note_renewal(key, None)
            else:
                left[key] = renewal
        return left

    def _renewed(
        self,
        disks: DiskRenewal,
        row: Attachment,
        link: Link,
        renewal: Renewal,
        timeout: float | None,
    ) -> Renewal | None:
        """Give the disk anew. None: the guest had lost nothing."""
        guest, volume = row.key.guest, row.key.volume
        if not renewal.inode:
            inode = disks.lost_file(guest, volume)
            if inode is None:
                return None
            renewal = replace(renewal, inode=inode)
            self._records.note_renewal(row.key, renewal)
        with self._files.alone(row, timeout, link) as source:
            image = _file_of(source, volume)
            # Each time anew: the disk is changed by several calls, and any of them may wait.
            disks.renew(guest, volume, image, lambda: self._demand_unchanged(row, renewal))
        return replace(renewal, done=True)

    def _demand_unchanged(self, row: Attachment, renewal: Renewal) -> None:
        seen = _file_of(self._links.verified(row), row.key.volume)
        demand_unchanged(seen.checked[0], renewal)

    def _writes_through(self, row: Attachment) -> bool:
        if self._disks is None:
            return False
        backend, connection = self._links.parsed(row)
        return isinstance(backend, WritingThrough) and backend.writes_through(connection)


def _file_of(source: DiskSource, volume: VolumeId) -> ImageFile:
    if not isinstance(source, ImageFile) or not source.checked:
        raise Refused(f"volume {volume} is no file: its disk cannot be given anew")
    return source


def demand_unchanged(file: CheckedAs, renewal: Renewal) -> None:
    """Refuse a file that is not the one that the guest had, or that another has written since.

    The file system's clock is trusted within :data:`CLOCK_SKEW_SECONDS`.
    """
    if file.inode != renewal.inode:
        raise Refused(
            f"{file.path} is another file than the one that the guest had open: its inode is"
            f" {file.inode}, and was {renewal.inode}",
            hint="the guest stays paused: what it had not written is lost when it is stopped",
        )
    late = file.changed - renewal.seen_dead
    if not file.changed or late > CLOCK_SKEW_SECONDS:
        raise Refused(
            f"{file.path} was changed {late:.1f} s after its share's client was seen gone: not by"
            " the guest, or the clocks of this host and of the storage differ",
            hint="find out who wrote to it, or replaced it, before the guest goes on or is stopped",
        )


def _has_lost_nothing(disks: DiskRenewal, key: Key) -> bool:
    try:
        return disks.lost_file(key.guest, key.volume) is None
    except MoorlineError:
        return False


def _all_done(renewals: Mapping[Key, Renewal], guest: GuestId) -> bool:
    return all(renewal.done for key, renewal in renewals.items() if key.guest == guest)
