"""Turns what a caller asks into an attachment that may be recorded, or refuses it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorline.core import luks, storage_names
from moorline.core.connection_fields import disk_options, refuse_unstorable, told_id, usable_id
from moorline.core.kept_disk import demand_released_file, released_file_changed
from moorline.core.name_lookup import BY_ID, BY_ID_OR_DEVICE, guest_called, is_whole, meant, unknown
from moorline.core.no_fleet import ALONE
from moorline.core.privilege import is_trusted
from moorline.core.reconciler import Reconciler
from moorline.core.record_clashes import merge, refuse_clashes
from moorline.core.records import Records
from moorline.core.storage_names import derived
from moorline.errors import NotFound, NotOurs, Refused, told_about
from moorline.model import (
    Attachment,
    DiskOptions,
    Format,
    GuestId,
    GuestName,
    Key,
    Level,
    LinkName,
    VolumeId,
    is_uuid,
)
from moorline.ports import Confined, Hypervisor
from moorline.ports.guarding import Guarding
from moorline.redaction import quotable
from moorline.secret import Secret

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MISLEADING = re.compile(r"-.*|([hsv]|xv)d[a-z]{1,3}[0-9]*")
"""Ids that a command would read as something else: -o, --help, vdb."""


@dataclass(frozen=True, slots=True)
class AcceptedConnection:
    """A connection that a back end has accepted, and the storage that it names."""

    backend: str
    connection: Mapping[str, Any]
    link: LinkName
    volume: VolumeId | None
    id: str
    """A volume id for storage that has none: derived from its name, not from where its link is."""
    former: str
    """*id* as older attachments have it: derived from where the link is."""
    name: str
    shares: frozenset[str]
    """All names of its share; empty: the link identifies the share."""

    @property
    def places(self) -> frozenset[str]:
        """What identifies the storage: *id*, and what that is by the other spellings."""
        return storage_names.places(self.backend, self.shares, self.name) | {self.id}

    @property
    def aliases(self) -> tuple[str, ...]:
        """What *id* is by the other spellings of the same storage, in order."""
        return tuple(sorted(self.places - {self.id}))


class Admission:
    """Makes attachments, and finds the ones that are recorded."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        guard: Guarding = ALONE,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._hypervisor = hypervisor
        self._guard = guard

    def make(
        self,
        guest: str | GuestName,
        connection: Mapping[str, Any] | str,
        format: Format | None,
        volume: str | None,
        level: Level,
        options: DiskOptions,
        *,
        hands_off: bool = False,
        vouched: bool = False,
        label: str = "",
    ) -> tuple[Attachment | None, Attachment]:
        """Return the recorded attachment of this guest and volume (or None), and the new one.

        *guest*: a name or an id; of one that is still to be made both. *hands_off*: it is an id,
        and need not be defined yet. *vouched*: a person is sure that no other host has it.
        Raises Refused (the request is malformed, clashes with another attachment, or is for the
        fleet to say), NotFound (there is no such guest). Nothing is recorded.
        """
        accepted = self.admit(connection, format)
        backend = self._reconciler.backend(accepted.backend)
        if not backend.yields & self._hypervisor.accepts:
            raise Refused(f"{self._hypervisor.kind} guests cannot use {accepted.backend} volumes")
        if not hands_off:
            luks.demand_possible(accepted.connection, backend, self._hypervisor)
        machine = self._guest(guest, level, hands_off=hands_off)
        rows = self._records.all()
        there = self._at(accepted, rows)
        known = there[0] if there else None
        id = _volume_id(volume, accepted, known)
        key = Key(self._records.host, id, machine.id)
        attachment = Attachment(
            key=key,
            guest_name=machine.name,
            backend=accepted.backend,
            connection=Secret(accepted.connection),
            link=accepted.link,
            place=known.place if known else accepted.id,
            want=level,
            options=disk_options(options, accepted.connection, hands_off=hands_off),
            since=time.time(),
            hands_off=hands_off,
            link_only=level < Level.ATTACHED,
            label=_usable_label(label),
        )
        before = next((row for row in rows if row.key == key), None)
        with told_about(id, machine.name):
            refuse_clashes(attachment, rows)
            if before is None or before.want is Level.ABSENT:
                self._guard.demand_attach(key.volume, vouched=vouched)
        return before, merge(before, attachment)

    def _guest(self, guest: str | GuestName, level: Level, *, hands_off: bool) -> GuestName:
        if isinstance(guest, GuestName):
            return guest
        return _to_come(guest, level) if hands_off else guest_called(guest, self._hypervisor)

    def demand_release(self, row: Attachment) -> None:
        """Raise Refused if a fleet wants *row* here. One that goes already may go."""
        if row.want > Level.ABSENT:
            self._guard.demand_release(row.key.guest, row.key.volume)

    def demand_gone(self, guest: str, volume: str) -> None:
        """Raise Refused: a fleet may have it for *guest* (typed; '': any). Or as a survey does."""
        try:
            here = guest_called(guest, self._hypervisor).id if guest else None
        except NotFound:
            here = None
        self._guard.demand_gone(here or guest, volume, here=here is not None)

    def refuse_anothers_disk(self, before: Attachment | None, attachment: Attachment) -> bool:
        """Refuse if the guest has a disk with our mark that we were never asked to plug.

        *before*, *attachment*: as :meth:`make` returns them. Return whether the guest was
        looked at, and has no such disk. Raises Refused, Unavailable, Uncertain.
        """
        if attachment.link_only or (before is not None and not before.link_only):
            return False
        try:
            return not self.released_disk(
                GuestName(attachment.key.guest, attachment.guest_name), attachment.key.volume
            )
        except NotOurs as e:
            raise Refused(e.message, hint=e.hint) from e

    def released_disk(self, guest: GuestName, volume: VolumeId) -> bool:
        """Whether the guest has this volume as a disk that we released.

        Raises NotOurs (it has the volume, and we neither plugged nor released it, or as another
        file), Refused (it writes to a snapshot above it, or to a file that no path leads to),
        Unavailable, Uncertain.
        """
        disk = self._hypervisor.disks(guest.id).get(volume)
        if disk is None:
            return False
        plugged = self._records.released().get((guest.id, volume))
        if (error := released_file_changed(guest, volume, plugged, disk)) is not None:
            raise error
        if plugged is None:
            raise NotOurs(
                f"{guest.name} has volume {volume} as {disk.device} ({disk.source}), and Moorline"
                " has no record of having plugged it",
                hint="whoever plugged it takes it away; `moorline adopt` takes it over",
            )
        return True

    def demand_released_takeable(self, guest: GuestName) -> None:
        """Refuse to take away a disk that was released, if what the guest wrote would be lost.

        Raises Refused, Unavailable, Uncertain.
        """
        released = {v: path for (id, v), path in self._records.released().items() if id == guest.id}
        disks = self._hypervisor.disks(guest.id) if released else {}
        for volume in map(VolumeId, sorted(released.keys() & disks.keys())):
            demand_released_file(guest, volume, released[volume], disks[volume])

    def unrecorded_disks(self, guest: GuestId) -> list[VolumeId]:
        """The volumes of the disks that bear our mark, and were neither recorded nor released here.

        Raises Unavailable, Uncertain.
        """
        known = {row.key.volume for row in self._records.all() if row.key.guest == guest}
        known |= {VolumeId(volume) for id, volume in self._records.released() if id == guest}
        return sorted(self._hypervisor.disks(guest).keys() - known)

    def admit(
        self, connection: Mapping[str, Any] | str, format: Format | None
    ) -> AcceptedConnection:
        """As :meth:`accept`; also check that the caller may name that storage.

        Raises Refused, Denied.
        """
        accepted = self.accept(connection, format)
        backend = self._reconciler.backend(accepted.backend)
        if isinstance(backend, Confined) and not is_trusted():
            backend.demand_for_others(backend.parse(accepted.connection))
        return accepted

    def accept(
        self, connection: Mapping[str, Any] | str, format: Format | None
    ) -> AcceptedConnection:
        """Parse a connection, or the URL or path that a person types for one. Raises Refused."""
        if isinstance(connection, str):
            connection = self._typed(connection, format)
        refuse_unstorable(connection)
        connection = luks.said(connection, lambda url: self._typed(url, format))
        kind = connection.get("driver_volume_type")
        if not isinstance(kind, str):
            raise Refused("the connection has no driver_volume_type")
        backend = self._reconciler.backend(kind)
        parsed = backend.parse(connection)
        volume = told_id(connection) or parsed.volume
        link = backend.link_name(parsed)
        shares = storage_names.shares(backend, parsed)
        former = derived(kind, link, parsed.name)
        id = derived(kind, min(shares), parsed.name) if shares else former
        return AcceptedConnection(kind, connection, link, volume, id, former, parsed.name, shares)

    def find(self, volume: str, guest: str, *, hands_off: bool = False) -> Attachment | None:
        """Return the recorded attachment for *volume* on *guest* (name or id), if there is one.

        *volume*: as for :meth:`of`, or the name of its device in that guest, for which the
        hypervisor is asked. *hands_off*: both are ids, and the hypervisor need not
        know the guest. Raises NotFound (no such guest, or no volume is known by
        what was typed), Refused (several fit), Unavailable, Uncertain.
        """
        if hands_off:
            row = self._records.get(Key(self._records.host, VolumeId(volume), GuestId(guest)))
            return row if row is None or row.hands_off else None
        mine = self.of(volume)
        named = [row for row in mine if guest in (row.key.guest, row.guest_name)]
        if len(named) == 1 or any(row.key.guest == guest for row in named):
            return min(named, key=lambda row: row.key.guest != guest)
        if not mine and ("/" in volume or is_whole(volume)):
            return None
        # The guest may have been renamed since, or an earlier guest had its name.
        try:
            now = guest_called(guest, self._hypervisor).id
        except NotFound:
            if is_whole(guest) and is_whole(volume):
                return None
            raise
        named = [row for row in mine if row.key.guest == now]
        if named:
            return named[0]
        device = self._on_device(volume, now)
        if mine and device:
            raise Refused(
                f"{volume} is what {guest} has volume {device} as, and another guest's volume",
                hint=f"moorline detach {guest} {device}",
            )
        return self._records.get(Key(self._records.host, device, now)) if device else None

    def of(self, volume: str, rows: Sequence[Attachment] | None = None) -> list[Attachment]:
        """Return those of *rows* (default: all that are recorded) that *volume* names.

        *volume*: an id, or the beginning of a UUID (as :func:`meant` has it), or the path or URL
        that was typed to attach it. Raises Refused (several ids begin so), NotFound (no volume
        can be known by that path or URL).
        """
        if rows is None:
            rows = self._records.all()
        if "/" in volume:
            try:
                accepted = self.accept(volume, "raw")
            except Refused as e:
                raise NotFound(
                    f"no volume is known as {quotable(volume)}: {e.message}", hint=BY_ID
                ) from e
            return self._at(accepted, rows)
        id = meant(volume, (row.key.volume for row in rows))
        return [row for row in rows if row.key.volume == id]

    def unrecorded(self, volume: str, guest: GuestName) -> VolumeId:
        """Return the id of a volume that *volume* names and that is not wanted on *guest*.

        The guest's disks are looked at, too. A whole id that nothing has is returned as it is:
        its volume is gone, or somewhere else. Raises NotFound for any other text that names
        nothing: it may be mistyped, and "gone" would be the wrong answer. Raises Refused (no
        volume can be called that, or several fit), Unavailable, Uncertain.
        """
        elsewhere = self.of(volume)
        if "/" not in volume:
            known = {row.key.volume for row in elsewhere}
            disks = self._hypervisor.disks(guest.id)
            id = meant(usable_id(volume), known | disks.keys())
            found = self._on_device(volume, guest.id) if id is None else id
            if found and found in disks:
                return found
            if is_whole(volume) or volume in known:
                return VolumeId(volume)
        where = [f"volume {row.key.volume} is wanted on {row.guest_name}" for row in elsewhere]
        raise NotFound(
            f"no volume of {guest.name} is known as {quotable(volume)}",
            hint="; ".join([*where, BY_ID_OR_DEVICE]),
        )

    def _on_device(self, device: str, guest: GuestId) -> VolumeId | None:
        disks = self._hypervisor.disks(guest).items()
        return next((id for id, disk in disks if device and disk.device == device), None)

    def _at(self, accepted: AcceptedConnection, rows: Sequence[Attachment]) -> list[Attachment]:
        """Those of *rows* that have the same storage as *accepted*, however it is spelled."""
        return [row for row in rows if self._is_at(accepted, row)]

    def place_of(self, accepted: AcceptedConnection) -> str:
        """What identifies the storage: as it is recorded here, if it is, however it is spelled."""
        there = self._at(accepted, self._records.all())
        return there[0].place if there else accepted.id

    def places_at(self, path: str, row: Attachment | None = None) -> tuple[str, ...]:
        """What identifies the file at *path*, if it is on the share of *row*, or of another."""
        rows = [row] if row and path.startswith(f"{row.link}/") else self._records.all()
        return tuple(sorted(storage_names.places_at(path, rows, self._reconciler.read)))

    def _is_at(self, accepted: AcceptedConnection, row: Attachment) -> bool:
        if row.place in (accepted.id, accepted.former):
            return True
        if row.backend != accepted.backend or not accepted.shares:
            return False
        try:
            backend, parsed = self._reconciler.read(row)
        except Refused:
            return False  # its connection does not fit the configuration: it cannot be compared
        return storage_names.name_one_file(backend, parsed, accepted.shares, accepted.name)

    def known(
        self, volume: str, rows: Sequence[Attachment] | None = None, guest: str | None = None
    ) -> list[Attachment]:
        """As :meth:`of`; *guest*: as :meth:`find`. Raises NotFound if there are none."""
        if guest is not None:
            if (row := self.find(volume, guest)) is None:
                raise NotFound(f"volume {volume} is not wanted on {guest}", hint=BY_ID_OR_DEVICE)
            return [row]
        if not (mine := self.of(volume, rows)):
            raise unknown(volume, (row.guest_name for row in rows or self._records.all()))
        return mine

    def _typed(self, text: str, format: Format | None) -> Mapping[str, Any]:
        return self._reconciler.backend(storage_names.typed_kind(text)).from_url(text, format)


def _volume_id(
    asked: str | None, accepted: AcceptedConnection, known: Attachment | None
) -> VolumeId:
    """The id that was asked for, else that of the known attachment, else that of the storage."""
    if asked is not None and accepted.volume and asked != accepted.volume:
        raise Refused(f"the connection is of volume {accepted.volume}, not {asked}")
    if asked is None and accepted.volume is None and known is not None:
        return known.key.volume
    id = usable_id(accepted.volume or accepted.id if asked is None else asked)
    if _MISLEADING.fullmatch(id):
        raise Refused(
            f"{id!r} is no volume id: commands would take it for an option, or for a disk's device"
        )
    return id


def _usable_label(label: str) -> str:
    if label and not _LABEL.fullmatch(label):
        raise Refused(f"{label[:80]!r} is no label: 1 to 63 of A-Z a-z 0-9 . _ -")
    return label


def _to_come(guest: str, level: Level) -> GuestName:
    """The id and name of a guest that may be defined later. Raises Refused."""
    if level > Level.CONNECTED:
        raise Refused("with hands off the guest, a volume can only be connected")
    if not is_uuid(guest):
        raise Refused(f"{guest!r} is no id of a guest: a UUID in lower case")
    return GuestName(GuestId(guest), guest)
