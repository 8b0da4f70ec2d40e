"""extend of a volume that a volume service gave: the service makes the storage larger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from moorline.core.admission import Admission
from moorline.core.driver import nothing_recorded
from moorline.core.records import Records
from moorline.core.reservations import RETRY_SECONDS
from moorline.core.retry_loop import keeping_timeout
from moorline.deadline import Deadline
from moorline.errors import (
    Failed,
    MoorlineError,
    Refused,
    Unavailable,
    Uncertain,
    told_about,
)
from moorline.model import Attachment, VolumeId
from moorline.operations.extend import Extender
from moorline.ports.progress import Progress, no_progress
from moorline.ports.results import Extended
from moorline.ports.volume_service import ServiceVolume, VolumeService

GIB = 1 << 30
FREE_ALONE = frozenset({"quobyte", "nfs"})
"""Whose drivers of Cinder extend no attached volume, and leave one that was asked for in error
(launchpad.net/bugs/1870367)."""


class ServiceExtender:
    """extend of :class:`moorline.ports.api.Attachments`; what no service gave is *extender*'s."""

    def __init__(
        self,
        extender: Extender,
        admission: Admission,
        records: Records,
        service: Callable[[], VolumeService],
    ) -> None:
        self._extender = extender
        self._admission = admission
        self._records = records
        self._service = service

    @keeping_timeout
    def extend(
        self,
        guest: str,
        volume: str,
        size: int | None = None,
        *,
        grow: bool = False,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> Extended:
        deadline = Deadline(timeout)
        extend = partial(self._extender.extend, guest, volume, progress=progress)
        with nothing_recorded():
            row = self._admission.find(volume, guest)
        its = row is not None and row.key in self._records.reservations()
        if grow or size is None or row is None or not its:  # grow is refused of what is Cinder's
            return extend(size, grow=grow, timeout=timeout, dry_run=dry_run)
        with told_about(row.key.volume, row.guest_name):
            now = extend(dry_run=True)  # refuses what the guest cannot be shown
            if size <= now.size:
                return extend(size, timeout=timeout, dry_run=dry_run)
            if dry_run:
                _due(row, self._service().volume(row.key.volume), size)
                return replace(now, steps=["grow", "extend"], size=size)
            progress(f"Cinder extends volume {row.key.volume}")
            self._grow(row, size, deadline)
        return extend(size, timeout=deadline.left())

    def _grow(self, row: Attachment, size: int, deadline: Deadline) -> None:
        """Have the service make it *size* bytes large, and wait until that is so."""
        service, asked = self._service(), False
        while True:
            why: MoorlineError = Uncertain("Cinder has not extended the volume yet")
            try:
                its = service.volume(row.key.volume)
                if its.size == size and its.status == "in-use":
                    return
                if _due(row, its, size):
                    asked = True
                    service.extend(its.id, size // GIB)
            except (Failed, Uncertain) as e:
                why = e
            if deadline.over():
                raise Uncertain(why.message) if asked and isinstance(why, Unavailable) else why
            deadline.sleep(RETRY_SECONDS)


def _due(row: Attachment, its: ServiceVolume, size: int) -> bool:
    """Whether the service is to be asked for *size* bytes; not while it extends the volume.

    Raises Refused where it would not do that, or comes to nothing good.
    """
    if its.status == "extending":
        return False
    if its.status != "in-use":
        raise Refused(
            f"Cinder does not extend volume {its.id}: it is {its.status}",
            hint=f"openstack volume show {its.id}",
        )
    if size % GIB or its.size > size:
        raise Refused(f"Cinder's volumes have whole GiB, and {its.id} has {its.size // GIB}")
    if its.size == size:
        return False
    if row.backend in FREE_ALONE:
        raise Refused(
            f"Cinder's {row.backend} driver extends no volume that is attached",
            hint=f"{_detached(row, its.id)}; openstack volume set --size {size // GIB} {its.id};"
            " attach it again",
        )
    return True


def _detached(row: Attachment, volume: VolumeId) -> str:
    return f"moorline detach {row.guest_name} {volume}"
