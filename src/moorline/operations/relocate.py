"""relocate: moves a volume to another datastore, first its disk, then its record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Protocol

from moorline.core.admission import Admission
from moorline.core.driver import done_before
from moorline.core.name_lookup import BY_ID_OR_DEVICE
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import MoorlineError, NotFound, Refused, told_about
from moorline.model import (
    Attachment,
    DatastoreDisk,
    Level,
    Linked,
    ShadowDisk,
)
from moorline.ports import Hypervisor, RelocatingHypervisor
from moorline.ports.progress import Progress, no_progress
from moorline.ports.results import View
from moorline.secret import Secret


class Note(Protocol):
    """Notes what is seen of a volume, for people. Never raises."""

    def __call__(
        self, message: str, *, volume: str = "", guest: str = "", link: str = ""
    ) -> None: ...


class Relocator:
    """relocate of :class:`moorline.ports.api.Attachments`."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        admission: Admission,
        hypervisor: Hypervisor,
        note: Note,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._admission = admission
        self._hypervisor = hypervisor
        self._note = note

    def relocate(
        self,
        guest: str,
        volume: str,
        datastore: str,
        *,
        round_up: bool = False,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> View:
        """See the protocol.

        If it is killed between the move and the record, the same call finds the
        disk moved and goes on. Raises as :meth:`RelocatingHypervisor.relocate`, and
        Uncertain if it moved and that could not be recorded.
        """
        hypervisor = self._hypervisor
        if not isinstance(hypervisor, RelocatingHypervisor):
            raise Refused(f"disks of {hypervisor.kind} guests lie on no datastore")
        row = self._admission.find(volume, guest)
        if row is None or row.want is not Level.ATTACHED:
            raise NotFound(f"volume {volume} is not attached to {guest}", hint=BY_ID_OR_DEVICE)
        with told_about(row.key.volume, row.guest_name):
            return self._move(hypervisor, row, datastore, progress, round_up, dry_run)

    def _move(
        self,
        hypervisor: RelocatingHypervisor,
        row: Attachment,
        datastore: str,
        progress: Progress,
        round_up: bool,
        dry_run: bool,
    ) -> View:
        link = self._reconciler.link(row)
        if isinstance(link, Linked) and isinstance(link.source, ShadowDisk):
            raise Refused(
                f"volume {row.key.volume} lies in a machine that Cinder keeps",
                hint="let Cinder move it (openstack volume migrate)",
            )

        def told(percent: int) -> None:
            progress(f"moving volume {row.key.volume} to {datastore}: {percent} %")

        within = getattr(getattr(link, "source", None), "datacenter", "")
        if not dry_run:
            told(0)
        moving = nullcontext() if dry_run else self._noted(row, datastore)
        with self._reconciler.with_guest(row.key.guest), self._kept(row), moving:
            disk = hypervisor.relocate(
                row.key.guest,
                row.key.volume,
                datastore,
                round_up=round_up,
                progress=told,
                dry_run=dry_run,
            )
        if dry_run:
            return self._reconciler.view(row, self._reconciler.observe(row))
        with done_before(f"volume {row.key.volume} is on {disk.datastore} now"):
            now = self._follow(row, replace(disk, datacenter=within))
        try:
            return self._reconciler.view(now, self._reconciler.observe(now))
        except MoorlineError as e:
            return self._reconciler.view(now, str(e))  # it moved, and the record says so

    def _kept(self, row: Attachment) -> AbstractContextManager[None]:
        """Keep its disk, which is destroyed where it is now, from others."""
        disk = self._hypervisor.disks(row.key.guest).get(row.key.volume)
        paths = [disk.source] if disk else []
        return self._reconciler.files.destroying(row.key.guest, paths)

    @contextmanager
    def _noted(self, row: Attachment, datastore: str) -> Iterator[None]:
        """Write beginning and end to the event log: it tells where the disk is, were we killed."""
        disk = self._hypervisor.disks(row.key.guest).get(row.key.volume)
        what = f"the move of volume {row.key.volume} to {datastore}"
        about = {"volume": row.key.volume, "guest": row.guest_name, "link": row.link}
        self._note(f"{what} begins" + (f": it is {disk.source}" if disk else ""), **about)
        try:
            yield
        except MoorlineError as e:
            self._note(f"{what} ends: {e}", **about)
            raise
        self._note(f"{what} is done", **about)

    def _follow(self, row: Attachment, disk: DatastoreDisk) -> Attachment:
        within = f"?datacenter={disk.datacenter}" if disk.datacenter else ""
        place = self._admission.accept(
            f"{row.backend}://{disk.datastore}/{disk.file}{within}", None
        )
        now = replace(row, connection=Secret(place.connection), link=place.link, place=place.id)
        return row if now == row else self._records.put(now)
