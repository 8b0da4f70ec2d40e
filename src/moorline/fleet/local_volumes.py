"""The attachments of a host in a fleet, as those of its own store: whoever heals needs no fleet."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace

from moorline.core.admission import Admission
from moorline.core.driver import Driver
from moorline.core.own_disk import own_disk
from moorline.core.record_clashes import refuse_clashes
from moorline.core.records import Records
from moorline.core.retry_loop import Wait
from moorline.errors import Failed, MoorlineError
from moorline.model import (
    NO_DISK,
    Attachment,
    Disk,
    DiskState,
    GuestId,
    Key,
    Level,
    Seen,
    VolumeId,
)
from moorline.ports import Hypervisor


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


class LocalVolumes:
    """Writes what the fleet wants into the host's own store, and has it brought there."""

    def __init__(
        self, records: Records, admission: Admission, driver: Driver, hypervisor: Hypervisor
    ) -> None:
        self._records = records
        self._admission = admission
        self._driver = driver
        self._hypervisor = hypervisor

    def serve(self, wanted: Attachment, *, link_only: bool) -> Served:
        """Bring *wanted* as far as it goes without waiting.

        *link_only*: its guest is not here yet. A disk that comes with it is not ours until then.
        """
        try:
            row = self._recorded(wanted, link_only=link_only)
            if row is None:
                return Served(True)
            came = self._driver.push(row)
        except MoorlineError as e:
            return Served(False, e.kind, str(e), places=None)
        served = self._waits(row, came) if isinstance(came, Wait) else Served(True)
        return replace(served, places=self._places(row, came.seen))

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
