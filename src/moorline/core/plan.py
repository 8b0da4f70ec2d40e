"""Decides the next step of an attachment from what is wanted and what is seen. Pure."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path

from moorline.core.kept_disk import must_stay
from moorline.model import (
    BlockDevice,
    Broken,
    Client,
    Disk,
    DiskState,
    Foreign,
    Held,
    Level,
    Linked,
    Seen,
    Unknown,
    Unlinked,
)


class Step(Enum):
    """What to do next about one attachment."""

    NOTHING = "nothing"
    CONNECT = "connect"
    ATTACH = "attach"
    RENEW = "renew"
    """Give a paused guest the file of a disk anew, after the client of its share had died."""
    DETACH = "detach"
    DISCONNECT = "disconnect"
    LIMIT = "limit"
    """Give the disk the limits that are wanted."""
    UNLOCK = "unlock"
    """Give the hypervisor the disk's key or password, which it has lost."""
    FORGET = "forget"
    WAIT = "wait"
    PARK = "park"
    """Only a person can help."""


def next_step(want: Level, seen: Seen) -> Step:
    """Return the one step that brings what is seen nearer to what is wanted."""
    has_disk = seen.disk.state is not DiskState.NONE
    if seen.disk.state is DiskState.LEAVING or (isinstance(seen.link, Unknown) and seen.link.hangs):
        return Step.WAIT
    if want < Level.ATTACHED and has_disk:
        return Step.PARK if must_stay(seen) else Step.DETACH
    if isinstance(seen.link, Unknown):
        return Step.WAIT
    if isinstance(seen.link, Foreign):
        return Step.PARK
    if want is Level.ABSENT:
        return _leave(seen)
    if isinstance(seen.link, Broken):
        return _renew(seen.link, seen.held)
    if isinstance(seen.link, Unlinked):
        return Step.CONNECT
    return _plug(seen) if want is Level.ATTACHED else Step.NOTHING


def _plug(seen: Seen) -> Step:
    if seen.disk.state is DiskState.WHOLE and seen.renews:
        return Step.RENEW
    if seen.disk.state is DiskState.WHOLE:
        if seen.elsewhere:
            return Step.PARK
        if seen.locked:
            return Step.UNLOCK
        return Step.LIMIT if seen.other_limits else Step.NOTHING
    # Half a disk is not made whole with another file than its other half is.
    if seen.disk.state is not DiskState.NONE and (seen.elsewhere or seen.snapshot):
        return Step.PARK
    return Step.ATTACH


def _leave(seen: Seen) -> Step:
    gone = isinstance(seen.link, Unlinked) or (isinstance(seen.link, Linked) and seen.link.given)
    if gone or seen.held is Held.HELD:
        return Step.FORGET
    # Forgetting while it is unknown who needs the link would leak it.
    return Step.WAIT if seen.held is Held.UNKNOWN else Step.DISCONNECT


def _renew(link: Broken, held: Held) -> Step:
    # No guest loses anything by a dead link's removal, and guests that start now need a new one.
    if link.client is Client.GONE:
        return Step.DISCONNECT
    # If the server is away, a new client would do no better than the one that lives.
    # A client that was cut off may still be writing what it has cached.
    if link.client in (Client.ALIVE, Client.CUT_OFF) or held is Held.UNKNOWN:
        return Step.WAIT
    if held is Held.FREE:
        return Step.DISCONNECT
    return Step.PARK  # a link is never pulled from under a running guest


def foresee(want: Level, seen: Seen) -> list[Step]:
    """List the steps to come, assuming that each has its effect."""
    steps: list[Step] = []
    while (step := next_step(want, seen)) not in _LAST:
        steps.append(step)
        seen = _after(step, seen)
    if step is not Step.NOTHING:
        steps.append(step)
    return steps


_LAST = frozenset({Step.NOTHING, Step.FORGET, Step.WAIT, Step.PARK})
_ANY_SOURCE = BlockDevice(Path("/dev/null"))


def _after(step: Step, seen: Seen) -> Seen:
    if step is Step.CONNECT:
        return replace(seen, link=Linked(_ANY_SOURCE))
    if step is Step.DISCONNECT:
        return replace(seen, link=Unlinked())
    if step is Step.RENEW:
        return replace(seen, renews=False, elsewhere="")
    if step is Step.LIMIT:
        return replace(seen, other_limits=False)
    if step is Step.UNLOCK:
        return replace(seen, locked=False)
    state = DiskState.WHOLE if step is Step.ATTACH else DiskState.NONE
    return replace(seen, disk=Disk(state))
