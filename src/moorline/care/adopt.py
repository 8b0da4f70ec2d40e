"""adopt and release: takes over disks that somebody else plugged, and gives them back."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moorline.care.disks import kind_of
from moorline.care.environment import Environment
from moorline.core import luks
from moorline.core.admission import AcceptedConnection, Admission
from moorline.core.driver import done_before, nothing_recorded
from moorline.core.name_lookup import BY_ID_OR_DEVICE, guest_called
from moorline.core.own_disk import plugged_as
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import MoorlineError, NotFound, Refused, told_about
from moorline.model import (
    Attachment,
    BlockDevice,
    DiskOptions,
    Format,
    GuestName,
    ImageFile,
    Level,
    Linked,
    NetworkDisk,
    volume_id,
)
from moorline.ports import Hypervisor, Mount
from moorline.ports.care_results import Adoption
from moorline.ports.inspection import GuestDisk
from moorline.ports.mount import by_target, covering


class Adopter:
    """adopt and release of :class:`moorline.ports.api.Maintenance`."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        admission: Admission,
        environment: Environment,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._hypervisor = hypervisor
        self._admission = admission
        self._environment = environment

    def adopt(
        self,
        guest: str,
        connection: Mapping[str, Any] | str,
        *,
        format: Format | None = None,
        volume: str | None = None,
        target: str = "",
        hands_off: bool = False,
        dry_run: bool = False,
    ) -> Adoption:
        with nothing_recorded():
            found = guest_called(guest, self._hypervisor)
        accepted = self._admission.admit(connection, format)
        if luks.is_luks(accepted.connection) and not hands_off:
            raise Refused(
                "encrypted volumes are not adopted: whoever plugged it keeps its key in libvirt",
                hint="detach it as it was attached, and attach it with moorline attach",
            )
        disk = self._disk_of(found, accepted)
        if target not in ("", disk.device):
            raise Refused(f"volume {accepted.volume or ''} is {disk.device}, not {target}")
        id = volume or accepted.volume or disk.mark or _usable(disk.serial)
        before, attachment = self._admission.make(
            found.id,
            connection,
            format,
            id or None,
            Level.CONNECTED if hands_off else Level.ATTACHED,
            _options(disk, hands_off),
            hands_off=hands_off,
        )
        with told_about(attachment.key.volume, attachment.guest_name):
            steps = [] if hands_off or _is_marked(disk, attachment) else ["mark"]
            if before is None:
                self._refuse_anothers(attachment)
                self._refuse_above(disk, attachment, said=bool(volume or accepted.volume))
            if attachment == before:
                steps = []
            else:
                if not dry_run:
                    attachment = self._take(attachment, disk.device if steps else "")
                steps.append("adopt")
            seen = self._reconciler.observe(attachment)
        return Adoption(steps, self._reconciler.view(attachment, seen))

    def release(self, guest: str, volume: str, *, dry_run: bool = False) -> Adoption:
        with nothing_recorded():
            row = self._admission.find(volume, guest)
        if row is None:
            raise NotFound(f"volume {volume} is not wanted on {guest}", hint=BY_ID_OR_DEVICE)
        with told_about(row.key.volume, row.guest_name):
            return self._release(row, dry_run=dry_run)

    def _release(self, row: Attachment, *, dry_run: bool) -> Adoption:
        self._admission.demand_release(row)
        if not row.hands_off and luks.has_login(self._reconciler.link(row)):
            raise Refused(
                f"volume {row.key.volume} takes a password, which is kept with its attachment:"
                f" without that {row.guest_name} could not be started again",
                hint=f"moorline detach {row.guest_name} {row.key.volume}",
            )
        if luks.is_luks(row.connection.reveal()) and not row.hands_off:
            raise Refused(
                f"volume {row.key.volume} is encrypted: its key is kept with its attachment, and"
                f" without that {row.guest_name} could not be started again",
                hint=f"moorline detach {row.guest_name} {row.key.volume}",
            )
        if not dry_run:  # an attach that was killed may plug it when nothing is recorded any more
            self._reconciler.files.settle(row.key.guest)
        stuck = False
        try:
            seen = self._reconciler.observe(row)
            told, path = self._reconciler.view(row, seen), plugged_as(seen)
        except MoorlineError as e:
            # Its link and disk stay as they are, so what they are need not be known.
            told, path = self._reconciler.view(row, str(e)), ""
            stuck = isinstance(e, Refused)
        if row.want is Level.ABSENT and not stuck:
            raise Refused(
                f"volume {row.key.volume} is on its way out",
                hint=f"moorline explain {row.key.volume}",
            )
        if not dry_run:
            with self._reconciler.with_guest(row.key.guest):
                self._records.release(row, path)
            self._note("released", row)
        return Adoption(["release"], told)

    def _take(self, attachment: Attachment, device: str) -> Attachment:
        """Mark the disk, then record it: without a mark it would be plugged a second time."""
        with self._reconciler.with_guest(attachment.key.guest):
            if device and self._environment.inventory is not None:
                self._environment.inventory.mark(
                    attachment.key.guest, device, attachment.key.volume
                )
                with done_before(f"{device} of {attachment.guest_name} bears our mark now"):
                    row = self._records.put(attachment)
            else:
                row = self._records.put(attachment)
        self._note("adopted", row)
        return row

    def _refuse_anothers(self, attachment: Attachment) -> None:
        """Raise Refused if another state keeps the volume: what one detaches, the other plugs."""
        guest, volume = attachment.key.guest, attachment.key.volume
        if directory := self._environment.kept_elsewhere(guest, volume):
            its = ["moorline", "release", "--state-dir", directory, guest, volume]
            raise Refused(
                f"volume {volume} of {attachment.guest_name} is kept by the state in {directory}",
                hint=f"let it go there first: {shlex.join(its)}",
            )

    def _refuse_above(self, disk: GuestDisk, attachment: Attachment, *, said: bool) -> None:
        """Raise Refused if a disk bears the id of the volume that it was a snapshot or a copy of.

        *said*: the caller gave that id. An overlay under the id of its base would let the base be
        given away, and what is written to that ruins it.
        """
        guest, volume = attachment.key.guest, attachment.key.volume
        plugged = self._records.released().get((guest, volume))
        if plugged is None and not said:
            marked = self._hypervisor.disks(guest).get(volume)
            plugged = next(iter(marked.beneath or ()), None) if marked else None
        if plugged not in (None, disk.path):
            raise Refused(
                f"{disk.device} of {attachment.guest_name} was volume {volume}, which is {plugged},"
                f" and is {disk.path} now: a snapshot above it, or a copy",
                hint=f"moorline disks {shlex.quote(attachment.guest_name)}",
            )

    def _note(self, what: str, row: Attachment) -> None:
        self._environment.event_log.saw(
            what, volume=row.key.volume, guest=row.guest_name, link=row.link
        )

    def _disks(self, guest: GuestName) -> Sequence[GuestDisk]:
        if self._environment.inventory is None:
            raise Refused(f"disks of {self._hypervisor.kind} guests cannot be adopted")
        return self._environment.inventory.disks(guest.id)

    def _kind(self, path: str, mounts: Sequence[Mount]) -> str:
        return kind_of(path, mounts, self._environment.backends)

    def _disk_of(self, guest: GuestName, accepted: AcceptedConnection) -> GuestDisk:
        """The guest's disk that is this volume, by the path that it has on this host.

        Raises Refused.
        """
        backend = self._reconciler.backend(accepted.backend)
        parsed = backend.parse(accepted.connection)
        link = backend.inspect(parsed)
        source = link.source if isinstance(link, Linked) else None
        disks = self._disks(guest)
        if isinstance(source, ImageFile | BlockDevice | NetworkDisk):
            disk = next((disk for disk in disks if disk.path == str(source.path)), None)
            if disk is not None:
                _refuse_other_format(disk, source)
                backend.verify(parsed)
                return disk
        raise self._elsewhere(guest, disks, accepted, parsed)

    def _elsewhere(
        self,
        guest: GuestName,
        disks: Sequence[GuestDisk],
        accepted: AcceptedConnection,
        parsed: Any,
    ) -> Refused:
        """The error for a disk that is not found: why, and which option would help."""
        same = next((d for d in disks if parsed.name and d.path.endswith(f"/{parsed.name}")), None)
        mount = covering(same.path, by_target(self._environment.mounts())) if same else None
        if same is None or mount is None or self._kind(same.path, [mount]) != accepted.backend:
            known = ", ".join(f"{d.device}={d.path}" for d in disks)
            return Refused(
                f"{guest.name} has no disk that is this volume on {accepted.link}",
                hint=f"its disks: {known}",
            )
        share = getattr(parsed, "share", "SHARE")
        return Refused(
            f"{same.device} of {guest.name} is {same.path}, on a mount that is not ours",
            hint=f"leave it mounted, and set {accepted.backend}_mounted = {share}={mount.target}",
        )


