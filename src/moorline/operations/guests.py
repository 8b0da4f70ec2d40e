"""Launch, start and remove guests; make the links ready that a guest needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from moorline.core.admission import Admission
from moorline.core.driver import Driver, gone, nothing_recorded, recorded
from moorline.core.name_lookup import guest_called, is_whole
from moorline.core.no_fleet import ALONE
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.retry_loop import keeping_timeout
from moorline.core.validation import check_reason
from moorline.deadline import Deadline
from moorline.disk_options import AS_IT_COMES
from moorline.errors import MoorlineError, NotFound, Refused
from moorline.model import Attachment, DiskOptions, Format, GuestId, GuestName, Level, VolumeId
from moorline.operations.destroyed_disks import kept
from moorline.operations.guest_dry_run import GuestDryRun
from moorline.operations.guest_options import (
    Volume,
    refuse_options,
    validate,
    volumes_of,
)
from moorline.operations.guest_queries import GuestQueries
from moorline.operations.guest_shutdown import bring_down
from moorline.operations.launch_disks import LaunchDisks
from moorline.operations.ready_links import ReadyLinks, is_ours_to_plug
from moorline.operations.relaunch import Relaunch
from moorline.operations.removal import LaunchedElsewhere, Removal, nowhere
from moorline.operations.service_launch import LaunchedByName
from moorline.ports import Hypervisor
from moorline.ports.guarding import Guarding
from moorline.ports.guest_results import GuestOutcome
from moorline.ports.guests import GuestLifecycle, GuestState
from moorline.ports.progress import Progress, no_progress
from moorline.ports.results import View
from moorline.ports.volume_service import is_named

Note = Callable[[str, str, float, MoorlineError | None], None]
"""Called after a step on a guest: its name, the guest, the seconds that it took, and its error.
Must neither block nor raise."""


class Guests:
    """See :class:`moorline.ports.api.Guests`."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        admission: Admission,
        driver: Driver,
        hypervisor: Hypervisor,
        lifecycle: GuestLifecycle[Any] | None,
        note: Note,
        guard: Guarding = ALONE,
        launched_elsewhere: LaunchedElsewhere = nowhere,
        *,
        by_name: LaunchedByName,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._admission = admission
        self._driver = driver
        self._hypervisor = hypervisor
        self._lifecycle = lifecycle
        self._note = note
        self._by_name = by_name
        self._disks = LaunchDisks(
            records, reconciler, admission, driver, hypervisor, guard, self._able
        )
        self._dry_run = GuestDryRun(reconciler, admission, by_name)
        self._again = Relaunch(records, admission, hypervisor)
        self._removal = Removal(records, reconciler, admission, launched_elsewhere)
        links = ReadyLinks(records, reconciler, driver, hypervisor)
        self.ready, self.unready = links.ready, links.unready
        looks = GuestQueries(hypervisor)
        self.all, self.datastores = looks.all, looks.datastores
        self._guard = guard

    @keeping_timeout
    def launch(
        self,
        name: str,
        boot: Mapping[str, Any] | str | None = None,
        *,
        format: Format | None = None,
        connections: Sequence[Mapping[str, Any]] = (),
        hardware: Mapping[str, Any] | None = None,
        options: DiskOptions = AS_IT_COMES,
        start: bool = True,
        vouch: str = "",
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> GuestOutcome:
        if vouch:
            check_reason(vouch)
        lifecycle = self._able()
        volumes = volumes_of(self._hypervisor.kind, lifecycle.launching, boot, format, connections)
        asked = validate(lifecycle.launching.options, hardware)
        refuse_options(options, volumes)
        self._by_name.refuse_formats(volumes)
        # Refused before anything is made.
        admitted = [
            self._admission.admit(connection, its)
            for connection, its in volumes
            if not is_named(connection)
        ]
        wanted = lifecycle.parse(name, asked)
        if dry_run:
            lifecycle.check(name, wanted)
            known = self._named(name) if self._is_made(name) else None
            if known and not self._by_name.any(volumes):
                self._again.refuse_other_volumes(known, volumes, options, vouched=bool(vouch))
            return self._dry_run.launch(
                name, known, volumes, options, start=start, vouched=bool(vouch)
            )
        steps: list[str] = []
        with self._alone(name, Deadline(timeout)):
            with nothing_recorded():
                lifecycle.check(name, wanted)
                made = self._is_made(name)
                if made and not self._by_name.any(volumes):
                    known = self._named(name)
                    self._again.refuse_other_volumes(known, volumes, options, vouched=bool(vouch))
                named = [] if made else self._by_name.demand_free(volumes)
                told = [] if made else [VolumeId(each.volume or each.id) for each in admitted]
                for volume in [*told, *named]:
                    self._guard.demand_attach(volume, vouched=bool(vouch))
            if not made:  # what is half made is destroyed, and made anew
                with self._step("define", name, steps), kept(self._reconciler, self._seen(name)):
                    lifecycle.define(name, wanted, progress)
            with recorded():
                machine = self._named(name)
                if not made:
                    self._records.launched(machine.guest.id)
                if machine.running and machine.disks and not start:
                    raise Refused(
                        f"{name} is powered on: its disk is no volume for others",
                        hint="launch a volume under another name",
                    )
                views = self._give(
                    machine, volumes, options, vouch, Deadline(timeout), progress, steps
                )
                if start and not machine.running:
                    self._start(machine, progress, steps, vouch)
        running = start or machine.running
        return GuestOutcome(name, machine.guest.id, running, steps, views, [*machine.disks])

    @keeping_timeout
    def start(
        self,
        guest: str,
        *,
        vouch: str = "",
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> GuestOutcome:
        if vouch:
            check_reason(vouch)
        if dry_run:
            seen = self._named(guest)
            if not seen.running:
                self._guard.demand(seen.guest.id, vouch, dry_run=True)
            return self._dry_run.start(seen, self._wanted_by(seen.guest.id))
        deadline = Deadline(timeout)
        with nothing_recorded():
            name = self._named(guest).guest.name
        with self._alone(name, deadline):
            with nothing_recorded():
                machine = self._named(guest)
            id = machine.guest.id
            steps: list[str] = []
            if not machine.running:
                self._guard.demand(id, vouch)
            views = [self._settle(row, deadline, progress, steps) for row in self._wanted_by(id)]
            if not machine.running:
                self._start(machine, progress, steps)
        return GuestOutcome(machine.guest.name, id, True, steps, views, [*machine.disks])

    @keeping_timeout
    def remove(
        self,
        guest: str,
        *,
        force: bool = False,
        any: bool = False,
        timeout: float = 60.0,
        progress: Progress = no_progress,
        dry_run: bool = False,
    ) -> GuestOutcome | None:
        validate(self._able().launching.removal, {"force": force, "any": any})
        deadline = Deadline(timeout)
        with nothing_recorded():
            seen = self._seen(guest)
        with self._alone(seen.guest.name if seen else guest, deadline):
            return self._remove(guest, force, any, deadline, progress, dry_run)

    def _remove(
        self,
        guest: str,
        force: bool,
        any: bool,
        deadline: Deadline,
        progress: Progress,
        dry_run: bool,
    ) -> GuestOutcome | None:
        with nothing_recorded():
            machine = self._seen(guest)
            rows = self._left_by(guest) if machine is None else self._held_by(machine.guest.id)
            if machine is None and not rows:
                if not is_whole(guest):
                    self._named(guest)  # raises NotFound: the name may be mistyped
                self._guard.demand_gone(guest, "", here=False)
                return None
            self._removal.refuse(self._able(), machine, rows, any=any)
        if dry_run:
            return self._dry_run.remove(guest, machine, rows)
        steps: list[str] = []
        if machine is not None:
            self._stop(machine, force, deadline, progress, steps)
        with recorded():
            for row in rows:
                absent = gone(row)
                with self._driver.claim(absent):
                    if row.want > Level.ABSENT:
                        absent = self._records.put(absent)
                    self._settle(absent, deadline, progress, steps)
            if machine is not None:
                self._undefine(machine, deadline, steps)
        removed = machine.guest if machine else GuestName(rows[0].key.guest, guest)
        self._by_name.give_back(removed, deadline)
        return GuestOutcome(removed.name, removed.id, False, steps)

    def _undefine(self, machine: GuestState, deadline: Deadline, steps: list[str]) -> None:
        name, id = machine.guest.name, machine.guest.id
        disks = kept(self._reconciler, machine, deadline.left())
        with self._reconciler.with_guest(id), self._step("undefine", name, steps), disks:
            self._able().remove(id)
        with suppress(MoorlineError):  # the guest is gone, which is what counts
            self._records.drop_launched(id)
            self._guard.removed(id)

    def permit(self, guest: str, *, ours: bool, arriving: bool = False) -> None:
        self._guard.permit(GuestId(guest), ours=ours, arriving=arriving)

    def _able(self) -> GuestLifecycle[Any]:
        if self._lifecycle is None:
            raise Refused(
                f"Moorline does not make, start or remove {self._hypervisor.kind} guests",
                hint="it attaches volumes to them: moorline attach",
            )
        return self._lifecycle

    def _alone(self, name: str, deadline: Deadline) -> AbstractContextManager[None]:
        """Hold the lock for making or removing the guest *name*, which may have no id yet.

        Blocks until the deadline, then raises Busy. It is always the outermost lock, so that no two
        callers wait for each other.
        """
        return self._reconciler.with_guest(GuestId(f"called {name}"), deadline.left())

    @contextmanager
    def _step(self, step: str, name: str, steps: list[str]) -> Iterator[None]:
        """Run a step on a guest; report it, and add it to *steps* if it succeeded."""
        begun = time.monotonic()
        try:
            yield
        except MoorlineError as e:
            self._note(step, name, time.monotonic() - begun, e)
            raise
        self._note(step, name, time.monotonic() - begun, None)
        steps.append(step)

    def _give(
        self,
        machine: GuestState,
        volumes: Sequence[Volume],
        options: DiskOptions,
        vouch: str,
        deadline: Deadline,
        progress: Progress,
        steps: list[str],
    ) -> list[View]:
        """Attach *volumes* as its disks, the first as the boot disk.

        If one is refused, all that was made is removed again.
        """
        readonly = bool(options.readonly)
        try:
            with self._by_name.given(
                machine.guest, volumes, deadline, progress, readonly=readonly
            ) as given:
                if self._by_name.any(volumes):
                    self._again.refuse_other_volumes(machine, given, options, vouched=bool(vouch))
                return self._disks.give(machine, given, options, vouch, deadline, progress, steps)
        except Refused:
            if "define" in steps:
                self._disks.undefine(machine.guest.id)
            raise

    def _is_made(self, name: str) -> bool:
        """Whether there is a guest that is named *name* and was made completely."""
        try:
            machine = self._able().look(self._hypervisor.find(name).id)
        except NotFound:
            return False
        return machine.guest.name == name and not machine.half  # else it is another's id

    def _named(self, name: str) -> GuestState:
        return self._able().look(guest_called(name, self._hypervisor).id)

    def _seen(self, guest: str) -> GuestState | None:
        try:
            return self._named(guest)
        except NotFound:
            return None

    def _held_by(self, id: GuestId) -> list[Attachment]:
        """The attachments of this guest.

        Found by id: another guest may be named like this one's id.
        """
        return [row for row in self._records.all() if row.key.guest == id]

    def _wanted_by(self, id: GuestId) -> list[Attachment]:
        return [row for row in self._held_by(id) if row.want > Level.ABSENT]

    def _left_by(self, guest: str) -> list[Attachment]:
        """The attachments of a guest that is gone, by its id or by its name when they were made."""
        rows = [row for row in self._records.all() if guest in (row.key.guest, row.guest_name)]
        # A guest that was renamed since is not gone.
        return [row for row in rows if self._seen(row.key.guest) is None]

    def _settle(
        self, row: Attachment, deadline: Deadline, progress: Progress, steps: list[str]
    ) -> View:
        taken, done = self._driver.settle(row, deadline, progress)
        steps += [step.value for step in taken]
        return self._reconciler.view(row, done.seen)

    def _start(
        self, machine: GuestState, progress: Progress, steps: list[str], vouch: str = ""
    ) -> None:
        name, id = machine.guest.name, machine.guest.id
        self._guard.demand(id, vouch)
        progress(f"starting {name}")
        given = self._reconciler.files.giving(filter(is_ours_to_plug, self._wanted_by(id)))
        with self._reconciler.with_guest(id), self._step("start", name, steps), given:
            self._able().start(id)

    def _stop(
        self,
        machine: GuestState,
        force: bool,
        deadline: Deadline,
        progress: Progress,
        steps: list[str],
    ) -> None:
        """Shut the guest down and wait until it is. Raises Failed when the deadline is over."""
        if machine.running or machine.saved:
            with self._step("stop", machine.guest.name, steps):
                bring_down(machine, self._able(), self._reconciler, force, deadline, progress)
