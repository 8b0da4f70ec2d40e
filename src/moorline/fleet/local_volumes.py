"""The attachments of a host in a fleet, as those of its own store: whoever heals needs no fleet."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace

from moorline.core.admission import Admission
from moorline.core.driver import Driver
from moorline.core.kept_disk import released_file_changed
from moorline.core.own_disk import own_disk, path_of
from moorline.core.record_clashes import refuse_clashes
from moorline.core.records import Records
from moorline.core.retry_loop import Wait
from moorline.errors import Failed, MoorlineError, NotFound
from moorline.fleet.host_choice import OF_ONE_HOST
from moorline.fleet.records import GuestReport
from moorline.model import (
    NO_DISK,
    Attachment,
    Disk,
    DiskState,
    GuestId,
    GuestName,
    Key,
    Level,
    Link,
    Seen,
    VolumeId,
)
from moorline.ports import Hypervisor, Inspecting
from moorline.ports.inspection import GuestDisk

Of = tuple[GuestId, VolumeId]


@dataclass(frozen=True, slots=True)
class Served:
    """What came of it."""

    as_wanted: bool
    error: str = ""
    """The family of what is in the way; ''."""
    message: str = ""
    lost: bool = False
    """The guest has another file open than the one at the path of its disk."""
    hint: str = ""
    """What a person can do about it, where *message* does not say so."""
    places: tuple[str, ...] | None = ()
    """What identifies the file that the guest has as its disk, in order; None: it was not seen."""
    path: str = ""
    """Where the volume is here; '': its link does not lead to it now."""
    other_file: bool = False
    """The guest has its disk, whole, with another file: a snapshot of the volume, or a copy."""


@dataclass(frozen=True, slots=True)
class OwnVolume:
    """One that this host has without the fleet."""

    want: Level
    shared: bool
    places: frozenset[str]
    """What identifies its storage, and the file that the guest has as its disk."""
    seen: bool
    """Whether that is all: the guest could be looked at, and the connection be read."""
    of_one_host: bool = False
    """Its storage is this host's alone: at the same path elsewhere is another file."""
    hint: str = ""
    """What helps before ``moorline detach`` of it, which does not take it; ''."""


@dataclass(frozen=True, slots=True)
class _Marked:
    """What is known of a disk where only its mark is told: as of :class:`GuestDisk`."""

    mark: VolumeId
    path: str
    serial: str = ""
    alias: str = ""
    readonly: bool = False
    shared: bool = False


