"""disks: every disk of every guest, and whose it is. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from moorline.care.environment import Environment
from moorline.core.driver import nothing_recorded
from moorline.core.name_lookup import guest_called
from moorline.core.records import Records
from moorline.errors import MoorlineError, NotFound
from moorline.model import Attachment, DiskState, Guest, VolumeId
from moorline.ports import Backends, ExtendingHypervisor, Hypervisor, Mount
from moorline.ports.care_results import Candidate
from moorline.ports.inspection import Discovering, GuestDisk
from moorline.ports.mount import by_target, covering

_Rows = Mapping[tuple[str, str], Attachment]
"""The attachments of this host, by guest and volume."""


class Disks:
    """disks of :class:`moorline.ports.api.Maintenance`."""

    def __init__(self, records: Records, hypervisor: Hypervisor, environment: Environment) -> None:
        self._records = records
        self._hypervisor = hypervisor
        self._environment = environment

    def disks(self, guest: str | None = None) -> list[Candidate]:
        with nothing_recorded():
            guests = self._hypervisor.survey()
            id = "" if guest is None else guest_called(guest, self._hypervisor).id
        if guest is not None:
            guests = [each for each in guests if each.id == id]
        rows: _Rows = {(row.key.guest, row.key.volume): row for row in self._records.all()}
        released = self._records.released().keys()
        mounts = self._environment.mounts()
        return [
            self._candidate(each, disk, rows, released, mounts)
            for each in sorted(guests, key=lambda found: (found.name, found.id))
            for disk in self._of(each, alone=guest is not None)
        ]

    def _of(self, guest: Guest, *, alone: bool) -> Sequence[GuestDisk]:
        """The disks of *guest*. *alone*: raise what one that cannot be read meets."""
        inventory = self._environment.inventory
        if inventory is None:
            return [*_told(guest)]
        try:
            return inventory.disks(guest.id)
        except NotFound:
            return []  # it went away meanwhile
        except MoorlineError:
            if alone:
                raise
            return [*_told(guest)]  # one guest's error never hides the others

    def _candidate(
        self,
        guest: Guest,
        disk: GuestDisk,
        rows: _Rows,
        released: Set[tuple[str, str]],
        mounts: Sequence[Mount],
    ) -> Candidate:
        row = rows.get((guest.id, disk.mark)) or rows.get((guest.id, disk.serial))
        return Candidate(
            disk,
            kind_of(disk.path, mounts, self._environment.backends),
            wanted=(guest.id, disk.mark) in rows,
            guest=guest.name,
            whose=_whose(disk, row, was_ours=(guest.id, disk.mark) in released),
            size=self._size(guest, disk),
        )

    def _size(self, guest: Guest, disk: GuestDisk) -> int | None:
        """The bytes that the guest sees; None: that cannot be told now."""
        try:
            if disk.path.startswith("/"):
                return self._environment.measure(Path(disk.path), disk.format)
            if disk.mark and isinstance(self._hypervisor, ExtendingHypervisor):
                return self._hypervisor.sizes(guest.id, VolumeId(disk.mark)).guest
        except (MoorlineError, OSError):
            pass
        return None


def kind_of(path: str, mounts: Sequence[Mount], backends: Backends) -> str:
    """The kind of the back end whose mount *path* lies on; '' if there is none."""
    mount = covering(path, by_target(mounts)) if path.startswith("/") else None
    for kind in backends if mount else ():
        try:
            backend = backends[kind]
        except MoorlineError:
            continue
        if mount and isinstance(backend, Discovering) and backend.claims(mount):
            return kind
    return ""


def _whose(disk: GuestDisk, row: Attachment | None, *, was_ours: bool) -> str:
    """See :attr:`Candidate.whose`."""
    if row is not None and row.hands_off:
        return "nova"
    if row is not None and disk.mark:
        return "ours"
    if was_ours:
        return "released"
    return "nova" if disk.nova else "other"


def _told(guest: Guest) -> Iterator[GuestDisk]:
    """What the survey tells of its disks, where nobody tells more."""
    ours = {disk.source for disk in guest.disks.values()}
    uses = {use.path: use for use in guest.uses}
    for volume, disk in sorted(guest.disks.items()):
        running = guest.running and disk.state is not DiskState.NONE
        use = next(iter(disk.uses), None)
        yield _plain(disk.device, disk.source, use.format if use else "", volume, running=running)
    for path in sorted(guest.paths - ours):
        format = uses[path].format if path in uses else ""
        yield _plain("", path, format, "", running=guest.running)


def _plain(device: str, path: str, format: str, mark: str, *, running: bool) -> GuestDisk:
    return GuestDisk(device, path, format, "", mark, "", False, False, running, defined=True)
