"""What can be asked of this host's guests without a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moorline.errors import Refused
from moorline.operations.guest_options import validate
from moorline.ports import ChoosingDatastores, Hypervisor
from moorline.ports.datastores import Choice
from moorline.ports.guest_results import GuestView


class GuestQueries:
    """all and datastores of :class:`moorline.ports.api.Guests`."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor

    def all(self) -> Sequence[GuestView]:
        guests = sorted(self._hypervisor.survey(), key=lambda guest: (guest.name, guest.id))
        return [GuestView(guest.name, guest.id, guest.running) for guest in guests]

    def datastores(self, asked: Mapping[str, Any]) -> Choice:
        hypervisor = self._hypervisor
        if not isinstance(hypervisor, ChoosingDatastores):
            raise Refused(f"disks of {hypervisor.kind} guests lie on no datastore")
        return hypervisor.datastores(validate(hypervisor.choosing, asked))
