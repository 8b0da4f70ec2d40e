"""set: changes how a disk is limited while its guest has it."""

from __future__ import annotations

from dataclasses import replace

from moorline.core.admission import Admission
from moorline.core.driver import Driver, nothing_recorded
from moorline.core.limiting import limiting
from moorline.core.name_lookup import BY_ID_OR_DEVICE
from moorline.core.plan import Step, foresee, next_step
from moorline.core.reasons import reason
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.retry_loop import keeping_timeout
from moorline.deadline import Deadline
from moorline.disk_options import BY_NAME, validate
from moorline.errors import NotFound, NotOurs, Refused, told_about
from moorline.model import Attachment, DiskOptions, Level
from moorline.ports import Hypervisor
from moorline.ports.progress import Progress, no_progress
from moorline.ports.results import Outcome


class Limiter:
    """set of :class:`moorline.ports.api.Attachments`."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        admission: Admission,
        driver: Driver,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._hypervisor = hypervisor
        self._admission = admission
        self._driver = driver

    @keeping_timeout
    def set(
        self,
        guest: str,
        volume: str,
        options: DiskOptions,
        *,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> Outcome:
        with nothing_recorded():
            before = self._admission.find(volume, guest)
        if before is None:
            raise NotFound(f"volume {volume} is not wanted on {guest}", hint=BY_ID_OR_DEVICE)
        with told_about(before.key.volume, before.guest_name):
            wanted = replace(before, options=_changed(before.options, options))
            self._refuse(before)
            with nothing_recorded():
                seen = self._reconciler.observe(wanted)
            if next_step(wanted.want, seen) is Step.PARK:  # a person has to decide before
                raise NotOurs(reason(Step.PARK, seen))
            if dry_run:
                to_come = [step.value for step in foresee(wanted.want, seen)]
                return Outcome(to_come, self._reconciler.view(wanted, seen))
            return self._set(before, wanted, Deadline(timeout), progress)

    def _set(
        self, before: Attachment, wanted: Attachment, deadline: Deadline, progress: Progress
    ) -> Outcome:
        with self._driver.claim(wanted) as steps:
            row = wanted if wanted == before else self._records.put(wanted)
            try:
                _, done = self._driver.settle(row, deadline, progress)
            except (Refused, NotOurs):
                if wanted != before:
                    self._driver.withdraw(row, before)
                raise
        return Outcome([step.value for step in steps], self._reconciler.view(row, done.seen))

    def _refuse(self, row: Attachment) -> None:
        limiting(self._hypervisor)
        if row.hands_off:
            raise Refused("somebody else plugs this disk, and limits it", hint="such as Nova")
        if row.want is Level.ABSENT:
            raise Refused(f"volume {row.key.volume} is on its way out", hint="moorline sweep")
        self._admission.demand_release(row)  # the fleet would set it back


def _changed(before: DiskOptions, asked: DiskOptions) -> DiskOptions:
    """*before* with what *asked* says. Raises Refused."""
    changes = asked.asked()
    if not changes:
        raise Refused("nothing is said that is to be changed", hint="such as --iops 500")
    if fixed := [name for name in changes if name not in BY_NAME or not BY_NAME[name].live]:
        raise Refused(
            f"{fixed[0]} cannot be changed while a disk is plugged",
            hint="detach it, and attach it as it is wanted",
        )
    now = replace(before, **changes)
    validate(now)
    return now
