"""list and show: attachments as they are wanted and as they are. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from moorline.core.admission import Admission
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records, trouble_key
from moorline.core.views import detailed, view
from moorline.ports.results import View


class Query:
    """list and show of :class:`moorline.ports.api.Attachments`."""

    def __init__(self, records: Records, reconciler: Reconciler, admission: Admission) -> None:
        self._records = records
        self._reconciler = reconciler
        self._admission = admission

    def list(self) -> Sequence[View]:
        survey = self._reconciler.survey()
        rows = sorted(survey.rows, key=lambda row: (row.guest_name, row.key))
        if not rows:
            return []
        troubles = self._records.troubles()
        return [
            view(row, self._reconciler.look(row, survey), troubles.get(trouble_key(row.key)))
            for row in rows
        ]

    def show(self, volume: str) -> Sequence[View]:
        survey = self._reconciler.survey()
        return [
            detailed(
                row, self._reconciler.look(row, survey), self._records.trouble(row.key), survey
            )
            for row in self._admission.known(volume, survey.rows)
        ]
