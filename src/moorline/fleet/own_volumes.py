"""What a host has without the fleet is reported as well: nobody else may be given that storage."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from moorline.errors import Conflict
from moorline.fleet import keys
from moorline.fleet.held import Holding, named_by
from moorline.fleet.host_look import Look
from moorline.fleet.local_volumes import LocalVolumes, OwnVolume
from moorline.fleet.record_store import Change
from moorline.fleet.records import VolumeReport
from moorline.model import GuestId


class OwnVolumes:
    """Reports the attachments of a host that the fleet does not want: those from before it was
    one of it, and those by a person's word. Whatever the fleet wants is reported elsewhere.
    """

    def __init__(
        self,
        name: str,
        holding: Holding,
        volumes: LocalVolumes,
        refresh: Callable[[Look, GuestId], None],
    ) -> None:
        self._name = name
        self._refresh = refresh
        self._holding = holding
        self._volumes = volumes

    def report(self, look: Look) -> None:
        """Report what is there, and take back what is there no more. Raises as the store."""
        wanted, told = look.desired.spoken_of(), look.reports.volumes
        own = self._volumes.own(wanted)
        for of in (told.keys() | own.keys()) - wanted:
            change, at = Change(), keys.report(keys.attachment(self._name, *of))
            before, there = told.get(of), own.get(of)
            report = _report(there, before) if there else None
            if report is None:
                if before is not None:
                    self._refresh(look, of[0])  # before it is anybody else's
                    change.delete(at, before)
            elif before is None or report.encode() != before.encode():
                change.replace(at, before, report)
            if change.then:
                with suppress(Conflict):  # the next pass looks again
                    self._holding.commit(change, named_by(report, *of, None) if report else ())


def _report(own: OwnVolume, before: VolumeReport | None) -> VolumeReport | None:
    """None: nothing tells which storage it is."""
    known = {*before.places, *before.local} if before and not own.seen else ()
    places = tuple(sorted(own.places.union(known)))
    if not places:
        return None
    told: Any = {"seen": str(own.want), "shared": own.shared, "hint": own.hint}
    if own.of_one_host:
        return VolumeReport(**told, local=places)
    return VolumeReport(**told, places=places, own=True)