class LocalVolumes:
    """Writes what the fleet wants into the host's own store, and has it brought there."""

    def __init__(
        self,
        records: Records,
        admission: Admission,
        driver: Driver,
        hypervisor: Hypervisor,
        unlock: Callable[[Attachment, Link], None],
    ) -> None:
        """*unlock*: as :meth:`moorline.core.reconciler.Reconciler.unlock`."""
        self._unlock = unlock
        self._records = records
        self._admission = admission
        self._driver = driver
        self._hypervisor = hypervisor
        self._inventory = hypervisor.inventory() if isinstance(hypervisor, Inspecting) else None

    def serve(self, wanted: Attachment, *, link_only: bool) -> Served:
        """Bring *wanted* as far as it goes without waiting.

        *link_only*: its guest is not here yet. A disk that comes with it is not ours until then.
        """
        try:
            row = self._recorded(wanted, link_only=link_only)
            if row is None:
                return Served(True)
            came = self._driver.push(row)
            if link_only and row.want is Level.CONNECTED and came.seen:
                self._unlock(row, came.seen.link)  # its disk is opened as soon as its guest comes
        except MoorlineError as e:
            return Served(False, e.kind, str(e), places=None)
        served = self._waits(row, came) if isinstance(came, Wait) else Served(True)
        path = path_of(came.seen.link) if came.seen else ""
        whole = came.seen is not None and came.seen.disk.state is DiskState.WHOLE
        other = bool(whole and came.seen and came.seen.elsewhere and row.want is Level.ATTACHED)
        places = self._places(row, came.seen)
        return replace(served, places=places, path=path, other_file=other)

    def _places(self, row: Attachment, seen: Seen | None) -> tuple[str, ...] | None:
        return None if seen is None else self._admission.places_at(seen.disk.source, row)

    def _waits(self, row: Attachment, wait: Wait) -> Served:
        disk = self._disk(row)
        lost = bool(disk.stale or disk.replaced)
        if wait.error is None:
            return Served(False, "", wait.why, lost)
        kind, hint = wait.error.kind, wait.error.hint
        if kind == "refused" and row.want is Level.ABSENT and disk.state is not DiskState.WHOLE:
            kind = "failed"  # some of it was taken by then: nobody can say that nothing changed
        return Served(False, kind, wait.why, lost, "" if hint in wait.why else hint)

    def _disk(self, row: Attachment) -> Disk:
        with suppress(MoorlineError):  # that it is not as wanted is told anyway
            return own_disk(row, self._hypervisor.disks(row.key.guest))
        return NO_DISK

    def has(self, guest: GuestId, volume: VolumeId) -> bool:
        """Whether anything of it is recorded here. Raises Unavailable."""
        return self._records.get(Key(self._records.host, volume, guest)) is not None

    def own(self, fleets: Container[Of]) -> dict[Of, OwnVolume]:
        """Those that are recorded here, or were released here and are a disk still, and are none
        of *fleets*. Raises Unavailable.
        """
        rows = {(row.key.guest, row.key.volume): row for row in self._records.all()}
        found = {of: self._own(row) for of, row in rows.items() if of not in fleets}
        for (guest, volume), path in self._records.released().items():
            of = GuestId(guest), VolumeId(volume)
            if of not in fleets and of not in rows:
                paths, hint = self._released(of, path)
                places = frozenset(place for at in paths for place in self._admission.places_at(at))
                if paths:
                    found[of] = OwnVolume(Level.ATTACHED, False, places, seen=False, hint=hint)
        return found

    def _own(self, row: Attachment) -> OwnVolume:
        local = row.backend in OF_ONE_HOST
        # What is told of one host's storage has to be told even if nothing else names it.
        places, seen = {row.place, row.key.volume if local else ""} - {""}, True
        try:
            places |= self._admission.accept(row.connection.reveal(), None).places
            disk = own_disk(row, self._hypervisor.disks(row.key.guest))
            places |= set(self._admission.places_at(disk.source, row))
        except MoorlineError:
            seen = False  # its guest does not answer, or the connection fits no configuration now
        return OwnVolume(row.want, row.options.shared, frozenset(places), seen, local)

    def _released(self, of: Of, path: str) -> tuple[AbstractSet[str], str]:
        """The files of a disk that was released as *path*, as far as can be seen: a pivot or a
        snapshot gives it another one, and then what helps. No file: the guest has it no more.
        """
        with suppress(MoorlineError):
            disk = self._hypervisor.disks(of[0]).get(of[1])
            if disk is None:
                return frozenset(), ""
            error = released_file_changed(GuestName(of[0], of[0]), of[1], path, disk)
            return {path, disk.source} - {""}, error.hint if error else ""
        return {path}, ""

    def with_other_disks(
        self, report: GuestReport, guest: GuestId, fleets: Container[Of]
    ) -> GuestReport:
        """*report*, with the disks of *guest* that are none of *fleets*, nor recorded here."""
        recorded = {row.key.volume for row in self._records.of(guest)}
        others: set[str] = set()
        written: set[str] = set()
        try:
            for each in self._disks(guest):
                if each.mark in recorded or (guest, VolumeId(each.mark)) in fleets:
                    continue
                files = self._identities(each.path)
                names = {each.mark, each.serial, each.alias}
                others |= {name.casefold() for name in names} | {each.path} | files
                written |= set() if each.readonly or each.shared else files
        except NotFound:
            pass  # it is not here, and has none
        except MoorlineError:
            return replace(report, looked=False, others=(), written=())
        return replace(
            report,
            looked=True,
            others=tuple(sorted(others - {""})),
            written=tuple(sorted(written)),
        )

    def _disks(self, guest: GuestId) -> Sequence[GuestDisk | _Marked]:
        if self._inventory is not None:
            return self._inventory.disks(guest)
        # The hypervisor tells of no disk but those that bear a mark.
        return [_Marked(v, disk.source) for v, disk in self._hypervisor.disks(guest).items()]

    def _identities(self, path: str) -> set[str]:
        """What identifies the file at *path*, on a share, and among the files of this host."""
        found = set(self._admission.places_at(path))
        with suppress(MoorlineError):  # it is none of a file, or nothing of this host is attached
            data = {"path": path, "format": "raw"}
            own = self._admission.accept({"driver_volume_type": "local", "data": data}, None)
            found |= {f"local:{place}" for place in own.places}
        return found

    def giving(self, guest: GuestId) -> AbstractContextManager[None]:
        """While *guest* is started: nobody else has, or is being given, the files of its disks.

        Raises as the back end's verify; Refused (somebody has one), Busy.
        """
        rows = [row for row in self._records.all() if row.key.guest == guest]
        return self._driver.giving(row for row in rows if row.want is Level.ATTACHED)

    def _recorded(self, wanted: Attachment, *, link_only: bool) -> Attachment | None:
        """Write *wanted* into the host's own store. None: it is not wanted, and not there."""
        key = Key(self._records.host, wanted.key.volume, wanted.key.guest)
        before = self._records.get(key)
        if (
            before is None
            and wanted.want is Level.ABSENT
            and (link_only or key.volume not in self._hypervisor.disks(key.guest))
        ):
            return None
        # The level is the local one: of a guest that is not here only the link is wanted.
        want = min(wanted.want, Level.CONNECTED) if link_only else wanted.want
        row = self._placed(wanted, key, before)
        row = replace(row, want=want, link_only=link_only, options=wanted.options)
        if before is not None and replace(row, revision=before.revision) == before:
            return before
        refuse_clashes(row, [other for other in self._records.all() if other.key != key])
        return self._records.put(replace(row, revision=before.revision if before else 0))

    def _placed(self, wanted: Attachment, key: Key, before: Attachment | None) -> Attachment:
        """*wanted* as this host's own back ends see it: where its link is depends on the host."""
        if before is not None and (
            before.connection == wanted.connection or wanted.want is Level.ABSENT
        ):
            return replace(before, guest_name=wanted.guest_name)
        accepted = self._admission.accept(wanted.connection.reveal(), None)
        if before is not None and before.link != accepted.link:
            raise Failed(f"volume {key.volume} is still connected at {before.link}")
        return replace(
            wanted,
            key=key,
            backend=accepted.backend,
            link=accepted.link,
            place=self._admission.place_of(accepted),
            revision=0,
        )
