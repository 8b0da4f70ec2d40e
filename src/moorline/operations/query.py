"""list and show: attachments as they are wanted and as they are. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from moorline.core.admission import Admission
from moorline.core.name_lookup import guest_called, is_whole, recorded_as
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records, trouble_key
from moorline.core.survey import Survey
from moorline.core.views import detailed, paused
from moorline.errors import MoorlineError, NotFound, Uncertain
from moorline.model import (
    Attachment,
    BlockDevice,
    DiskState,
    GuestId,
    GuestName,
    ImageFile,
    Linked,
    NetworkDisk,
    Seen,
)
from moorline.ports import ExtendingHypervisor, Hypervisor, MeasureImage
from moorline.ports.results import View


class Query:
    """list and show of :class:`moorline.ports.api.Attachments`."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        admission: Admission,
        hypervisor: Hypervisor,
        measure: MeasureImage,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._admission = admission
        self._hypervisor = hypervisor
        self._measure = measure

    def list(
        self, *, guest: str | None = None, share: str | None = None, sizes: bool = False
    ) -> Sequence[View]:
        survey = self._reconciler.survey()
        rows = sorted(survey.rows, key=lambda row: (row.guest_name, row.key))
        if guest is not None:
            ids = self._called(guest, rows)
            rows = [row for row in rows if row.key.guest in ids]
        if share is not None:
            rows = [*self._on(share, rows)]
        if not rows:
            return []
        troubles = self._records.troubles()
        looks = [(row, self._reconciler.look(row, survey)) for row in rows]
        views = [
            replace(
                self._reconciler.view(row, seen, troubles.get(trouble_key(row.key))),
                paused=paused(row, seen, survey),
            )
            for row, seen in looks
        ]
        if sizes:
            silent: set[str] = set()
            sized = zip(views, looks, strict=True)
            return [replace(view, size=self._size(*look, silent)) for view, look in sized]
        return views

    def show(self, volume: str, guest: str | None = None) -> Sequence[View]:
        survey = self._reconciler.survey()
        try:
            rows = self._admission.known(volume, survey.rows, guest)
        except NotFound:
            self._admission.demand_gone(guest or "", volume)
            raise
        return [self._shown(row, survey) for row in rows]

    def _shown(self, row: Attachment, survey: Survey) -> View:
        seen = self._reconciler.look(row, survey)
        view = self._reconciler.view(row, seen, self._records.trouble(row.key))
        return replace(
            detailed(view, row, seen, survey),
            size=self._size(row, seen, set()),
            paused=paused(row, seen, survey),
        )

    def _called(self, guest: str, rows: Sequence[Attachment]) -> AbstractSet[GuestId]:
        """The ids of the guests that are called so, by the records or by the hypervisor."""
        names = (GuestName(row.key.guest, row.guest_name) for row in rows)
        try:
            return recorded_as(guest, names) or {guest_called(guest, self._hypervisor).id}
        except NotFound:
            if is_whole(guest):
                self._admission.demand_gone(guest, "")
            raise

    def _on(self, share: str, rows: Sequence[Attachment]) -> Sequence[Attachment]:
        """Those of *rows* that are on *share*: a link, or what the storage's name begins with."""
        named = [(row, (self._reconciler.storage(row).url, row.link)) for row in rows]
        exact, below = share.rstrip("/"), share.rstrip("/") + "/"
        found = [
            row
            for row, names in named
            if exact and any(name == exact or name.startswith(below) for name in names)
        ]
        if not found:
            raise NotFound(
                "no attachment is on a share that is called so",
                hint="moorline list: a share is the beginning of what is in STORAGE, up to a /",
            )
        return found

    def _size(self, row: Attachment, seen: Seen | str, silent: set[str]) -> int | None:
        """The bytes that a guest sees of the volume; None: that cannot be told now.

        *silent*: the servers that gave no answer, each of which is waited for once.
        """
        if isinstance(seen, str) or not isinstance(seen.link, Linked):
            return None
        source = seen.link.source
        try:
            if isinstance(source, ImageFile):
                return self._measure(source.path, source.format)
            if isinstance(source, BlockDevice):
                return self._measure(source.path, "raw")
            if isinstance(source, NetworkDisk):
                return None if silent & {*source.servers} else self._reconciler.size(row)
            if isinstance(self._hypervisor, ExtendingHypervisor):
                has = seen.disk.state is not DiskState.NONE
                return self._hypervisor.sizes(row.key.guest, row.key.volume).guest if has else None
        except Uncertain:
            silent |= {*source.servers} if isinstance(source, NetworkDisk) else set()
        except (MoorlineError, OSError):
            pass
        return None
