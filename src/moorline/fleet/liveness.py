"""Who is alive and who leads: entries that change, and expire by the observer's own clock.

No two clocks are compared, and an expiry proves silence, never death: nothing is taken from
a host because it is silent. Who leads is a matter of pace too: every change is a compare-and-swap,
so that two who both believe to lead do no harm.
"""

from __future__ import annotations

from moorline.deadline import CLOCK, Clock, Deadline
from moorline.errors import Conflict, Uncertain
from moorline.fleet import keys
from moorline.fleet.record_store import Book, Change
from moorline.fleet.records import Leader

HEARTBEAT_SECONDS = 5.0
"""Between two signs of life of an agent."""
SILENCE_SECONDS = 30.0
"""Without a sign of life, after which a host is silent, and a leader leads no more."""


class Expiry:
    """Tells which entries have not changed for a while, by the time at which it saw them."""

    def __init__(self, clock: Clock = CLOCK, seconds: float = SILENCE_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._seen: dict[str, tuple[int, Deadline]] = {}

    def left(self, key: str, revision: int) -> float:
        """Seconds until *key* has been at *revision* for too long, seen for the first time now."""
        known = self._seen.get(key)
        if known is None or known[0] != revision:
            known = self._seen[key] = revision, Deadline(self._seconds, self._clock)
        return known[1].left()

    def expired(self, key: str, revision: int) -> bool:
        """Whether it has been at *revision* for too long. What is seen first has not."""
        return self.left(key, revision) == 0.0


class Leadership:
    """Whether this controller leads, renewed by asking."""

    def __init__(self, book: Book, session: str, expiry: Expiry) -> None:
        self._book = book
        self._session = session
        self._expiry = expiry

    def leads(self) -> bool:
        """Renew or take the lead; False: another has it. Raises as the store."""
        entry = self._book.store.get(keys.LEADER)
        leader = Leader.decode(entry) if entry else None
        others = leader is not None and leader.session != self._session
        if leader and others and not self._expiry.expired(keys.LEADER, leader.revision):
            return False
        count = leader.count + 1 if leader else 1
        change = Change()
        change.replace(keys.LEADER, leader, Leader(session=self._session, count=count))
        try:
            self._book.commit(change)
        except (Conflict, Uncertain):
            return False  # the next look tells
        return True
