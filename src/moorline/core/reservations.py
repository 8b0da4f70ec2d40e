"""Keeps the attachments that a volume service has on record for us in step with our own.

A reservation is recorded before the service is asked for anything, and forgotten once the service
was seen to have nothing of it. In between the service is told what is so, by a look at both sides:

=====================  =================================  ===================================
our attachment         the service's                      step
=====================  =================================  ===================================
is to be made          none; without a connection         reserve; connect
is as wanted           not complete                       complete
is not recorded        there                              release
is not recorded        none, and none can come any more   forget
=====================  =================================  ===================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from moorline.core.locks import Locks
from moorline.core.plan import Step, next_step
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.deadline import Deadline
from moorline.errors import (
    Busy,
    Failed,
    MoorlineError,
    NotFound,
    NotOurs,
    Refused,
    Uncertain,
)
from moorline.model import (
    NO_DISK,
    Attachment,
    GuestName,
    Key,
    Level,
    Linked,
    NetworkDisk,
    Unlinked,
    VolumeId,
    is_uuid,
)
from moorline.ports import Hypervisor
from moorline.ports.volume_service import Reservation, ServiceAttachment, VolumeService

UNHEARD_SECONDS = 600.0
"""How long a question that was not answered may still come true: a service under load queues it."""
RETRY_SECONDS = 0.5
"""Between two questions to a service that fails, while somebody waits."""


def no_service() -> VolumeService:
    """In place of what opens a service, where none can be reached. Raises Refused."""
    raise Refused("this host can ask no Cinder")


class Reservations:
    """Makes, completes and takes away what the service has for us. Thread-safe.

    *service*: opens it, when it is first needed. *clock*: the wall clock, seconds.
    """

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        service: Callable[[], VolumeService] = no_service,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._hypervisor = hypervisor
        self.service = service
        self._clock = clock
        self._locks = Locks()

    def hold(self, key: Key, timeout: float | None = None) -> Any:
        """Be the one who works on the reservation of *key*. Raises Busy after *timeout* seconds."""
        return self._locks.hold(f"reservation of {key.volume} for {key.guest}", timeout)

    def key(self, volume: VolumeId, guest: GuestName) -> Key:
        """What a reservation of *volume* for *guest* is recorded as. Raises Refused."""
        if not is_uuid(guest.id):
            raise Refused(f"{guest.name} has no UUID, which Cinder knows guests by")
        return Key(self._records.host, volume, guest.id)

    def connection(
        self, volume: VolumeId, guest: GuestName, deadline: Deadline, *, readonly: bool = False
    ) -> Mapping[str, Any]:
        """The connection of *volume* for *guest*, for which an attachment is made at the service.

        One that is recorded, and has no link here, is asked for anew: portals and passwords change.
        For who holds it (:meth:`hold`). Goes on trying until the *deadline*. Raises NotOurs (the
        service has one for this guest that was not made for us), Refused, Failed, Uncertain,
        Unavailable: what was made is taken away by :meth:`settle`, or used by the next call.
        """
        key = self.key(volume, guest)
        row = self._records.get(key)
        anew = row is not None and self._is_loose(row)
        while True:
            try:
                found = self._step_forward(key, guest, readonly, anew=anew)
                if found is not None:
                    return found
            except (Failed, Uncertain):
                if deadline.over():
                    raise
                deadline.sleep(RETRY_SECONDS)

    def changed_connection(self, row: Attachment) -> Mapping[str, Any] | None:
        """The connection that the service gives for *row* now; None: none, or it is in use here.

        For who holds it (:meth:`hold`). Raises what the service, the hypervisor or the store do.
        """
        noted = self._records.reservations().get(row.key)
        if noted is None or not self._is_loose(row) or not self.look(row.key, noted):
            return None  # what was taken away there is a finding of doctor's
        guest = GuestName(row.key.guest, row.guest_name)
        return self._step_forward(row.key, guest, bool(row.options.readonly), anew=True)

    def settle(self, key: Key) -> None:
        """Bring the service's side to what is recorded here. For who holds it (:meth:`hold`).

        Raises what the service, the hypervisor or the store do; a later call goes on.
        """
        noted = self._records.reservations().get(key)
        if noted is None:
            return
        row = self._records.get(key)
        if row is None:
            self._give_back(key, noted)
        elif not noted.completed and self._is_as_wanted(row):
            self._complete(key, noted)

    def settle_by(self, key: Key, deadline: Deadline) -> None:
        """As :meth:`settle`, for who waits: what fails is tried again until the *deadline*."""
        while True:
            try:
                return self.settle(key)
            except (Failed, Uncertain):
                if deadline.over():
                    raise
                deadline.sleep(RETRY_SECONDS)

    def keys(self) -> Collection[Key]:
        """Of all that the service may have on record for us."""
        return self._records.reservations().keys()

    def settle_all(self, keys: Iterable[Key]) -> Sequence[tuple[Key, str]]:
        """:meth:`settle` those that nobody else works on; return what could not be, and why."""
        left = []
        for key in keys:
            try:
                with self.hold(key, 0.0):
                    self.settle(key)
            except Busy:
                pass
            except MoorlineError as e:
                left.append((key, str(e)))
        return left

    def look(self, key: Key, noted: Reservation) -> Sequence[ServiceAttachment]:
        """What the service has of it now. Raises Refused (other credentials), Unavailable."""
        service = self.service()
        if service.project() != noted.project:
            raise Refused(
                f"Cinder's attachment of volume {key.volume} was made as project {noted.project},"
                f" and the credentials are of project {service.project()}",
                hint="give the credentials that it was attached with",
            )
        found = {each.id: each for each in service.attachments(key.volume, key.guest)}
        ours = found.pop(noted.attachment, None) if noted.attachment else None
        if noted.attachment and ours is None:
            ours = service.attachment(noted.attachment)
        unheard = [found[id] for id in sorted(found)][: noted.unheard]
        return [*([ours] if ours else []), *unheard]

    def of_anybody(self, key: Key) -> ServiceAttachment:
        """The one that the service has of *key*, whoever made it. Raises Refused, Unavailable."""
        found = self.service().attachments(key.volume, key.guest)
        if len(found) != 1:
            how_many = f"{len(found)} attachments" if found else "no attachment"
            raise Refused(
                f"Cinder has {how_many} of volume {key.volume} for this guest, and not one",
                hint=f"openstack volume attachment list --volume-id {key.volume}",
            )
        if found[0].connection is None:
            raise Refused(f"Cinder has volume {key.volume} reserved, and was told no host yet")
        return found[0]

    def take_over(self, key: Key, guest: GuestName, its: ServiceAttachment) -> None:
        """Keep *its*, which somebody else made, as if it were made here: it is released in the end.

        For who holds it (:meth:`hold`), once the disk is recorded: what is kept for no disk
        is released.
        """
        if key not in self._records.reservations():
            self._note(
                key,
                Reservation(guest.name, self.service().project(), its.id, completed=its.complete),
            )

    def foresee(self, key: Key, guest: GuestName) -> ServiceAttachment | None:
        """What :meth:`connection` would go on with; None: an attachment would be made.

        Only looks. Raises what :meth:`connection` would, as far as it can be told: Refused also
        where the volume's status does not let the service give it to anybody.
        """
        noted = self._records.reservations().get(key)
        if noted is None:
            self._refuse_anothers(key, guest)
        elif seen := self.look(key, noted):
            return seen[0]
        self.demand_free(key.volume)
        return None

    def demand_free(self, volume: VolumeId) -> None:
        """Raise Refused where the volume's status does not let the service give it to anybody."""
        its = self.service().volume(volume)
        if its.encrypted:
            raise Refused(f"volume {its.id} is encrypted: the guest would see cipher text")
        if its.status != "available" and not (its.multiattach and its.status == "in-use"):
            raise Refused(
                f"Cinder would refuse: volume {its.id} is {its.status}",
                hint=f"openstack volume attachment list --volume-id {its.id}",
            )

    def _refuse_anothers(self, key: Key, guest: GuestName) -> None:
        if self.service().attachments(key.volume, key.guest):
            raise NotOurs(
                f"Cinder has volume {key.volume} attached to {guest.name} already, and not for"
                " Moorline",
                hint="whoever attached it (Nova?) takes it away:"
                f" openstack volume attachment list --volume-id {key.volume}",
            )

    def _is_loose(self, row: Attachment) -> bool:
        """Whether nothing on this host hangs on the connection of *row*."""
        seen = self._reconciler.observe(row)
        match seen.link:
            case Unlinked():
                return True
            case Linked(source=NetworkDisk()):  # nothing is made for it but the guest's disk
                return seen.disk == NO_DISK
        return False

    def _is_as_wanted(self, row: Attachment) -> bool:
        come = row.want > Level.ABSENT
        return come and next_step(row.want, self._reconciler.observe(row)) is Step.NOTHING

    def _step_forward(
        self, key: Key, guest: GuestName, readonly: bool, *, anew: bool = False
    ) -> Mapping[str, Any] | None:
        service = self.service()
        noted = self._records.reservations().get(key)
        if noted is None:
            self._refuse_anothers(key, guest)
            noted = self._note(key, Reservation(guest.name, service.project()))
        seen = self.look(key, noted)
        if not seen:
            self._reserve(key, noted)
            return None
        noted = self._one_of(key, noted, seen)
        if noted.completed and (anew or not seen[0].complete):  # it has to be told again
            noted = self._note(key, replace(noted, completed=False))
        if seen[0].connection is None or anew:
            service.connect(noted.attachment, readonly=readonly)
            return self._step_forward(key, guest, readonly)
        return seen[0].connection.reveal()

    def _reserve(self, key: Key, noted: Reservation) -> None:
        asked = self._note(
            key, replace(noted, unheard=noted.unheard + 1, asked=self._clock(), completed=False)
        )
        try:
            id = self.service().reserve(key.volume, key.guest)
        except (Refused, Failed):
            self._note(key, replace(asked, unheard=noted.unheard, asked=noted.asked))
            raise
        self._note(key, replace(asked, attachment=id, unheard=noted.unheard, asked=noted.asked))

    def _one_of(
        self, key: Key, noted: Reservation, seen: Sequence[ServiceAttachment]
    ) -> Reservation:
        """Keep the first of *seen*, and take the others away: they came late."""
        if seen[0].id != noted.attachment:
            noted = self._note(
                key,
                replace(noted, attachment=seen[0].id, unheard=noted.unheard - 1, completed=False),
            )
        for late in seen[1:]:
            self.service().release(late.id)
            noted = self._note(key, replace(noted, unheard=noted.unheard - 1))
        return noted

    def _complete(self, key: Key, noted: Reservation) -> None:
        seen = self.look(key, noted)
        if not seen:
            return  # somebody took it away there: doctor tells
        noted = self._one_of(key, noted, seen)
        if not seen[0].complete:
            self.service().complete(noted.attachment)
        self._note(key, replace(noted, completed=True))

    def _give_back(self, key: Key, noted: Reservation) -> None:
        with suppress(NotFound):  # the guest is gone
            if self._hypervisor.disks(key.guest).get(key.volume, NO_DISK) != NO_DISK:
                raise Failed(
                    f"{noted.guest_name} still has volume {key.volume}: Cinder is not told that it"
                    " is free"
                )
        for each in self.look(key, noted):
            self.service().release(each.id)
        if self.look(key, noted):
            raise Uncertain(f"Cinder still has its attachment of volume {key.volume}")
        if not noted.unheard or self._clock() - noted.asked > UNHEARD_SECONDS:
            self._records.note_reservation(key, None)

    def _note(self, key: Key, reservation: Reservation) -> Reservation:
        self._records.note_reservation(key, reservation)
        return reservation
