"""repair: does those things that doctor advises and that harm nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from moorline.care.environment import Environment
from moorline.care.strays import strays, unwanted
from moorline.core.driver import nothing_recorded
from moorline.core.link_usage import unknown_users, users
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import MoorlineError
from moorline.model import (
    Disk,
    Foreign,
    Guest,
    GuestId,
    Unknown,
    Unlinked,
    VolumeId,
)
from moorline.ports.care_results import Repair
from moorline.ports.inspection import Discovering, Found


class Detach(Protocol):
    """As :meth:`moorline.ports.api.Attachments.detach`."""

    def __call__(self, guest: str, volume: str, *, dry_run: bool) -> object:
        """See there."""


class Repairer:
    """repair of :class:`moorline.ports.api.Maintenance`.

    Unknown means in use: what may be in use is not touched.
    """

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        survey: Callable[[], Sequence[Guest]],
        detach: Detach,
        environment: Environment,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._survey = survey
        self._detach = detach
        self._environment = environment

    def repair(
        self, *, disks: bool = False, boot_disks: bool = False, dry_run: bool = False
    ) -> list[Repair]:
        with nothing_recorded():
            rows, guests = self._records.all(), self._survey()
        made = []
        if disks:
            going = []
            for guest, volume in unwanted(rows, guests, self._records.released()):
                disk = guest.disks[volume]
                due = Repair("detach", f"{guest.name}/{volume}", disk.device, disk.source)
                if not boot_disks and (why := self._vital(guest, disk)):
                    due = replace(due, problem=why)
                else:
                    due = self._try_detach(due, guest.id, volume, dry_run=dry_run)
                if not due.problem:
                    going.append((guest, volume))
                made.append(due)
            # Without these disks, links may be free.
            guests = _without(guests, going) if dry_run else self._survey()
        for backend, found in strays(self._environment.backends, rows, guests):
            if not isinstance(found.ill, Foreign | Unknown) and not found.elsewhere:
                action = "remove" if isinstance(found.ill, Unlinked) else "disconnect"
                due = Repair(action, found.link)
                made.append(due if dry_run else self._try_clear(due, backend, found))
        return made

    def _try_detach(self, due: Repair, guest: str, volume: str, *, dry_run: bool) -> Repair:
        try:
            self._detach(guest, volume, dry_run=dry_run)
        except MoorlineError as e:
            return replace(due, problem=str(e))
        return replace(due, done=not dry_run)

    def _vital(self, guest: Guest, disk: Disk) -> str:
        """Why the guest might not boot without the disk; '': it would."""
        if self._environment.inventory is None:
            return f"it cannot be told whether {guest.name} boots from it (--boot-disks)"
        try:
            all_disks = self._environment.inventory.disks(guest.id)
        except MoorlineError as e:
            return f"it cannot be told whether {guest.name} boots from it: {e}"
        if any(each.boots for each in all_disks if each.path == disk.source):
            return f"{guest.name} boots from it (--boot-disks)"
        if not {each.path for each in all_disks} - {disk.source}:
            return f"it is the only disk of {guest.name} (--boot-disks)"
        return ""

    def _try_clear(self, due: Repair, backend: Discovering, found: Found) -> Repair:
        try:
            # Under its lock nobody connects the link while we look once more whether it is needed.
            with self._reconciler.with_link(found.link):
                wanted = {row.link for row in self._records.all()}
                guests = self._survey()
                if found.link in wanted or users(found.link, guests):
                    return replace(due, problem="it is needed by now")
                if unsure := unknown_users(guests):
                    return replace(due, problem=f"it may be needed: {'; '.join(unsure)}")
                backend.clear(found.link)
        except MoorlineError as e:
            return replace(due, problem=str(e))
        self._environment.event_log.saw(f"repaired: {due.action} {due.subject}", link=found.link)
        return replace(due, done=True)


def _without(guests: Sequence[Guest], disks: Sequence[tuple[Guest, VolumeId]]) -> list[Guest]:
    """*guests* without *disks*, as they will be when those are gone."""
    gone: dict[GuestId, set[str]] = {}
    for guest, volume in disks:
        gone.setdefault(guest.id, set()).add(guest.disks[volume].source)
    return [replace(guest, paths=guest.paths - gone.get(guest.id, set())) for guest in guests]
