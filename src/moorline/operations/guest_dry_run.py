"""What launching, starting and removing a guest would do. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from moorline.core.admission import Admission
from moorline.core.driver import gone
from moorline.core.plan import foresee
from moorline.core.reconciler import Reconciler
from moorline.model import (
    Attachment,
    DiskOptions,
    GuestId,
    GuestName,
    Level,
    Linked,
    Seen,
)
from moorline.operations.guest_options import Volume, options_at
from moorline.operations.ready_links import is_ours_to_plug
from moorline.operations.service_launch import LaunchedByName
from moorline.operations.service_volumes import not_seen
from moorline.ports.guest_results import GuestOutcome
from moorline.ports.guests import GuestState
from moorline.ports.results import View
from moorline.ports.volume_service import is_named


class GuestDryRun:
    """The dry runs of :class:`moorline.ports.api.Guests`."""

    def __init__(
        self, reconciler: Reconciler, admission: Admission, by_name: LaunchedByName
    ) -> None:
        self._reconciler = reconciler
        self._admission = admission
        self._by_name = by_name

    def launch(
        self,
        name: str,
        made: GuestState | None,
        volumes: Sequence[Volume],
        options: DiskOptions,
        *,
        start: bool,
        vouched: bool,
    ) -> GuestOutcome:
        """*made*: the guest, if it is there already. Raises as launching before its first step."""
        guest = made.guest if made else GuestName(GuestId(str(uuid4())), name)
        steps = [] if made else ["define"]
        views = []
        for place, (connection, format) in enumerate(volumes):
            last: list[str] = []
            if is_named(connection):
                key, there = self._by_name.foresee(guest, connection)
                last = [] if there and there.complete else ["complete"]
                if there is None or there.connection is None:
                    first = [] if there else ["reserve"]
                    steps += [*first, "connect", "attach", *last]
                    views.append(not_seen(key, name, Level.ATTACHED, "reserve"))
                    continue
                connection = there.connection.reveal()
            before, row = self._admission.make(
                guest,
                connection,
                format,
                None,
                Level.ATTACHED,
                options_at(place, options, made.boot if made else 0),
                vouched=vouched,
            )
            if made:
                self._admission.refuse_anothers_disk(before, row)
                seen = self._reconciler.observe(row)
            else:
                seen = Seen(self._reconciler.link(row))
            if isinstance(seen.link, Linked):
                self._reconciler.files.verify(row)
            views.append(self._foreseen(row, seen, steps))
            steps += last
        running = made is not None and made.running
        if start and not running:
            steps.append("start")
        id, disks = (made.guest.id, [*made.disks]) if made else ("", [])
        return GuestOutcome(name, id, running, steps, views, disks)

    def start(self, machine: GuestState, rows: Sequence[Attachment]) -> GuestOutcome:
        steps: list[str] = []
        views = []
        for row in rows:
            seen = self._reconciler.observe(row)
            if isinstance(seen.link, Linked) and is_ours_to_plug(row) and not machine.running:
                self._reconciler.files.verify(row)
            views.append(self._foreseen(row, seen, steps))
        if not machine.running:
            steps.append("start")
        return _outcome(machine, steps, views)

    def remove(
        self, guest: str, machine: GuestState | None, rows: Sequence[Attachment]
    ) -> GuestOutcome:
        """*machine*: None, if of the guest only *rows* are left."""
        steps = ["stop"] if machine and (machine.running or machine.saved) else []
        absent = [gone(row) for row in rows]
        views = [self._foreseen(row, self._reconciler.observe(row), steps) for row in absent]
        if machine is None:
            return GuestOutcome(guest, rows[0].key.guest, False, steps, views)
        return _outcome(machine, [*steps, "undefine"], views)

    def _foreseen(self, row: Attachment, seen: Seen, steps: list[str]) -> View:
        steps += [step.value for step in foresee(row.want, seen)]
        return self._reconciler.view(row, seen)


def _outcome(machine: GuestState, steps: list[str], views: list[View]) -> GuestOutcome:
    name, id = machine.guest.name, machine.guest.id
    return GuestOutcome(name, id, machine.running, steps, views, [*machine.disks])
