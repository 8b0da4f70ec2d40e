"""A host that is in no fleet: nobody else is asked."""

from __future__ import annotations

from moorline.model import GuestId, VolumeId


class Alone:
    """See :class:`moorline.ports.guarding.Guarding`."""

    def demand(self, guest: GuestId, vouch: str = "") -> None:
        """It may start."""

    def permit(self, guest: GuestId, *, ours: bool, arriving: bool) -> None:
        """It may start."""

    def demand_attach(self, volume: VolumeId, *, vouched: bool) -> None:
        """It may be attached."""

    def note(self, volume: VolumeId, why: str) -> None:
        """It needed nobody's word."""


ALONE = Alone()
