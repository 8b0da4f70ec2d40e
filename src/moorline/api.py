"""The façade: attach, detach, extend, list, show, forget, sweep."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any

from moorline.care.doctor import Surroundings
from moorline.care.maintenance import Care
from moorline.core.admission import Wishes
from moorline.core.driver import (
    DEFAULT_TIMEOUT,
    Progress,
    Settler,
    gone,
    nothing_recorded,
    recorded,
    silent,
)
from moorline.core.naming import BY_ID_OR_DEVICE
from moorline.core.plan import Step, foresee, next_step
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records, trouble_key
from moorline.core.remains import refuse_remains, remains
from moorline.core.survey import Survey
from moorline.core.views import View, detailed, view
from moorline.errors import MoorlineError, NotFound, Refused
from moorline.model import (
    NO_DISK,
    Attachment,
    DiskOptions,
    Format,
    Level,
    Linked,
    Seen,
    Unlinked,
)
from moorline.operations.extend import Extender
from moorline.operations.guests import Guests
from moorline.operations.released import Released
from moorline.operations.relocate import Relocator
from moorline.ports import Hypervisor
from moorline.ports.guests import Machines

_AS_IT_COMES = DiskOptions()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change came to: the steps taken (or foreseen), and what is seen after them."""

    steps: list[str]
    view: View

    def to_dict(self) -> dict[str, Any]:
        """The same facts for JSON and YAML; the keys are stable."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Extended(Outcome):
    """What extending came to: also the volume's size for the guest, in bytes."""

    before: int
    size: int
    """What it is now, or with a dry run what it would be."""


