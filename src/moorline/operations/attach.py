"""attach, detach, forget and sweep: record what is wanted, and drive it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from moorline.core.admission import Admission
from moorline.core.driver import Driver, gone, nothing_recorded, recorded
from moorline.core.leftovers import leftovers, refuse_leftovers
from moorline.core.name_lookup import recorded_as
from moorline.core.no_fleet import ALONE
from moorline.core.own_disk import is_somebody_elses, path_of
from moorline.core.plan import Step, foresee, next_step
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records, trouble_key
from moorline.core.retry_loop import Wait, keeping_timeout
from moorline.core.survey import Survey
from moorline.core.validation import check_reason
from moorline.deadline import DEFAULT_TIMEOUT_SECONDS, Deadline
from moorline.disk_options import AS_IT_COMES
from moorline.errors import Failed, MoorlineError, NotFound, Refused, Uncertain, told_about
from moorline.model import (
    NO_DISK,
    Attachment,
    Broken,
    DiskOptions,
    DiskState,
    Foreign,
    Format,
    GuestName,
    Level,
    Linked,
    Seen,
    Unknown,
    Unlinked,
)
from moorline.operations.detach_released import Released
from moorline.operations.unwanted_disks import UnwantedDisks
from moorline.ports import Hypervisor, Mount
from moorline.ports.guarding import Guarding
from moorline.ports.progress import Progress, no_progress
from moorline.ports.results import Outcome, View


class Attacher:
    """attach, detach, forget, sweep of :class:`moorline.ports.api.Attachments`."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        admission: Admission,
        driver: Driver,
        released: Released,
        remaining: UnwantedDisks,
        mounts: Callable[[], Sequence[Mount]],
        guard: Guarding = ALONE,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._hypervisor = hypervisor
        self._admission = admission
        self._driver = driver
        self._released = released
        self._remaining = remaining
        self._mounts = mounts
        self._guard = guard

    @keeping_timeout
    def attach(
        self,
        guest: str,
        connection: Mapping[str, Any] | str,
        *,
        format: Format | None = None,
        volume: str | None = None,
        level: Level = Level.ATTACHED,
        options: DiskOptions = AS_IT_COMES,
        hands_off: bool = False,
        vouch: str = "",
        label: str = "",
        timeout: float | None = None,
        wait: bool = True,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> Outcome:
        if vouch:
            check_reason(vouch)
        persistent = timeout is not None
        deadline = Deadline(DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)

        def make() -> tuple[Attachment | None, Attachment]:
            return self._admission.make(
                guest,
                connection,
                format,
                volume,
                level,
                options,
                hands_off=hands_off,
                vouched=bool(vouch),
                label=label,
            )

        with nothing_recorded():
            before, attachment = make()
        if before is not None and not dry_run and self._ends_detach(before, deadline, progress):
            with nothing_recorded():
                before, attachment = make()
        about = told_about(attachment.key.volume, attachment.guest_name)
        with about, nothing_recorded():
            bare = self._admission.refuse_anothers_disk(before, attachment)
            if dry_run:
                seen = self._reconciler.observe(attachment)
                self._refuse_impossible(attachment, seen)
                return replace(self._foreseen(attachment, seen), unseen=_unseen(attachment, seen))
        with self._driver.claim(attachment) as steps:
            row = self._driver.record(before, attachment, deadline, progress, persistent=persistent)
            self._guard.note(row.key.volume, vouch)
            if not wait:
                return self._left(row, steps)
            try:
                _, done = self._driver.settle(
                    row, deadline, progress, persistent=persistent, bare=bare
                )
                self._verify_unplugged(row)
            except Refused:
                if attachment != before:
                    self._driver.withdraw(row, before)
                raise
        self._tell_whose_base(row, done.seen, progress)
        return Outcome([step.value for step in steps], self._reconciler.view(row, done.seen))

    @keeping_timeout
    def detach(
        self,
        guest: str,
        volume: str,
        *,
        hands_off: bool = False,
        timeout: float = 60.0,
        wait: bool = True,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> Outcome | None:
        deadline = Deadline(timeout)
        with nothing_recorded():
            row = self._admission.find(volume, guest, hands_off=hands_off)
        if row is None and hands_off:
            return None
        if row is None:
            left = self._released.detach(
                guest, volume, timeout=timeout, progress=progress, dry_run=dry_run
            )
            return (
                Outcome([Step.DETACH.value], self._reconciler.view(left, Seen(Unlinked())))
                if left
                else None
            )
        with told_about(row.key.volume, row.guest_name):
            return self._detach(row, deadline, wait=wait, progress=progress, dry_run=dry_run)

    def _detach(
        self,
        row: Attachment,
        deadline: Deadline,
        *,
        wait: bool,
        progress: Progress,
        dry_run: bool,
    ) -> Outcome:
        self._admission.demand_release(row)
        if row.want is not Level.ABSENT:
            self._reconciler.renewals.demand_not_awaited(row, self._reconciler.survey())
        absent = gone(row)
        if dry_run:
            seen = self._reconciler.observe(absent)
            if not row.hands_off:
                self._demand_none_left(absent, seen, done=False)
            return self._foreseen(absent, seen)
        with self._driver.claim(absent) as steps:
            if row.want is not Level.ABSENT:
                self._reconciler.demand_takeable(row)
                absent = self._records.put(absent)
            if row.hands_off:
                seen = self._let_go(absent, progress)  # its owner takes the disk away
                return Outcome([step.value for step in steps], self._reconciler.view(absent, seen))
            if not wait:
                return self._left(absent, steps)
            try:
                _, done = self._driver.settle(absent, deadline, progress)
            except Refused:
                if not steps and self._is_whole(row):  # nothing was taken
                    self._records.put(replace(row, revision=absent.revision))
                raise
        after = replace(done.seen, disk=NO_DISK)
        self._demand_none_left(absent, after)
        return Outcome([step.value for step in steps], self._reconciler.view(absent, after))

    def forget(
        self, volume: str, guest: str | None = None, *, dry_run: bool = False
    ) -> Sequence[View]:
        mine = self._admission.known(volume)
        if guest is not None:
            names = (GuestName(row.key.guest, row.guest_name) for row in mine)
            called = recorded_as(guest, names)
            mine = [row for row in mine if row.key.guest in called]
        if not mine:
            raise NotFound(f"volume {volume} is not wanted on {guest}", hint="moorline list")
        looks = [self._forgettable(row, dry_run=dry_run) for row in mine]
        if not dry_run:
            for row, seen in looks:
                with told_about(row.key.volume, row.guest_name):
                    self._reconciler.tidy(row, seen)
                    self._records.forget(row)
        return [self._reconciler.view(row, seen) for row, seen in looks]

    def sweep(self, progress: Progress = no_progress, *, dry_run: bool = False) -> Sequence[View]:
        survey = self._reconciler.survey()
        steps = [(row, self._due(row, survey)) for row in survey.rows]
        if dry_run:
            return [self._told(row, survey) for row, step in steps if step is not Step.NOTHING]
        self._drop_cured([row for row, step in steps if step is Step.NOTHING])
        due = [row for row, step in steps if step not in (Step.NOTHING, Step.WAIT, Step.PARK)]
        left = {row.key for row in due if not self._push(row, progress)}
        if due:
            survey = self._reconciler.survey()  # anew: steps may have ended waits
        waiting = [row for row, step in steps if step in (Step.WAIT, Step.PARK)]
        again = [row for row in waiting if self._due(row, survey) not in (Step.WAIT, Step.PARK)]
        served = {row.key for row in again if self._push(row, progress)}
        left |= {row.key for row in waiting} - served
        if again:
            survey = self._reconciler.survey()
        # A list shows what is there now, not what a pass saw before it failed.
        return [self._told(row, survey) for row, _ in steps if row.key in left]

    def _drop_cured(self, rows: Sequence[Attachment]) -> None:
        """Forget the troubles of *rows*, which became as wanted by themselves."""
        troubles = self._records.troubles()
        for row in rows:
            if trouble_key(row.key) in troubles:
                self._records.note(row, None)

    def _tell_whose_base(self, row: Attachment, seen: Seen, progress: Progress) -> None:
        """Say whose snapshots cannot be merged into the volume while it is attached read-only.

        QEMU would have to write to what lies beneath a disk, which another QEMU has locked.
        """
        path = path_of(seen.link)
        if not (row.options.readonly and path):
            return
        with suppress(MoorlineError):  # it is attached
            for guest in self._hypervisor.survey():
                beneath = any(use.beneath and use.path == path for use in guest.uses)
                if guest.running and guest.id != row.key.guest and beneath:
                    progress(
                        f"{guest.name} has {path} beneath a disk: while {row.guest_name} has it,"
                        f" `virsh blockcommit {guest.name}` into it fails"
                    )

    def _demand_none_left(self, row: Attachment, seen: Seen, *, done: bool = True) -> None:
        """As :meth:`UnwantedDisks.demand_none`; *done*: all of *row* that is ours was detached."""
        guest, volume = GuestName(row.key.guest, row.guest_name), row.key.volume
        self._remaining.demand_none(
            guest,
            volume,
            path_of(seen.link),
            done=f"volume {volume} is wanted no more on {guest.name}" if done else "",
            marked=done or is_somebody_elses(row),
        )

    def _told(self, row: Attachment, survey: Survey) -> View:
        seen = self._reconciler.look(row, survey)
        return self._reconciler.view(row, seen, self._records.trouble(row.key))

    def _left(self, row: Attachment, steps: Sequence[Step]) -> Outcome:
        """What is so of *row*, which is recorded and for others to go on with."""
        with recorded():
            seen = self._reconciler.look(row, self._reconciler.survey())
            return Outcome([step.value for step in steps], self._reconciler.view(row, seen))

    def _ends_detach(self, before: Attachment, deadline: Deadline, progress: Progress) -> bool:
        """See a detach to its end whose guest may let the disk go at any moment; False: none is.

        A guest that is suspended does so when it goes on, and libvirt does not tell that it was
        asked. But a disk is taken from the definition first: what is to be absent, and is there in
        the running guest alone, was asked for. Raises as :meth:`Driver.settle`.
        """
        if before.want > Level.ABSENT or not self._is_leaving(before):
            return False
        try:
            self._driver.settle(before, deadline, progress)
        except (Failed, Uncertain) as e:
            hint = f"it is still to be detached, and can be attached when it is gone: {e.hint}"
            raise type(e)(e.message, hint=hint) from e
        return True

    def _is_leaving(self, row: Attachment) -> bool:
        guests = {guest.id: guest for guest in self._hypervisor.survey()}
        guest = guests.get(row.key.guest)
        if guest is None or not guest.running or is_somebody_elses(row):
            return False
        return guest.disks.get(row.key.volume, NO_DISK).state is DiskState.PARTIAL

    def _is_whole(self, row: Attachment) -> bool:
        with suppress(MoorlineError):
            disk = self._hypervisor.disks(row.key.guest).get(row.key.volume, NO_DISK)
            return disk.state is DiskState.WHOLE
        return False

    def _due(self, row: Attachment, survey: Survey) -> Step | None:
        """The next step of *row* by *survey*; None: the survey knows nothing of it."""
        seen = self._reconciler.look(row, survey)
        return None if isinstance(seen, str) else next_step(row.want, seen)

    def _push(self, row: Attachment, progress: Progress) -> bool:
        """Take the steps that need no waiting; return whether *row* is as wanted then."""
        done = self._driver.push(row, progress)
        return not isinstance(done, Wait)

    def _let_go(self, absent: Attachment, progress: Progress) -> Seen:
        """Take the steps that need no waiting: the guest's owner may only unplug when we return."""
        came = self._driver.push(absent, progress)
        if isinstance(came, Wait) and came.seen is None:
            assert came.error is not None, "what could not be looked at met an error"
            with recorded():
                raise came.error
        assert came.seen is not None
        return came.seen

    def _verify_unplugged(self, row: Attachment) -> None:
        """Look at the file of a volume that no pass looks at, as it plugs no disk of it."""
        with told_about(row.key.volume, row.guest_name), recorded():
            if row.hands_off:
                self._reconciler.files.verify_alone(row)
            elif row.want is Level.CONNECTED:
                self._reconciler.files.verify(row)

    def _forgettable(self, row: Attachment, *, dry_run: bool) -> tuple[Attachment, Seen]:
        """*row* as it is to go, and what is seen of it. Raises Refused: something is left."""
        with told_about(row.key.volume, row.guest_name):
            self._admission.demand_release(row)
            if not dry_run:
                self._reconciler.files.settle(row.key.guest)
            absent = gone(row)
            seen = self._leftovers(absent)
            refuse_leftovers(absent, seen)
            return absent, seen

    def _leftovers(self, row: Attachment) -> Seen:
        try:
            return self._reconciler.observe(row)
        except Refused:  # the connection or the options no longer fit: look without the back end
            disks = self._hypervisor.disks(row.key.guest)
            return leftovers(row, disks, self._mounts())

    def _foreseen(self, row: Attachment, seen: Seen) -> Outcome:
        steps = [step.value for step in foresee(row.want, seen)]
        return Outcome(steps, self._reconciler.view(row, seen))

    def _refuse_impossible(self, attachment: Attachment, seen: Seen) -> None:
        """For a dry run: raise now what attaching would raise later."""
        if not isinstance(seen.link, Linked):
            return
        if seen.elsewhere:
            raise Refused(seen.elsewhere)
        source = self._reconciler.files.verify(attachment)
        if attachment.want is Level.ATTACHED and seen.disk == NO_DISK:
            self._hypervisor.check(attachment.key.guest, source, attachment.options)


def _unseen(attachment: Attachment, seen: Seen) -> str:
    """What a dry run could not check, because the volume is not linked yet; ''."""
    match seen.link:
        case Linked():
            return ""
        case Unlinked():
            why = f"{attachment.link} is not connected yet"
        case Broken(reason) | Foreign(reason) | Unknown(reason):
            why = reason
    return f"the volume itself, its size and format: {why}"
