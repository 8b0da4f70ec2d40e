"""Gives a guest that is launched its volumes, and takes back what that made if one is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from moorline.core.admission import Admission
from moorline.core.driver import Driver
from moorline.core.plan import Step
from moorline.core.reconciler import Reconciler
from moorline.core.record_clashes import refuse_second_boot_disk
from moorline.core.records import Records
from moorline.deadline import Deadline
from moorline.errors import MoorlineError, Refused
from moorline.model import Attachment, DiskOptions, Format, GuestId, Level
from moorline.operations.destroyed_disks import kept
from moorline.operations.guest_options import Volume, options_at
from moorline.ports import Hypervisor
from moorline.ports.guarding import Guarding
from moorline.ports.guests import GuestLifecycle, GuestState
from moorline.ports.progress import Progress
from moorline.ports.results import View

_Made = tuple[Attachment | None, Attachment, list[Step]]
"""The attachment that was recorded before, the one that was made, and the steps taken for it."""


class LaunchDisks:
    """*able*: what makes guests. Raises Refused, where nothing does."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        admission: Admission,
        driver: Driver,
        hypervisor: Hypervisor,
        guard: Guarding,
        able: Callable[[], GuestLifecycle[Any]],
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._admission = admission
        self._driver = driver
        self._hypervisor = hypervisor
        self._guard = guard
        self._able = able

    def give(
        self,
        machine: GuestState,
        volumes: Sequence[Volume],
        options: DiskOptions,
        vouch: str,
        deadline: Deadline,
        progress: Progress,
        steps: list[str],
    ) -> list[View]:
        """Attach *volumes* as its disks, the first as the boot disk; add to *steps*.

        If one is refused, none is wanted any more. Raises as attaching one.
        """
        id = machine.guest.id
        made: list[_Made] = []
        with ExitStack() as claims:
            try:
                for place, (connection, format) in enumerate(volumes):
                    its = options_at(place, options, machine.boot)
                    made.append(
                        self._attachment(id, connection, format, its, vouch, deadline, claims)
                    )
                seen = [self._driver.settle(row, deadline, progress)[1].seen for _, row, _ in made]
            except Refused:
                for before, row, _ in made:
                    if row != before:
                        self._driver.withdraw(row, before)
                raise
        steps += [step.value for _, _, taken in made for step in taken]
        return [
            self._reconciler.view(row, its) for (_, row, _), its in zip(made, seen, strict=True)
        ]

    def undefine(self, guest: GuestId) -> None:
        """Remove a guest that a refused launch has made, if it has no disk."""
        with suppress(MoorlineError):  # the caller is told the refusal
            machine = self._able().look(guest)
            if machine.launched and not machine.running and not self._hypervisor.disks(guest):
                with kept(self._reconciler, machine):
                    self._able().remove(guest)
                self._records.drop_launched(guest)
                self._guard.removed(guest)

    def _attachment(
        self,
        guest: GuestId,
        connection: Mapping[str, Any] | str,
        format: Format | None,
        options: DiskOptions,
        vouch: str,
        deadline: Deadline,
        claims: ExitStack,
    ) -> _Made:
        """Record that a volume be a disk of *guest*, and claim it.

        Raises Refused, with nothing recorded.
        """
        before, attachment = self._admission.make(
            guest, connection, format, None, Level.ATTACHED, options, vouched=bool(vouch)
        )
        self._admission.refuse_anothers_disk(before, attachment)
        wanted = [
            row for row in self._records.all() if row.key.guest == guest and row.want > Level.ABSENT
        ]
        refuse_second_boot_disk(attachment, wanted)
        taken = claims.enter_context(self._driver.claim(attachment))
        row = self._driver.record(before, attachment, deadline)
        self._guard.note(row.key.volume, vouch)
        return before, row, taken
