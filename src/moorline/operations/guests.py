"""Launch, start and remove guests; make the links ready that a guest needs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from moorline.core.admission import Wishes
from moorline.core.asker import is_trusted
from moorline.core.driver import Settler, gone, recorded
from moorline.core.naming import guest_called
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.views import view
from moorline.errors import Denied, Failed, MoorlineError, NotFound, NotOurs, Refused
from moorline.model import Attachment, DiskOptions, Format, GuestId, Level, Linked
from moorline.ports import Hypervisor
from moorline.ports.api import Progress, silent
from moorline.ports.guests import Hardware, Machine, Machines
from moorline.ports.results import GuestOutcome, View

ASK_AGAIN = 5.0
"""Seconds after which a guest is asked anew to shut down: one that boots does not hear it."""
_ASKED = {False: "was asked to shut down", True: "had its power cut"}
_Made = tuple[Attachment | None, Attachment]
"""The wish that stood before, if any, and the one that was made."""
_AS_THE_TEMPLATE_SAYS = Hardware()
_LOOK = 0.05


class Guests:
    """See :class:`moorline.ports.api.Guests`."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        wishes: Wishes,
        settler: Settler,
        hypervisor: Hypervisor,
        machines: Machines | None,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._wishes = wishes
        self._settler = settler
        self._hypervisor = hypervisor
        self._machines = machines

    def launch(
        self,
        name: str,
        boot: Mapping[str, Any] | str,
        *,
        format: Format | None = None,
        connections: Sequence[Mapping[str, Any]] = (),
        hardware: Hardware = _AS_THE_TEMPLATE_SAYS,
        start: bool = True,
        timeout: float = 60.0,
        progress: Progress = silent,
    ) -> GuestOutcome:
        machines = self._able()
        _refuse_untrusted(hardware)
        for connection, its in ((boot, format), *((c, None) for c in connections)):
            self._wishes.admit(connection, its)  # refused before anything is made
        machines.check(name, hardware)
        there = self._seen(name)  # by its id, too: that is another guest
        steps = [] if there is not None and there.guest.name == name else ["define"]
        machines.define(name, hardware)
        with recorded():
            machine = self._named(name)
            end = time.monotonic() + timeout
            id = machine.guest.id
            made: list[_Made] = []
            try:
                made.append(self._wish(id, boot, format, machine.boot, end))
                made += [self._wish(id, connection, None, 0, end) for connection in connections]
                views = [self._settle(row, end, progress, steps) for _, row in made]
            except Refused:
                self._withdraw(id, made, defined="define" in steps)
                raise
            if start and not machine.running:
                self._start(machine, progress, steps)
            return GuestOutcome(name, id, start or machine.running, steps, views)

    def start(
        self, guest: str, *, timeout: float = 60.0, progress: Progress = silent
    ) -> GuestOutcome:
        machine = self._named(guest)
        id = machine.guest.id
        end = time.monotonic() + timeout
        steps: list[str] = []
        views = [self._settle(row, end, progress, steps) for row in self._wanted_by(id)]
        if not machine.running:
            self._start(machine, progress, steps)
        return GuestOutcome(machine.guest.name, id, True, steps, views)

    def remove(
        self,
        guest: str,
        *,
        force: bool = False,
        any: bool = False,
        timeout: float = 60.0,
        progress: Progress = silent,
    ) -> GuestOutcome | None:
        machine = self._seen(guest)
        rows = self._left_by(guest) if machine is None else self._held_by(machine.guest.id)
        if machine is None and not rows:
            return None
        if machine is not None and not (machine.launched or any):
            raise NotOurs(
                f"{machine.guest.name} was not launched by Moorline, and is not removed",
                hint="--any removes it all the same",
            )
        for row in rows:
            self._reconciler.demand_no_snapshot(row)
        steps: list[str] = []
        if machine is not None:
            self._stop(machine, force, time.monotonic() + timeout, progress, steps)
        with recorded():
            end = time.monotonic() + timeout
            for row in rows:
                absent = self._records.put(gone(row)) if row.want > Level.ABSENT else row
                self._settle(absent, end, progress, steps)
            if machine is None:
                return GuestOutcome(guest, rows[0].key.guest, False, steps)
            with self._reconciler.with_guest(machine.guest.id):
                self._able().remove(machine.guest.id)
            return GuestOutcome(machine.guest.name, machine.guest.id, False, [*steps, "undefine"])

    def unready(self, guest: str) -> list[str]:
        links = self._reconciler.survey().links
        return [
            row.key.volume
            for row in self._wanted_by(GuestId(guest))
            if not isinstance(links.inspect(row), Linked)
        ]

    def ready(self, guest: str, *, timeout: float = 60.0, progress: Progress = silent) -> list[str]:
        end = time.monotonic() + timeout
        return [
            row.key.volume
            for row in self._wanted_by(GuestId(guest))
            if self._settler.connect(row, max(0.0, end - time.monotonic()), progress)
        ]

    def _able(self) -> Machines:
        if self._machines is None:
            raise Refused(
                f"Moorline does not make, start or remove {self._hypervisor.kind} guests",
                hint="it attaches volumes to them: moorline attach",
            )
        return self._machines

    def _named(self, name: str) -> Machine:
        return self._able().look(guest_called(name, self._hypervisor).id)

    def _seen(self, guest: str) -> Machine | None:
        try:
            return self._named(guest)
        except NotFound:
            return None

    def _held_by(self, id: GuestId) -> list[Attachment]:
        """The wishes for this guest alone: another one's name may be this one's id."""
        return [row for row in self._records.all() if row.key.guest == id]

    def _wanted_by(self, id: GuestId) -> list[Attachment]:
        return [row for row in self._held_by(id) if row.want > Level.ABSENT]

    def _left_by(self, guest: str) -> list[Attachment]:
        """Those for a guest that is gone, by its id or the name it had when they were made."""
        rows = [row for row in self._records.all() if guest in (row.key.guest, row.guest_name)]
        # One that was renamed since is not gone.
        return [row for row in rows if self._seen(row.key.guest) is None]

    def _wish(
        self,
        guest: GuestId,
        connection: Mapping[str, Any] | str,
        format: Format | None,
        boot: int,
        end: float,
    ) -> _Made:
        """Record that a volume be a disk of *guest*. Raises Refused, with nothing recorded."""
        options = DiskOptions(boot=boot)
        before, wish = self._wishes.make(guest, connection, format, None, Level.ATTACHED, options)
        others = [row for row in self._wanted_by(guest) if row.options.boot and row.key != wish.key]
        self._wishes.refuse_anothers_disk(before, wish)
        if boot and others:
            raise Refused(
                f"{wish.guest_name} boots from volume {others[0].key.volume} already",
                hint=f"moorline detach {wish.guest_name} {others[0].key.volume}",
            )
        row, _ = self._settler.record(before, wish, max(0.0, end - time.monotonic()))
        return before, row

    def _settle(self, row: Attachment, end: float, progress: Progress, steps: list[str]) -> View:
        taken, done = self._settler.settle(row, max(0.0, end - time.monotonic()), progress)
        steps += [step.value for step in taken]
        return view(row, done.seen)

    def _withdraw(self, guest: GuestId, made: Sequence[_Made], *, defined: bool) -> None:
        """Take back what a refused launch has made; *defined*: the guest as well."""
        for before, row in made:
            if row != before:
                self._settler.withdraw(row, before)
        if not defined:
            return
        with suppress(MoorlineError):  # the refusal is what the caller must hear
            machine = self._able().look(guest)
            if machine.launched and not machine.running and not self._hypervisor.disks(guest):
                self._able().remove(guest)

    def _start(self, machine: Machine, progress: Progress, steps: list[str]) -> bool:
        progress(f"starting {machine.guest.name}")
        with self._reconciler.with_guest(machine.guest.id):
            self._able().start(machine.guest.id)
        steps.append("start")
        return True

    def _stop(
        self, machine: Machine, force: bool, end: float, progress: Progress, steps: list[str]
    ) -> None:
        """Bring it down and wait for that. Raises Failed when the time is over."""
        name, id = machine.guest.name, machine.guest.id
        ask = time.monotonic()
        if not (machine.running or machine.saved):
            return
        steps.append("stop")
        while machine.running or machine.saved:
            if time.monotonic() >= ask:
                progress(f"stopping {name}")
                with self._reconciler.with_guest(id):
                    self._able().stop(id, force=force)
                ask += ASK_AGAIN
            if time.monotonic() > end:
                raise Failed(
                    f"{name} {_ASKED[force]} and still runs; it is not removed",
                    hint="" if force else "--force cuts its power",
                )
            time.sleep(_LOOK)
            try:
                machine = self._able().look(id)
            except NotFound:
                return  # it had no definition


def _refuse_untrusted(hardware: Hardware) -> None:
    """A template can name any file and device of this host, as a kernel or a log. Raises Denied."""
    if hardware.template and not is_trusted():
        raise Denied(
            "this user may not launch from a template: it can name any file of this host",
            hint="root may, or launch without --template",
        )
