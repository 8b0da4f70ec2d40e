"""In which order the guests of a host go elsewhere, and how many of them at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from moorline.fleet.moves import Place
from moorline.fleet.record_store import OfHost
from moorline.fleet.records import Bring, GuestOwner, HostRecord, Move, Role
from moorline.model import GuestId

USUAL_AT_ONCE = 4


class OnTheWay(Protocol):
    """What is looked at to tell who is on the way."""

    moves: dict[GuestId, Move]
    silent: frozenset[str]
    desired: dict[str, OfHost]
    reports: dict[str, OfHost]

    def place(self, guest: GuestId, host: str) -> Place:
        """What is known of a guest on one host."""


def most_at_once(record: HostRecord) -> int:
    """How many guests of a host may be on their way, or starting, at a time."""
    return record.at_once or USUAL_AT_ONCE


def in_order(record: HostRecord, guests: Mapping[GuestId, GuestOwner]) -> list[GuestId]:
    """*guests*, those first of which a person said so.

    One whose last move came to nothing comes after all others, which it would keep else.
    """
    turns = {guest: turn for turn, guest in enumerate(record.first)}
    return sorted(guests, key=lambda at: (bool(guests[at].note), turns.get(at, len(turns))))


def on_the_way(host: str, look: OnTheWay) -> int:
    """How many guests that were on *host* are moving, or have yet to run where they came to."""
    moving = sum(move.source == host for move in look.moves.values())
    return moving + sum(
        _is_starting(guest, home, look)
        for home, desired in look.desired.items()
        for guest, here in desired.assignments.items()
        if (here.role, here.bring, here.peer) == (Role.HERE, Bring.RUNNING, host)
        and guest not in look.moves
    )


def _is_starting(guest: GuestId, home: str, look: OnTheWay) -> bool:
    """Whether nothing is in its way: what cannot start there keeps no other waiting.

    Neither does one on a host that went silent as well.
    """
    here = look.place(guest, home)
    told = (look.reports[home].volumes.get((guest, volume)) for volume in here.attachments)
    return not (home in look.silent or here.side.error or any(each and each.error for each in told))
