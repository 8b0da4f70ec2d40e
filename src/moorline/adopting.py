"""Takes over disks that somebody else plugged, and gives them back; neither is touched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from moorline.discovery import Discovering, GuestDisk
from moorline.doctor import Surroundings
from moorline.errors import MoorlineError, NotFound, Refused
from moorline.model import (
    Attachment,
    BlockDevice,
    DiskOptions,
    Format,
    GuestName,
    ImageFile,
    Level,
    Linked,
)
from moorline.ports import Hypervisor, Mount
from moorline.reconciler import Reconciler
from moorline.records import Records
from moorline.views import View, view
from moorline.wishes import Wishes

_VOLUME_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A disk of a guest, and whether it could be adopted."""

    disk: GuestDisk
    backend: str
    """The kind of the mount that it lies on; '' if none of ours."""
    wished: bool

    def to_dict(self) -> dict[str, Any]:
        """The same facts for JSON and YAML; the keys are stable."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Adoption:
    """What adopting or releasing came to: the steps (mark, adopt, release), and what is seen."""

    steps: list[str]
    view: View

    def to_dict(self) -> dict[str, Any]:
        """The same facts for JSON and YAML; the keys are stable."""
        return asdict(self)


class Adopter:
    """Makes wishes of disks that are there, and drops wishes whose disks shall stay."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        wishes: Wishes,
        around: Surroundings,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._hypervisor = hypervisor
        self._wishes = wishes
        self._around = around

    def candidates(self, guest: str) -> list[Candidate]:
        """The disks of *guest* (name or id)."""
        found = self._hypervisor.find(guest)
        wished = {row.key.volume for row in self._records.all() if row.key.guest == found.id}
        mounts = self._around.mounts()
        return [
            Candidate(disk, self._kind(disk.path, mounts), disk.mark in wished)
            for disk in self._disks(found)
        ]

    def adopt(
        self,
        guest: str,
        connection: Mapping[str, Any] | str,
        *,
        format: Format | None,
        volume: str | None,
        target: str,
        dry_run: bool,
    ) -> Adoption:
        """Wish what is there already: the disk of *guest* that is the connection's volume.

        The disk stays as it is; one without a mark gets it, which needs a
        stopped guest. Raises Refused (no such disk, or it is another), NotFound.
        """
        found = self._hypervisor.find(guest)
        place = self._wishes.place(connection, format)
        backend = self._reconciler.backend(place.backend)
        parsed = backend.parse(place.connection)
        link = backend.inspect(parsed)
        disks = self._disks(found)
        source = link.source if isinstance(link, Linked) else None
        if not isinstance(source, ImageFile | BlockDevice):
            raise self._elsewhere(found, disks, place.backend, parsed, str(place.link))
        disk = next((d for d in disks if d.path == str(source.path)), None)
        if disk is None:
            raise self._elsewhere(found, disks, place.backend, parsed, str(source.path))
        _refuse_other(disk, source, target)
        backend.verify(parsed)
        id = volume or place.volume or disk.mark or _usable(disk.serial)
        options = DiskOptions(disk.bus, disk.device, disk.readonly, disk.shared)
        before, wish = self._wishes.make(
            found.id, connection, format, id or None, Level.ATTACHED, options
        )
        if disk.mark not in ("", wish.key.volume):
            raise Refused(
                f"{disk.device} of {found.name} bears the mark of volume {disk.mark}",
                hint=f"--volume {disk.mark}",
            )
        if not disk.mark and disk.running:
            raise Refused(
                f"{disk.device} of {found.name} bears no mark, and a running guest's disk"
                " cannot be given one",
                hint="stop the guest first",
            )
        steps = [] if disk.mark else ["mark"]
        if wish == before:
            return Adoption([], view(wish, self._reconciler.observe(wish)))
        if not dry_run:
            wish = self._take(wish, disk)
        return Adoption([*steps, "adopt"], view(wish, self._reconciler.observe(wish)))

    def release(self, guest: str, volume: str, *, dry_run: bool) -> Adoption:
        """Drop a wish and leave its disk and its link as they are. Raises NotFound, Refused."""
        row = self._wishes.find(volume, guest)
        if row is None:
            raise NotFound(f"volume {volume} is not wanted on {guest}", hint="moorline list")
        if row.want is Level.ABSENT:
            raise Refused(f"volume {row.key.volume} is on its way out", hint="moorline sweep")
        told = view(row, self._reconciler.observe(row))
        if not dry_run:
            with self._reconciler.with_guest(row.key.guest):
                self._records.forget(row)
            self._note("released", row)
        return Adoption(["release"], told)

    def _take(self, wish: Attachment, disk: GuestDisk) -> Attachment:
        """Mark, then wish: a wish for a disk without a mark would plug it a second time."""
        with self._reconciler.with_guest(wish.key.guest):
            if not disk.mark and self._around.inventory is not None:
                self._around.inventory.mark(wish.key.guest, disk.device, wish.key.volume)
            row = self._records.put(wish)
        self._note("adopted", row)
        return row

    def _note(self, what: str, row: Attachment) -> None:
        self._around.journal.saw(what, volume=row.key.volume, guest=row.guest_name, link=row.link)

    def _disks(self, guest: GuestName) -> Sequence[GuestDisk]:
        if self._around.inventory is None:
            raise Refused(f"disks of {self._hypervisor.kind} guests cannot be adopted")
        return self._around.inventory.disks(guest.id)

    def _kind(self, path: str, mounts: Sequence[Mount]) -> str:
        """The kind of back end that knows the mount on which *path* lies; ''."""
        mount = _covering(path, mounts)
        for kind in self._around.backends if mount else ():
            try:
                backend = self._around.backends[kind]
            except (MoorlineError, ImportError):
                continue
            if mount and isinstance(backend, Discovering) and backend.claims(mount):
                return kind
        return ""

    def _elsewhere(
        self, guest: GuestName, disks: Sequence[GuestDisk], kind: str, parsed: Any, expected: str
    ) -> Refused:
        """Say why the disk is not found, and where the operator's option should point."""
        same = next((d for d in disks if parsed.name and d.path.endswith(f"/{parsed.name}")), None)
        mount = _covering(same.path, self._around.mounts()) if same else None
        if same is None or mount is None or self._kind(same.path, [mount]) != kind:
            known = ", ".join(f"{d.device}={d.path}" for d in disks)
            return Refused(f"{guest.name} has no disk {expected}", hint=f"its disks: {known}")
        share = getattr(parsed, "share", "SHARE")
        return Refused(
            f"{same.device} of {guest.name} is {same.path}, on a mount that is not ours",
            hint=f"leave it mounted, and set {kind}_mounted = {share}={mount.target}",
        )


def _refuse_other(disk: GuestDisk, source: ImageFile | BlockDevice, target: str) -> None:
    if target and target != disk.device:
        raise Refused(f"{source.path} is {disk.device}, not {target}")
    format = source.format if isinstance(source, ImageFile) else "raw"
    if format != disk.format:
        raise Refused(f"{disk.device} is used as {disk.format}, and the connection says {format}")


def _usable(serial: str) -> str:
    """Nova and Cinder give the volume's id as serial."""
    return serial if _VOLUME_ID.fullmatch(serial) else ""


def _covering(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """The mount on which *path* lies, by the mount table."""
    above = {path, *map(str, PurePath(path).parents)}
    over = [mount for mount in mounts if mount.target in above]
    return max(reversed(over), key=lambda mount: len(mount.target), default=None)
