"""Guests that somebody removed on their host: the fleet lets go of them, and makes none anew."""

from __future__ import annotations

from typing import Protocol

from moorline.fleet import keys
from moorline.fleet.moves import Place
from moorline.fleet.record_store import Change
from moorline.fleet.records import GuestOwner, Move
from moorline.model import GuestId
from moorline.ports.moving import Presence


class Known(Protocol):
    """What is looked at to tell whether one may be let go of."""

    moves: dict[GuestId, Move]
    owners: dict[GuestId, GuestOwner]


def removed(look: Known, guest: GuestId, here: Place) -> Change | None:
    """Let go of *guest*, which its host was told to remove. None: it was not; or it has volumes
    by the fleet's word, or is on its way.
    """
    report, owner = here.report, look.owners.get(guest)
    gone = report is not None and report.removed and here.side.state is Presence.ABSENT
    if not gone or owner is None or owner.host != here.name or here.attachments:
        return None
    if guest in look.moves:
        return None
    change = Change()
    at = keys.assignment(here.name, guest)
    change.expect(keys.move(guest), None)
    change.expect(keys.report(at), report)
    change.delete(at, here.assignment)
    change.delete(keys.guest_owner(guest), owner)
    change.delete(keys.definition(here.name, guest))
    change.note("removed", here.name, "on its host", guest=owner.name)
    return change
