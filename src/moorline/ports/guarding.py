"""The seam to whoever tells whether this host may do what only one host may do at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from moorline.model import GuestId, VolumeId


class Guarding(Protocol):
    """Asked before each start of a guest and each first attach, whoever wants it."""

    def demand(self, guest: GuestId, vouch: str = "", *, dry_run: bool = False) -> None:
        """Raise Refused if another host has *guest*, Unavailable if that cannot be told now; Failed
        if it is remembered, and started when it can.

        *vouch*: why a person is sure that no other host has it. That word is taken where it
        cannot be told, until this host boots again. *dry_run*: nothing is remembered of it.
        """

    def permit(self, guest: GuestId, *, ours: bool, arriving: bool) -> None:
        """As :meth:`demand`, for whoever starts guests by the hypervisor's own means.

        *ours*: a disk of the guest bears our mark. *arriving*: a copy of it is about to come
        from another host, which is to be permitted before the start that it makes.
        """

    def demand_attach(self, volume: VolumeId, *, vouched: bool) -> None:
        """Raise Refused if *volume* may be another host's, and nobody vouched that it is not."""

    def demand_release(self, guest: GuestId, volume: VolumeId) -> None:
        """Raise Refused if a fleet wants that here: it would come back."""

    def demand_gone(self, guest: str, volume: str, *, here: bool) -> None:
        """Raise Refused where what is not known on this host may be there by a fleet's word.

        Asked before "it is not there" is success. *guest*: as it was typed; '': of any guest.
        *volume*: '' where it is about the guest itself. *here*: the guest is on this host, and
        *guest* its id.
        """

    def removed(self, guest: GuestId) -> None:
        """Have a fleet let go of *guest*, which was removed on this host."""

    def note(self, volume: VolumeId, why: str) -> None:
        """Write down that *volume* was recorded by a person's word, with its reason; '': it was
        not.
        """

    def follow(self, *, vouch: str = "", dry_run: bool = False) -> Sequence[str]:
        """See :meth:`moorline.ports.api.Maintenance.follow`."""
