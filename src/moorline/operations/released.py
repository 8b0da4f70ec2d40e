"""A disk that was released and stays: it is taken away as the disk of an attachment is."""

from __future__ import annotations

import time

from moorline.core.admission import Admission
from moorline.core.driver import done_before
from moorline.core.naming import guest_called
from moorline.core.records import Records
from moorline.errors import Failed, Unavailable, Uncertain
from moorline.model import Attachment, GuestName, VolumeId
from moorline.ports import Hypervisor


class Released:
    """Takes away disks of ours that no attachment has any more, and none that was never ours."""

    def __init__(self, records: Records, admission: Admission, hypervisor: Hypervisor) -> None:
        self._records = records
        self._admission = admission
        self._hypervisor = hypervisor

    def detach(
        self, guest: str, volume: str, *, timeout: float, dry_run: bool
    ) -> Attachment | None:
        """Take the disk away; return what stands in for its record, or None if there is no disk.

        Raises as :meth:`Admission.unrecorded` and :meth:`Admission.released_disk`; Failed
        if the guest has not let go when *timeout* seconds are over.
        """
        found = guest_called(guest, self._hypervisor)
        id = self._admission.unrecorded(volume, found)
        if not self._admission.released_disk(found, id):
            return None
        if not dry_run:
            self._hypervisor.detach(found.id, id)
            self._await(found, id, time.monotonic() + timeout)
            with done_before(f"{found.name} has let go of volume {id}"):
                self._records.drop_released(found.id, id)
        return self._records.unrecorded(found, id)

    def _await(self, guest: GuestName, volume: VolumeId, end: float) -> None:
        """Ask it to let go until it has, or it is *end*. Raises Failed (not yet), Uncertain."""
        try:
            while volume in self._hypervisor.disks(guest.id):
                if time.monotonic() > end:
                    raise Failed(f"{guest.name} has not let go of volume {volume} yet")
                self._hypervisor.detach(guest.id, volume)
        except Unavailable as e:  # which would say that nothing was changed
            raise Uncertain(f"{guest.name} was asked to let go of volume {volume}: {e}") from e
