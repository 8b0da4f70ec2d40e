"""Detaches a disk that was released: no attachment is recorded for it any more."""

from __future__ import annotations

from functools import partial

from moorline.core.admission import Admission
from moorline.core.driver import done_before, nothing_recorded
from moorline.core.name_lookup import guest_called, is_whole
from moorline.core.plan import Step
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.retry_loop import Patience, Wait, drive
from moorline.deadline import Deadline
from moorline.errors import Failed, NotFound, Unavailable, Uncertain, told_about
from moorline.model import Attachment, GuestName, VolumeId
from moorline.operations.unwanted_disks import UnwantedDisks
from moorline.ports import Hypervisor
from moorline.ports.progress import Progress


class Released:
    """Detaches disks that we plugged and released, and none that was never ours."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        admission: Admission,
        hypervisor: Hypervisor,
        remaining: UnwantedDisks,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._admission = admission
        self._hypervisor = hypervisor
        self._remaining = remaining

    def detach(
        self, guest: str, volume: str, *, timeout: float, progress: Progress, dry_run: bool
    ) -> Attachment | None:
        """Detach the disk. Return a stand-in for its attachment; None: there is no such disk (or no
        guest of that whole id).

        Raises as :meth:`Admission.unrecorded` and :meth:`Admission.released_disk`, and NotOurs if
        the guest has the volume by somebody else's doing. When *timeout*
        seconds are over: what the hypervisor raised, or Failed if the guest has not let go.
        """
        with nothing_recorded():
            try:
                found = guest_called(guest, self._hypervisor)
            except NotFound:
                if is_whole(guest) and is_whole(volume):
                    self._admission.demand_gone(guest, volume)
                    return None
                raise
            id = self._admission.unrecorded(volume, found)
        with told_about(id, found.name):
            with nothing_recorded():
                if not self._is_there(found, id, dry_run=dry_run):
                    self._remaining.demand_none(found, id)
                    self._admission.demand_gone(found.id, id)
                    return None
            if not dry_run:
                self._take(found, id, Patience(Deadline(timeout), progress))
                with done_before(f"{found.name} has let go of volume {id}"):
                    self._records.drop_released(found.id, id)
                self._remaining.demand_none(found, id, done=f"{found.name} has let go of {id}")
            return self._records.unrecorded(found, id)

    def _is_there(self, guest: GuestName, volume: VolumeId, *, dry_run: bool) -> bool:
        """As :meth:`Admission.released_disk`, once what was begun before can come no more."""
        there = self._admission.released_disk(guest, volume)
        if not there and not dry_run and self._reconciler.files.settle(guest.id):
            return self._admission.released_disk(guest, volume)
        return there

    def _take(self, guest: GuestName, volume: VolumeId, patience: Patience) -> None:
        asked: list[Step] = []
        came = drive(partial(self._once, guest, volume, asked, patience), patience)
        if not isinstance(came, Wait):
            return
        if asked and isinstance(came.error, Unavailable):  # it would say that nothing was changed
            raise Uncertain(
                f"{guest.name} was asked to let go of volume {volume}: {came.why}"
            ) from came.error
        raise came.error or Failed(came.why)

    def _once(
        self, guest: GuestName, volume: VolumeId, asked: list[Step], patience: Patience
    ) -> bool | Wait:
        """Ask the guest to let the disk go, unless it has."""
        with self._reconciler.with_guest(guest.id, patience.lock_timeout()):
            # What it is may have changed since it was looked at: a copy was pivoted to, say.
            if asked:
                if volume not in self._hypervisor.disks(guest.id):
                    return True
            elif not self._admission.released_disk(guest, volume):
                return True
            self._hypervisor.detach(guest.id, volume)
            asked.append(Step.DETACH)
            if volume not in self._hypervisor.disks(guest.id):
                return True
        return Wait(f"{guest.name} has not let go of volume {volume} yet", step=Step.DETACH)