def _refuse_other_format(disk: GuestDisk, source: ImageFile | BlockDevice | NetworkDisk) -> None:
    format = "raw" if isinstance(source, NetworkDisk) else source.format
    if format != disk.format:
        raise Refused(f"{disk.device} is used as {disk.format}, and the connection says {format}")


def _is_marked(disk: GuestDisk, attachment: Attachment) -> bool:
    """Whether the disk bears the mark of the attachment. Raises Refused if it cannot be marked."""
    if disk.mark not in ("", attachment.key.volume):
        raise Refused(
            f"{disk.device} of {attachment.guest_name} bears the mark of volume {disk.mark}",
            hint=f"--volume {disk.mark}",
        )
    if not disk.mark and disk.serial not in ("", attachment.key.volume):
        raise Refused(
            f"{disk.device} of {attachment.guest_name} has the serial {disk.serial}, by which the"
            f" guest may know it, and the mark of volume {attachment.key.volume} would replace it",
            hint=f"--volume {disk.serial}, or take the serial away:"
            f" virsh edit {attachment.guest_name}",
        )
    if not disk.mark and disk.running:
        raise Refused(
            f"{disk.device} of {attachment.guest_name} bears no mark, and a running guest's disk"
            " cannot be given one",
            hint="stop the guest first",
        )
    return bool(disk.mark)


def _options(disk: GuestDisk, hands_off: bool) -> DiskOptions:
    """The options with which the disk is plugged, if they are to be recorded."""
    if hands_off:
        return DiskOptions(shared=disk.shared)
    return replace(
        disk.options,
        bus=disk.bus,
        target=disk.device,
        readonly=disk.readonly,
        shared=disk.shared,
    )


def _usable(serial: str) -> str:
    """Nova and Cinder give the volume's id as serial."""
    return volume_id(serial) or ""
