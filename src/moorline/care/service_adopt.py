"""adopt of a disk by its volume's name or id at a volume service: ``cinder:VOLUME``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from moorline.care.adopt import Adopter
from moorline.core.driver import done_before, nothing_recorded
from moorline.core.name_lookup import guest_called
from moorline.core.reservations import Reservations
from moorline.errors import Refused, told_about
from moorline.model import Format
from moorline.ports import Hypervisor
from moorline.ports.results import Adoption
from moorline.ports.volume_service import SCHEME, is_named


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
