"""A disk that was released and stays: it is taken away as the disk of an attachment is."""

from __future__ import annotations

import time

from moorline.core.admission import Admission
from moorline.core.naming import guest_called
from moorline.core.records import Records
from moorline.errors import Failed
from moorline.model import Attachment
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
        end = time.monotonic() + timeout
        while not dry_run and id in self._hypervisor.disks(found.id):
            if time.monotonic() > end:
                raise Failed(f"{found.name} has not let go of volume {id} yet")
            self._hypervisor.detach(found.id, id)
        if not dry_run:
            self._records.drop_released(found.id, id)
        return self._records.unrecorded(found, id)
