"""A host that is in no fleet: nobody else is asked."""

from __future__ import annotations

from collections.abc import Sequence

from moorline.errors import Refused
from moorline.model import GuestId, VolumeId


class Alone:
    """See :class:`moorline.ports.guarding.Guarding`."""

    def demand(self, guest: GuestId, vouch: str = "", *, dry_run: bool = False) -> None:
        """It may start."""

    def permit(self, guest: GuestId, *, ours: bool, arriving: bool) -> None:
        """It may start."""

    def demand_attach(self, volume: VolumeId, *, vouched: bool) -> None:
        """It may be attached."""

    def demand_release(self, guest: GuestId, volume: VolumeId) -> None:
        """It may go."""

    def demand_gone(self, guest: str, volume: str, *, here: bool) -> None:
        """It is nowhere else."""

    def removed(self, guest: GuestId) -> None:
        """Nobody else knew it."""

    def note(self, volume: VolumeId, why: str) -> None:
        """It needed nobody's word."""

    def follow(self, *, vouch: str = "", dry_run: bool = False) -> Sequence[str]:
        """Raise Refused."""
        raise Refused("this host follows no fleet", hint="moorline fleet join")


ALONE = Alone()
