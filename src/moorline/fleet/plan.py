"""Decide what a host does about a guest, and how a move goes on; touch nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from moorline.fleet.records import Bring, Role
from moorline.ports.moving import Presence


class HostStep(Enum):
    """What a host does next about one guest."""

    NOTHING = "nothing"
    STOP = "stop"
    """Destroy the copy that is here, whatever it does."""
    UNDEFINE = "undefine"
    DEFINE = "define"
    START = "start"
    RESUME = "resume"
    """Let the paused copy run."""
    SEND = "send"


def next_host_step(
    role: Role | None, bring: Bring, state: Presence, *, kept: bool = True, promised: bool = False
) -> HostStep:
    """Return the one step that brings a guest nearer to what its host was told.

    *role* None: nothing was said of it, so that it is left as it is. *kept*:
    its definition is in the fleet's store, so that it may go from here. *promised*: it was
    reported that the guest does not go under this assignment.
    """
    if role is None:
        return HostStep.NOTHING
    if role is Role.GONE:
        return _let_go(state)
    if role is Role.ARRIVING:
        # What runs or is defined here is from an earlier stay; a copy that comes has no room then.
        return (
            HostStep.NOTHING if state in (Presence.INCOMING, Presence.ARRIVED) else _let_go(state)
        )
    if state is Presence.SENT:
        return HostStep.RESUME  # the other copy never runs before this one was given up
    if role is Role.LEAVING:
        return HostStep.NOTHING if promised else _send(state, kept=kept)
    return _bring(bring, state)


def _send(state: Presence, *, kept: bool) -> HostStep:
    if state in (Presence.RUNNING, Presence.ARRIVED):
        return HostStep.SEND
    return _let_go(state) if kept else HostStep.NOTHING


def _let_go(state: Presence) -> HostStep:
    if state is Presence.ABSENT:
        return HostStep.NOTHING
    return HostStep.UNDEFINE if state is Presence.STOPPED else HostStep.STOP


def _bring(bring: Bring, state: Presence) -> HostStep:
    if state is Presence.ARRIVED:
        return HostStep.RESUME
    if state is Presence.INCOMING:
        return HostStep.STOP  # whoever sent it is no more: it will never be whole
    if state is Presence.ABSENT and bring is not Bring.NOTHING:
        return HostStep.DEFINE
    if state is Presence.STOPPED and bring is Bring.RUNNING:
        return HostStep.START
    return HostStep.NOTHING


class MoveStep(Enum):
    """What a controller does next about one move."""

    WAIT = "wait"
    PREPARE = "prepare"
    """Have the destination make ready."""
    SEND = "send"
    """Have the source send the guest."""
    CALL = "call"
    """Ask the destination anew: that it is not ready may be older than the guest's going."""
    HAND_OVER = "hand over"
    """The guest is the destination's."""
    BACK = "back"
    """The guest stays the source's."""
    FORGET = "forget"
    """Nothing was begun, or all of it is done."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two hosts, as a move sees it."""

    role: Role | None = None
    """None: nothing is wanted of it."""
    state: Presence | None = None
    """What it reports for just this assignment; None: nothing yet."""
    error: str = ""
    """The family of what keeps it from doing as it is told."""
    ready: bool = False
    """Every attachment is as wanted there."""
    silent: bool = False
    """Its heartbeat has expired: it may be dead, or cut off."""
    fenced: bool = False
    """It can surely not write any more."""
    another: bool = False
    """It has another guest of that id, which stays as it is."""


@dataclass(frozen=True, slots=True)
class SeenMove:
    """A move, as it is seen."""

    source: Side
    destination: Side
    owner: str = "source"
    """Which of both has the guest: ``source``, ``destination``; ``other``: neither."""
    called: bool = False
    """The destination was asked anew after the source had let go."""
    given_up: bool = False
    """A person gave it up."""
    blocked: bool = False
    """A volume is on its way out of the guest."""
    kept: bool = False
    """It has a volume that is its host's own."""


def next_move_step(seen: SeenMove) -> MoveStep:
    """Return the one step that brings a move nearer to its end. Pure and total.

    A guest runs nowhere but where it is HERE, and HAND_OVER and BACK alone say where that is:
    so they alone have to be safe. HAND_OVER needs that the source has promised to be without
    the guest, or is fenced; BACK needs that it has not promised to send it, or is without it.
    """
    if seen.owner != "source":
        return MoveStep.FORGET
    role = seen.destination.role
    if role is None:
        return _begin(seen)
    if role is not Role.ARRIVING:
        # It still cleans up after an earlier stay.
        return MoveStep.FORGET if seen.given_up else MoveStep.WAIT
    if seen.source.role is Role.LEAVING and seen.source.state is Presence.ABSENT:
        return _after_it_went(seen)
    if seen.source.fenced:
        return MoveStep.BACK if seen.kept else _after_it_went(seen)
    if seen.source.role is Role.LEAVING:
        # It sends under this assignment until it says that it does not.
        return MoveStep.BACK if seen.source.error else MoveStep.WAIT
    if seen.given_up or seen.kept or _is_lost(seen.destination):
        return MoveStep.BACK
    return MoveStep.SEND if _is_ready(seen.destination) else MoveStep.WAIT


def _begin(seen: SeenMove) -> MoveStep:
    if seen.given_up or seen.kept or seen.destination.fenced or seen.destination.another:
        return MoveStep.FORGET
    # A disk that its guest has not let go of yet cannot go along.
    if seen.destination.silent or (seen.blocked and not seen.source.fenced):
        return MoveStep.WAIT
    return MoveStep.PREPARE


def _after_it_went(seen: SeenMove) -> MoveStep:
    """The source is without the guest for good: nobody runs it."""
    destination = seen.destination
    if destination.silent or destination.fenced or destination.another:
        return MoveStep.BACK
    # Before it has said anything, it may have another guest of that id.
    told = destination.state is not None
    if destination.state is Presence.ARRIVED or (destination.ready and told):
        return MoveStep.HAND_OVER
    if not seen.called:
        return MoveStep.CALL  # its memory may have arrived since: only the next report counts
    hopeless = seen.given_up or destination.error == "refused"
    return MoveStep.BACK if destination.state is not None and hopeless else MoveStep.WAIT


def _is_lost(side: Side) -> bool:
    return side.silent or side.fenced or side.another or side.error == "refused"


def _is_ready(side: Side) -> bool:
    return side.state is Presence.ABSENT and side.ready and not side.error
