"""What a host may do that is, or may be, in a fleet, while no agent of it asks that fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from moorline.errors import Refused, Unavailable
from moorline.fleet.host_memory import Marks
from moorline.model import GuestId, VolumeId
from moorline.ports.guarding import Guarding
from moorline.redaction import quotable

VOUCHING = "--i-know-that-no-other-host-has-it"
"""By which a person gives his word that no other host has a guest, or a volume."""
Told = Callable[[str], None]
"""Told what people must be able to read later. Must neither block nor raise."""


def tell_nobody(_: str) -> None:
    """For whoever does not want to know."""


class Unattended:
    """See :class:`moorline.ports.guarding.Guarding`: a host of a fleet, while no agent asks it.

    Nothing can be told then, and only a person's word lets a guest start.
    """

    def __init__(self, marks: Marks, boot: Callable[[], str], told: Told = tell_nobody) -> None:
        self._marks = marks
        self._boot = boot
        self._told = told

    def demand(self, guest: GuestId, vouch: str = "", *, dry_run: bool = False) -> None:
        """Raise Unavailable unless a person vouched for it."""
        if not dry_run:
            self.vouch(guest, vouch)
        if not (vouch or self._is_vouched(guest)):
            raise Unavailable(
                "this host is in a fleet, and no agent that follows it runs here, which could tell"
                f" whether another host has guest {guest}",
                hint="start the agent, anew if it ran before this host joined: moorline agent",
            )

    def permit(self, guest: GuestId, *, ours: bool, arriving: bool) -> None:
        """As :meth:`demand`. What the fleet never spoke of, and has no disk of ours, may start."""
        if ours or guest in self._marks.guests():
            self.demand(guest)

    def demand_attach(self, volume: VolumeId, *, vouched: bool) -> None:
        """Raise Refused without a word: which host has a volume is for the fleet to say."""
        if not vouched:
            raise Refused(
                f"this host is in a fleet, which says who gets volume {volume}",
                hint=f"moorline fleet attach; or {VOUCHING} REASON",
            )

    def demand_release(self, guest: GuestId, volume: VolumeId) -> None:
        """Raise Refused if the fleet wants that here: the agent would bring it back."""
        if (guest, volume) in self._marks.volumes():
            raise Refused(
                f"the fleet wants volume {volume} here",
                hint=f"moorline fleet detach GUEST {volume}",
            )

    def demand_gone(self, guest: str, volume: str, *, here: bool) -> None:
        """Raise Refused: a host is told nothing of other hosts, not even what it lost to them."""
        if here:
            from moorline.fleet.records import Role  # no other command of a host needs these

            id = GuestId(guest)
            self.demand_release(id, VolumeId(volume))
            mark = self._marks.guests().get(id)
            if mark is None or mark.role == Role.HERE:
                return
        what = f"guest {guest}" if guest else f"volume {quotable(volume)}"
        if guest and volume:
            way = f"moorline fleet detach {guest} {volume}"
        else:
            way = "moorline fleet guests" if guest else f"moorline fleet show {quotable(volume)}"
        raise Refused(
            f"{what} may be another host's: this host is in a fleet, which alone can tell", hint=way
        )

    def removed(self, guest: GuestId) -> None:
        """Remember it for the fleet, which would make the guest anew elsewhere else."""
        self._marks.remove(guest)

    def note(self, volume: VolumeId, why: str) -> None:
        """Write down that *volume* was recorded by a person's word; *why* '': it was not."""
        if why:
            self._told(f"a person says that no other host has volume {volume}: {why}")

    def vouch(self, guest: GuestId, why: str) -> None:
        """Take a person's word that no other host has *guest*, until this host boots again."""
        if why:
            self._told(f"a person says that no other host has guest {guest}: {why}")
            self._marks.vouch(guest, self._boot())

    def follow(self, *, vouch: str = "", dry_run: bool = False) -> Sequence[str]:
        """Raise Unavailable: the agent alone has the way to the store."""
        raise Unavailable("this host's agent does not run", hint="start it: moorline agent")

    def _is_vouched(self, guest: GuestId) -> bool:
        return self._marks.vouched(guest) == self._boot()


class Elsewhere(Unattended):
    """A host of a fleet, by a state that the fleet's agent does not keep.

    Not a person's word either: the fleet would never be told what this state has, and give it to
    another host.
    """

    def demand(self, guest: GuestId, vouch: str = "", *, dry_run: bool = False) -> None:
        """Raise Refused."""
        raise self._refused(f"guest {guest}")

    def permit(self, guest: GuestId, *, ours: bool, arriving: bool) -> None:
        """Raise Refused: nothing is known here of the fleet's guests."""
        raise self._refused(f"guest {guest}")

    def demand_attach(self, volume: VolumeId, *, vouched: bool) -> None:
        """Raise Refused."""
        raise self._refused(f"volume {volume}")

    def _refused(self, what: str) -> Refused:
        return Refused(
            f"this host is in a fleet, which says who gets {what}, and asks and tells another state"
            " of this host than this one",
            hint="leave --state-dir out; or have [moorline] agent_fleet name the host's credentials"
            " beside the state_dir that its agent keeps",
        )


class PerhapsAlone:
    """See :class:`moorline.ports.guarding.Guarding`: a host may join a fleet at any moment.

    *now* is asked each time which guard holds.
    """

    def __init__(self, now: Callable[[], Guarding]) -> None:
        self._now = now

    def demand(self, guest: GuestId, vouch: str = "", *, dry_run: bool = False) -> None:
        """See there."""
        self._now().demand(guest, vouch, dry_run=dry_run)

    def permit(self, guest: GuestId, *, ours: bool, arriving: bool) -> None:
        """See there."""
        self._now().permit(guest, ours=ours, arriving=arriving)

    def demand_attach(self, volume: VolumeId, *, vouched: bool) -> None:
        """See there."""
        self._now().demand_attach(volume, vouched=vouched)

    def demand_release(self, guest: GuestId, volume: VolumeId) -> None:
        """See there."""
        self._now().demand_release(guest, volume)

    def demand_gone(self, guest: str, volume: str, *, here: bool) -> None:
        """See there."""
        self._now().demand_gone(guest, volume, here=here)

    def removed(self, guest: GuestId) -> None:
        """See there."""
        self._now().removed(guest)

    def note(self, volume: VolumeId, why: str) -> None:
        """See there."""
        self._now().note(volume, why)

    def follow(self, *, vouch: str = "", dry_run: bool = False) -> Sequence[str]:
        """See there."""
        return self._now().follow(vouch=vouch, dry_run=dry_run)
