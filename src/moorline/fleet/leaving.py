"""A host leaves its fleet: what it has stays as it is, and is its own from then on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from moorline.core.validation import check_reason
from moorline.errors import Refused
from moorline.fleet import keys
from moorline.fleet.host_memory import Marks
from moorline.fleet.record_store import Book, Change
from moorline.fleet.records import Heartbeat, Role
from moorline.fleet.unattended import VOUCHING


def farewell(book: Book, host: str) -> None:
    """Tell the fleet that *host* left it, as its last sign of life. Raises as the store."""
    before = book.heartbeat(host) or Heartbeat(session="")
    left = replace(before, count=before.count + 1, at=time.time(), memory=0, unread=0, left=True)
    change = Change()
    change.replace(keys.heartbeat(host), before, left)
    book.commit(change)


def leave(
    marks: Marks, told: Callable[[str], None], *, vouch: str, dry_run: bool = False
) -> Sequence[str]:
    """Forget what the fleet wanted of this host; return the guests that are its own then.

    *vouch*: why a person is sure that the fleet gives them to no other host. Raises Refused: one
    is another host's by now, or on its way; or there are some, and nobody vouches for them.
    """
    if vouch:
        check_reason(vouch)
    guests = marks.guests()
    others = sorted(guest for guest, mark in guests.items() if mark.role != Role.HERE)
    if others:
        role = guests[others[0]].role
        raise Refused(
            f"guest {others[0]} is not this host's alone: the fleet has it {role}",
            hint="start the agent, and wait until moorline fleet guests shows where it is",
        )
    if guests and not (vouch or dry_run):
        raise Refused(
            f"this host has {len(guests)} guests of the fleet, which may give them to another one",
            hint=f"moorline fleet drain HOST; or stop all controllers, and say {VOUCHING} REASON",
        )
    if not dry_run:
        told(f"this host leaves its fleet: {vouch or 'it has no guest of it'}")
        marks.leave()
    return sorted(guests)
