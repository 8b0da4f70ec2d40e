"""Volumes that a volume service gives by name to a guest that is launched: ``cinder:VOLUME``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from moorline.core.driver import done_before
from moorline.core.records import Records
from moorline.core.reservations import Reservations
from moorline.deadline import Deadline
from moorline.errors import MoorlineError, Refused
from moorline.model import GuestName, Key, VolumeId
from moorline.operations.guest_options import Volume
from moorline.ports.progress import Progress
from moorline.ports.volume_service import SCHEME, ServiceAttachment, is_named


class LaunchedByName:
    """Those of a launch that have names; where none has, nobody is asked."""

    def __init__(self, records: Records, reservations: Reservations) -> None:
        self._records = records
        self._reservations = reservations

    @staticmethod
    def refuse_formats(volumes: Sequence[Volume]) -> None:
        """Raises Refused."""
        if any(format for connection, format in volumes if is_named(connection)):
            raise Refused("the format of a volume of Cinder's is what Cinder says: no --format")

    @staticmethod
    def any(volumes: Sequence[Volume]) -> bool:
        return any(is_named(connection) for connection, _ in volumes)

    def demand_free(self, volumes: Sequence[Volume]) -> list[VolumeId]:
        """The ids of those that have names. Raises Refused (others have one), Unavailable."""
        found = [self._find(connection) for connection, _ in volumes if is_named(connection)]
        for id in found:
            self._reservations.demand_free(id)
        return found

    def foresee(self, guest: GuestName, connection: object) -> tuple[Key, ServiceAttachment | None]:
        """As :meth:`Reservations.foresee`."""
        key = self._reservations.key(self._find(connection), guest)
        return key, self._reservations.foresee(key, guest)

    @contextmanager
    def given(
        self,
        guest: GuestName,
        volumes: Sequence[Volume],
        deadline: Deadline,
        progress: Progress,
        *,
        readonly: bool,
    ) -> Iterator[list[Volume]]:
        """*volumes*, with connections for names: what is not attached in the end is given back.

        Raises as :meth:`Reservations.connection`; Uncertain, if the service could not be told in
        the end that the guest has them.
        """
        keys: list[Key] = []
        with ExitStack() as held:
            try:
                given: list[Volume] = []
                for connection, format in volumes:
                    if not is_named(connection):
                        given.append((connection, format))
                        continue
                    id = self._find(connection)
                    keys.append(self._reservations.key(id, guest))
                    held.enter_context(self._reservations.hold(keys[-1]))
                    progress(f"reserving volume {id}")
                    its = self._reservations.connection(id, guest, deadline, readonly=readonly)
                    given.append((its, None))
                yield given
            except MoorlineError:
                for key in keys:
                    with suppress(MoorlineError):  # a sweep does it, and doctor tells
                        self._reservations.settle(key)
                raise
            for key in keys:
                with done_before(f"volume {key.volume} is attached to {guest.name}"):
                    self._reservations.settle_by(key, deadline)

    def give_back(self, guest: GuestName, deadline: Deadline) -> None:
        """Tell the service that *guest* is gone. Raises Uncertain: it could not be told."""
        for key in self._records.reservations():
            if key.guest == guest.id and self._records.get(key) is None:
                with done_before(f"{guest.name} is removed"), self._reservations.hold(key):
                    self._reservations.settle_by(key, deadline)

    def _find(self, connection: object) -> VolumeId:
        return self._reservations.service().find(str(connection).removeprefix(SCHEME))
