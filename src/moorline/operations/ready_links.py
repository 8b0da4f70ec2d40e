"""Makes the links ready that a guest needs, and tells which are not. Asks no hypervisor."""

from __future__ import annotations

from collections.abc import Sequence

from moorline.core.driver import Driver
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.deadline import Deadline
from moorline.model import Attachment, GuestId, Level, Linked
from moorline.ports.api import Progress, no_progress


class ReadyLinks:
    """ready and unready of :class:`moorline.ports.api.Guests`."""

    def __init__(self, records: Records, reconciler: Reconciler, driver: Driver) -> None:
        self._records = records
        self._reconciler = reconciler
        self._driver = driver

    def unready(self, guest: str) -> list[str]:
        links = self._reconciler.survey().links
        return [
            row.key.volume
            for row in self._wanted_by(guest)
            if not isinstance(links.inspect(row), Linked)
        ]

    def ready(
        self, guest: str, *, timeout: float = 60.0, progress: Progress = no_progress
    ) -> list[str]:
        deadline = Deadline(timeout)
        return [
            row.key.volume
            for row in self._wanted_by(guest)
            if self._driver.connect(row, deadline, progress)
        ]

    def _wanted_by(self, guest: str) -> Sequence[Attachment]:
        id = GuestId(guest)
        rows = self._records.all()
        return [row for row in rows if row.key.guest == id and row.want > Level.ABSENT]
