"""What the fleet's calls come to: plain values that print and serialise well."""

from __future__ import annotations

from dataclasses import dataclass, field

from moorline.ports.results import EventLogEntry, Result


@dataclass(frozen=True, slots=True)
class HostView(Result):
    """One host of the fleet."""

    host: str
    heard: float
    """When its agent last gave a sign of life, by that host's own clock: seconds since the
    epoch; 0: never."""
    cordoned: bool
    draining: bool
    fenced: str
    """Why it can surely not write any more; '': it may."""
    fenced_by: str
    guests: list[str]
    arriving: list[str]
    leaving: list[str]
    volumes: int
    left: bool = False
    """It left the fleet: what it has is its own, and not counted here."""
    unread: int = 0
    """How many of those it cannot read, as they are sealed for another key: it leaves them as
    they are."""


@dataclass(frozen=True, slots=True)
class GuestView(Result):
    """One guest of the fleet."""

    guest: str
    guest_id: str
    host: str
    generation: int
    seen: str
    """*running*, *stopped*, *absent*, …; '' if its host has not said yet."""
    moving_to: str
    note: str
    """What is in its way: of its move, or why the last one came to nothing."""


@dataclass(frozen=True, slots=True)
class FleetView(Result):
    """One attachment of the fleet, or one that a host has by itself."""

    volume: str
    guest: str
    guest_id: str
    host: str
    wanted: str
    """'': the fleet does not want it. Its host has it by itself, as *message* says."""
    seen: str
    """The level that it is at, if that is as wanted; '' if it is not, or not yet. Of what its
    host has by itself: the level that its host wants."""
    error: str
    """The family of what is in the way; ''."""
    message: str


@dataclass(frozen=True, slots=True)
class FleetExplanation(Result):
    """How a guest, or one of its volumes, stands on one host."""

    guest: str
    guest_id: str
    host: str
    volume: str
    """'': it is about the guest itself."""
    wanted: str
    """Of a volume its level; of a guest *here*, *leaving*, *arriving*, *gone*; '': nothing yet."""
    seen: str
    """As of :class:`FleetView` and :class:`GuestView`."""
    waits_for: str
    """'': nothing waits."""
    heard: float
    """When the host last gave a sign of life, by its own clock; 0: never."""
    note: str = ""
    """Why the guest's last move came to nothing."""
    next: str = ""
    """What to run next; where it is to be run on the host itself, that is said before."""


@dataclass(frozen=True, slots=True)
class FleetEvent(EventLogEntry):
    """What was done or seen on a host of the fleet, or decided about it: then ``id`` is 0, and
    ``step`` one of *migrate*, *hand over*, *stay*, *cordon*, *uncordon*, *drain*, *fence*,
    *evacuate* (its order is another now), *return*, *dispute*,
    *removed*.
    """

    host: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class FleetOutcome(Result):
    """What a change came to: the steps that were taken, or with a dry run would be."""

    steps: list[str]
    guest: str = ""
    host: str = ""
    volume: str = ""
    in_the_way: list[str] = field(default_factory=list)
    """What keeps it from being done now; of a dry run."""
