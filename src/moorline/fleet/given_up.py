"""Moves that a person gave up: how it is written down, and what came of it."""

from __future__ import annotations

from dataclasses import replace

from moorline.errors import Refused
from moorline.fleet import keys
from moorline.fleet.record_store import Book, Change
from moorline.fleet.records import Move
from moorline.model import GuestId


def given_up(book: Book, guest: GuestId, why: str) -> Move | None:
    """The guest's move, given up now if there is a *why*; None: there is none.

    Raises as the store; Conflict: it went on, or ended, meanwhile.
    """
    move = book.move(guest)
    if move is not None and why and not move.given_up:
        change = Change()
        change.replace(keys.move(guest), move, replace(move, given_up=why))
        book.commit(change)
    return move


def demand_stays(book: Book, guest: GuestId, name: str, source: str) -> None:
    """Raise Refused if the guest, whose move has ended, is not on *source*, or does not stay."""
    owner, record = book.owner(guest), book.host(source)
    if owner is None or owner.host != source:
        where = owner.host if owner else "no host"
        back = f"`moorline fleet migrate {name} {source}` brings it back"
        raise Refused(f"{name} had gone already: it is on {where}", hint=back)
    if record is not None and (record.draining or record.fenced):
        why = "fenced" if record.fenced else "drained"
        raise Refused(
            f"{name} is on {source} still, and goes to another host: {source} is {why}",
            hint=f"moorline fleet uncordon {source}" if record.draining else "",
        )
