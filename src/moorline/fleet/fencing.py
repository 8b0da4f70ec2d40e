"""That a host is dead: its silence, and the proof that it cannot write any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from moorline.errors import Busy, Conflict, NotFound, Uncertain
from moorline.fleet import keys
from moorline.fleet.record_store import Book, Change
from moorline.fleet.records import HostRecord

Proof = Callable[[], str]
"""Sees to it that a host cannot write, and tells how. Raises Failed, Refused, Uncertain if it may
still."""


def fence(
    book: Book,
    host: str,
    is_silent: Callable[[str, int], bool],
    proof: Proof,
    by: str,
    clock: Callable[[], float] = time.time,
    ordered: Callable[[HostRecord], HostRecord] = lambda record: record,
) -> HostRecord:
    """Record that *host* is fenced; its guests are then evacuated. Already so is success.

    *is_silent* says whether a heartbeat has been at a revision for too long. The heartbeat is
    read before the proof is made, and must not have changed when it is recorded: a host that
    came back meanwhile may have started its guests. *ordered* adds in which order they go.
    Raises Busy (it is alive, or came back), NotFound, and as *proof* and the store.
    """
    record = book.host(host)
    if record is None:
        raise NotFound(f"there is no host {host} in the fleet", hint="moorline fleet hosts")
    if record.fenced:
        return record
    heartbeat = book.heartbeat(host)
    if not is_silent(host, heartbeat.revision if heartbeat else 0):
        raise Busy(
            f"{host} is not evacuated: its agent is alive, or was a moment ago",
            hint=f"moorline fleet drain {host}",
        )
    fenced = replace(
        ordered(record), fenced=proof(), fenced_by=by, fenced_at=clock(), draining=False
    )
    change = Change()
    change.replace(keys.host(host), record, fenced)
    change.expect(keys.heartbeat(host), heartbeat)
    change.note("fence", host, f"{fenced.fenced} (says {by})" if by else fenced.fenced)
    try:
        revision = book.commit(change)
    except Conflict as e:
        raise Busy(
            f"{host} is not evacuated: it changed, or came back, since it was proved dead",
            hint="look at it, and repeat the command",
        ) from e
    except Uncertain:
        now = book.host(host)
        if now is None or replace(now, revision=0) != replace(fenced, revision=0):
            raise
        return now
    return replace(fenced, revision=revision)