class Moorline(Care):
    """Attaches volumes to the guests of this host, and keeps them attached.

    Made by :func:`moorline.wiring.open_host`, which also takes the host lock.
    Safe to use from several threads. All methods raise the errors of
    :mod:`moorline.errors`; those that change something can be repeated.
    """

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        machines: Machines | None = None,
        *,
        around: Surroundings | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._hypervisor = hypervisor
        self._around = around
        self._wishes = Wishes(records, reconciler, hypervisor)
        self._settler = Settler(records, reconciler)
        self._extender = Extender(reconciler, hypervisor)
        self._relocator = Relocator(records, reconciler, self._wishes, hypervisor)
        self._released = Released(records, self._wishes, hypervisor)
        self.guests = Guests(records, reconciler, self._wishes, self._settler, hypervisor, machines)
        """Guests themselves: launch, start, remove."""
        self._close = close

    def __enter__(self) -> Moorline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the hypervisor, the store and the host lock."""
        self._close()

    def attach(
        self,
        guest: str,
        connection: Mapping[str, Any] | str,
        *,
        format: Format | None = None,
        volume: str | None = None,
        level: Level = Level.ATTACHED,
        options: DiskOptions = _AS_IT_COMES,
        hands_off: bool = False,
        timeout: float | None = None,
        progress: Progress = silent,
        dry_run: bool = False,
    ) -> Outcome:
        """Wish that a volume be a disk of *guest*, and see to it.

        *guest*: name or id. *connection*: Cinder's ``connection_info``, or what
        a person types (``quobyte://reg/volume/file``, ``/path/to/file``), then
        with *format*. *volume*: its id, where the connection bears none.
        *hands_off*: somebody else (Nova) plugs the disk and defines the guest,
        now or later: *guest* is its id, the level at most CONNECTED.
        *timeout*: seconds to go on trying; None: 60, or less where the same step fails
        again and again. *dry_run*: change nothing, foresee.

        Success means that it was seen to be so. Refused: nothing is left of
        the wish, and one that stood before is as it was. Unavailable: nothing
        was recorded. Failed, Uncertain,
        NotOurs: the wish stands, and repeating this call or a sweep goes on
        with it. One that stood keeps its connection until a new one has worked.
        """
        with nothing_recorded():
            before, wish = self._wishes.make(
                guest, connection, format, volume, level, options, hands_off=hands_off
            )
            self._wishes.refuse_anothers_disk(before, wish)
            if dry_run:
                seen = self._reconciler.observe(wish)
                self._refuse_impossible(wish, seen)
                return _foreseen(wish, seen)
        stubborn = timeout is not None
        timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        end = time.monotonic() + timeout
        row, prepared = self._settler.record(before, wish, timeout, progress, stubborn=stubborn)
        try:
            left = max(0.0, end - time.monotonic())
            steps, done = self._settler.settle(row, left, progress, stubborn=stubborn)
            if row.hands_off:
                self._reconciler.verify(row)  # nobody of ours looks at it later
        except Refused:
            if wish != before:
                self._settler.withdraw(row, before)
            raise
        return Outcome([step.value for step in prepared + steps], view(row, done.seen))

    def detach(
        self,
        guest: str,
        volume: str,
        *,
        hands_off: bool = False,
        timeout: float = 60.0,
        progress: Progress = silent,
        dry_run: bool = False,
    ) -> Outcome | None:
        """Wish that a volume be no disk of *guest* any more, and see to it.

        *volume*: its id, the beginning of its id, its device in the guest, or what
        was typed to attach it. Returns None if it is a whole id, and there was
        nothing to do. The link goes when nobody else needs it. NotFound: there is no
        such guest, or nothing of it is called that. Failed: the guest has not let
        go; the wish stands. Refused: no volume can be called that, or several are.
        NotOurs: a disk bears the volume's mark, and we never plugged it.
        *hands_off*: only what was attached so is meant, by its ids; returns
        before the link is gone where the guest still names it.
        """
        with nothing_recorded():
            row = self._wishes.find(volume, guest, hands_off=hands_off)
        if row is None and hands_off:
            return None
        if row is None:
            left = self._released.detach(guest, volume, timeout=timeout, dry_run=dry_run)
            return Outcome([Step.DETACH.value], view(left, Seen(Unlinked()))) if left else None
        absent = gone(row)
        if dry_run:
            return _foreseen(absent, self._reconciler.observe(absent))
        if row.want is not Level.ABSENT:
            self._reconciler.demand_no_snapshot(row)
            absent = self._records.put(absent)
        if row.hands_off:
            return self._let_go(absent, progress)
        steps, done = self._settler.settle(absent, timeout, progress)
        after = replace(done.seen, disk=NO_DISK)
        return Outcome([step.value for step in steps], view(absent, after))

    def extend(
        self,
        guest: str,
        volume: str,
        size: int | None = None,
        *,
        timeout: float = 60.0,
        progress: Progress = silent,
        dry_run: bool = False,
    ) -> Extended:
        """Let *guest* see, while it runs, that a volume of its became larger.

        *size*: in bytes. Without it, as large as the storage has it now. Where
        files and block devices are the storage (libvirt, PowerVM), those must
        have been extended already, and are left as they are; vSphere's disks
        are made larger. As large already is success, and nothing is done.

        Raises NotFound (not attached), Refused (it would shrink, or this cannot
        be done while the guest runs), Failed (the storage is not as large yet,
        say), Uncertain. Nothing is recorded: repeat the call to go on.
        """
        row = self._wishes.find(volume, guest)
        if row is None:
            raise NotFound(f"volume {volume} is not known on {guest}", hint=BY_ID_OR_DEVICE)
        before, after = self._extender.extend(
            row, size, timeout=timeout, progress=progress, dry_run=dry_run
        )
        steps = ["extend"] if after != before else []
        return Extended(steps, view(row, self._reconciler.observe(row)), before, after)

    def _let_go(self, absent: Attachment, progress: Progress) -> Outcome:
        """Go as far as it goes now: its guest's owner may need us to return before it lets go."""
        done = self._settler.push(absent, progress)
        if isinstance(done, MoorlineError):
            with recorded():
                raise done
        return Outcome([done.step.value], view(absent, done.seen))

    def relocate(
        self,
        guest: str,
        volume: str,
        datastore: str,
        *,
        round_up: bool = False,
        progress: Progress = silent,
    ) -> View:
        """Move a volume of *guest* to another datastore while the guest has it (vSphere).

        *round_up*: it may become larger where the datastore wants whole MiB.
        There already is success. Blocks as long as the data takes to move.
        Raises NotFound (not attached), Refused, Failed, Uncertain: repeat the
        call to go on.
        """
        row = self._relocator.relocate(
            guest, volume, datastore, round_up=round_up, progress=progress
        )
        return view(row, self._reconciler.observe(row))

    def list(self) -> Sequence[View]:
        """Describe all attachments of this host, by guest and volume. Changes nothing."""
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
        """Describe the attachments of one volume and who else needs its link.

        Raises NotFound. Changes nothing.
        """
        survey = self._reconciler.survey()
        return [
            detailed(
                row, self._reconciler.look(row, survey), self._records.trouble(row.key), survey
            )
            for row in self._wishes.known(volume, survey.rows)
        ]

    def forget(
        self, volume: str, guest: str | None = None, *, dry_run: bool = False
    ) -> Sequence[View]:
        """Drop wishes whose disk and link are provably gone.

        Raises NotFound, and Refused if anything of it is still there.
        """
        mine = [
            row
            for row in self._wishes.known(volume)
            if guest is None or guest in (row.guest_name, row.key.guest)
        ]
        if not mine:
            raise NotFound(f"volume {volume} is not wanted on {guest}", hint="moorline list")
        looks = [(row, self._remains(row)) for row in map(gone, mine)]
        for row, seen in looks:
            refuse_remains(row, seen)
        if not dry_run:
            for row, seen in looks:
                self._reconciler.tidy(row, seen)
                self._records.forget(row)
        return [view(row, seen) for row, seen in looks]

    def sweep(self, progress: Progress = silent) -> Sequence[View]:
        """Bring every attachment as far as it goes without waiting.

        Returns those that are not as wished afterwards, with what stands in
        the way. One attachment's error never stops another.
        """
        survey = self._reconciler.survey()
        steps = [(row, self._due(row, survey)) for row in survey.rows]
        due = [row for row, step in steps if step not in (Step.NOTHING, Step.WAIT, Step.PARK)]
        left = {row.key: self._push(row, progress) for row in due}
        if due:
            survey = self._reconciler.survey()  # what waits may have waited for what was done
        for row in (row for row, step in steps if step in (Step.WAIT, Step.PARK)):
            if self._due(row, survey) in (Step.WAIT, Step.PARK):
                seen = self._reconciler.look(row, survey)
                left[row.key] = view(row, seen, self._records.trouble(row.key))
            else:
                left[row.key] = self._push(row, progress)
        told = [left.get(row.key) for row, _ in steps]
        return [view for view in told if view is not None]

    def _due(self, row: Attachment, survey: Survey) -> Step | None:
        """The step that is next by *survey*; None: it can tell nothing of *row*."""
        seen = self._reconciler.look(row, survey)
        return None if isinstance(seen, str) else next_step(row.want, seen)

    def _push(self, row: Attachment, progress: Progress) -> View | None:
        """Take its steps as far as they go; describe it if it is not as wished then."""
        done = self._settler.push(row, progress)
        if isinstance(done, MoorlineError):
            return view(row, str(done), self._records.trouble(row.key))
        if done.step in (Step.NOTHING, Step.FORGET):
            return None
        return view(row, done.seen, self._records.trouble(row.key))

    def _remains(self, row: Attachment) -> Seen:
        try:
            return self._reconciler.observe(row)
        except Refused:  # the connection or the options no longer fit: what is there still tells
            if self._around is None:
                raise
            disks = self._hypervisor.disks(row.key.guest)
            return remains(row, disks, self._around.mounts())

    def _refuse_impossible(self, wish: Attachment, seen: Seen) -> None:
        """Refuse now, for a dry run, what attaching would refuse later."""
        if not isinstance(seen.link, Linked):
            return
        if seen.elsewhere:
            raise Refused(seen.elsewhere)
        source = self._reconciler.verify(wish)
        if wish.want is Level.ATTACHED and seen.disk == NO_DISK:
            self._hypervisor.check(wish.key.guest, source, wish.options)


def _foreseen(row: Attachment, seen: Seen) -> Outcome:
    return Outcome([step.value for step in foresee(row.want, seen)], view(row, seen))
