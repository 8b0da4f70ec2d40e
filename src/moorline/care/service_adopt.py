"""adopt of disks whose connection a volume service has: by ``cinder:VOLUME``, or by serial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from moorline.care.adopt import Adopter
from moorline.care.adopt_all import BulkAdopter
from moorline.core.driver import done_before, nothing_recorded
from moorline.core.name_lookup import guest_called
from moorline.core.records import Records
from moorline.core.reservations import Reservations
from moorline.errors import MoorlineError, Refused, told_about
from moorline.model import Format, GuestId, GuestName, Key, Level, VolumeId, as_uuid, is_uuid
from moorline.ports import Hypervisor
from moorline.ports.care_results import Adoption, AdoptionOfAll, DiskOutcome
from moorline.ports.inspection import Inventory
from moorline.ports.volume_service import SCHEME, ServiceAttachment, is_named


class ServiceAdopter:
    """adopt and release of :class:`moorline.ports.api.Maintenance`; all else is *adopter*'s."""

    def __init__(
        self,
        adopter: Adopter,
        hypervisor: Hypervisor,
        reservations: Reservations,
    ) -> None:
        self._adopter = adopter
        self._hypervisor = hypervisor
        self._reservations = reservations
        self.release = adopter.release

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
        adopt = partial(self._adopter.adopt, target=target, hands_off=hands_off, dry_run=dry_run)
        if not is_named(connection):
            return adopt(guest, connection, format=format, volume=volume)
        if format:
            raise Refused("the format of a volume of Cinder's is what Cinder says: no --format")
        with nothing_recorded():
            its = guest_called(guest, self._hypervisor)
            id = self._reservations.service().find(str(connection).removeprefix(SCHEME))
        if volume not in (None, id):
            raise Refused(f"{connection} is volume {id}, not {volume}")
        key = self._reservations.key(id, its)
        with told_about(id, its.name), self._reservations.hold(key):
            with nothing_recorded():
                theirs = self._reservations.of_anybody(key)
            assert theirs.connection is not None, "of_anybody refuses one without"
            adoption = adopt(its.id, theirs.connection.reveal(), volume=id)
            # Who plugs the disk himself sees to Cinder himself.
            if not hands_off and not dry_run:
                with done_before(f"volume {id} of {its.name} is adopted"):
                    self._reservations.take_over(key, its, theirs)
        return adoption


class ServiceBulkAdopter:
    """adopt_all of :class:`moorline.ports.api.Maintenance`: *adopter*'s, with what the service has.

    *inventory*: None where disks cannot be adopted.
    """

    def __init__(
        self,
        adopter: BulkAdopter,
        records: Records,
        hypervisor: Hypervisor,
        inventory: Inventory | None,
        reservations: Reservations,
    ) -> None:
        self._adopter = adopter
        self._records = records
        self._hypervisor = hypervisor
        self._inventory = inventory
        self._reservations = reservations
        self.release_all = adopter.release_all

    def adopt_all(
        self,
        guest: str | None = None,
        *,
        connections: Sequence[Mapping[str, Any]] = (),
        cinder: bool = False,
        local: bool = False,
        hands_off: bool = False,
        dry_run: bool = False,
    ) -> AdoptionOfAll:
        theirs: Mapping[Key, Sequence[ServiceAttachment]] = {}
        if cinder:
            with nothing_recorded():
                theirs = dict(self._theirs(guest))
        found = self._adopter.adopt_all(
            guest,
            connections=[*connections, *_rows(theirs)],
            local=local,
            hands_off=hands_off,
            dry_run=dry_run,
        )
        if hands_off or dry_run:  # who plugs the disk himself sees to Cinder himself
            return found
        return replace(found, disks=[self._taken_over(each, theirs) for each in found.disks])

    def _theirs(self, guest: str | None) -> Iterator[tuple[Key, Sequence[ServiceAttachment]]]:
        """What the service has of each volume that a disk's serial, or mark, names."""
        one = None if guest is None else guest_called(guest, self._hypervisor).id
        for each in self._hypervisor.survey():
            if one in (None, each.id) and is_uuid(each.id):
                for volume in self._volumes(each.id):
                    key = Key(self._records.host, volume, each.id)
                    yield key, self._reservations.service().attachments(volume, each.id)

    def _volumes(self, guest: GuestId) -> Sequence[VolumeId]:
        try:
            disks = self._inventory.disks(guest) if self._inventory else ()
        except MoorlineError:
            return []  # told of the guest when its disks are adopted
        ids = (as_uuid(disk.mark or disk.serial) for disk in disks)
        return [VolumeId(id) for id in ids if id]

    def _taken_over(
        self, came: DiskOutcome, theirs: Mapping[Key, Sequence[ServiceAttachment]]
    ) -> DiskOutcome:
        """*came*, with what became of the service's side."""
        key = Key(self._records.host, VolumeId(came.volume), GuestId(came.guest_id))
        its = theirs.get(key)
        if not its or came.outcome not in ("adopted", "kept"):
            return came
        if len(its) > 1:
            return replace(
                came, why=f"Cinder has {len(its)} attachments of it: none was taken over"
            )
        try:
            with self._reservations.hold(key):
                row = self._records.get(key)
                if row is not None and row.want > Level.ABSENT and not row.hands_off:
                    name = GuestName(key.guest, came.guest)
                    self._reservations.take_over(key, name, its[0])
        except MoorlineError as e:
            why = f"it is adopted, and Cinder's attachment was not taken over: {e.message}"
            return replace(came, outcome=e.kind, why=why, hint="repeat the command: it goes on")
        return came


def _rows(theirs: Mapping[Key, Sequence[ServiceAttachment]]) -> Iterator[Mapping[str, Any]]:
    """As connections are given that come out of a file."""
    for key, found in theirs.items():
        for each in found:
            if each.connection is not None:
                yield {
                    "instance_uuid": key.guest,
                    "volume_id": key.volume,
                    "connection_info": each.connection.reveal(),
                }
