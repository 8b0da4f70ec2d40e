"""The queue of attachments that need a pass: whose turn is next, and how many run at once.

Only pace is kept here. Losing all of it costs nothing but time: a sweep finds the same
attachments again.
"""

from __future__ import annotations

import heapq
import math
import threading
from dataclasses import dataclass

from moorline.core.backoff import Pending
from moorline.deadline import CLOCK, Clock
from moorline.model import Attachment, GuestId, Key, Level

MIN_PAUSE_SECONDS = 1.0
"""Seconds between two tries; news of an event does not make the pause shorter than this."""
BUDGET_SECONDS = 1.0
"""Seconds after which a pass no longer counts against the budget: it waits for somebody else."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An attachment whose turn it is. Its taker calls :meth:`WorkQueue.done` or `retry_after`."""

    key: Key
    revision: int
    """Of the attachment, as it was when it was added."""
    tries: int
    why: str


@dataclass(slots=True)
class _Waiting:
    """What the queue knows of an attachment."""

    want: Level
    revision: int
    since: float
    ended: float
    """When its last try ended; before the first: when it was added."""
    due: float = 0.0
    tries: int = 0
    why: str = ""
    begun: float | None = None
    going: bool = False
    """Whether the pass under way counts against the budget of attachments that go."""
    again: bool = False
    """It was added or woken while its pass was under way."""


class WorkQueue:
    """Hands out turns, each key to one taker at a time. Safe to use from several threads.

    Attachments that go (ABSENT) and attachments that come have budgets of *going* and *coming*
    passes at once, so that neither starves the other. More of them come: most of what they cost
    is a look at all guests, which those share that ask for it at the same time. A pass that takes
    longer than :data:`BUDGET_SECONDS` is replaced on its budget, up to *most* of a kind: one that
    hangs delays no other, and the number of hung ones is bounded.
    """

    def __init__(
        self, *, coming: int = 8, going: int = 2, most: int = 16, clock: Clock = CLOCK
    ) -> None:
        self._budgets = {True: going, False: coming}
        self._most = most
        self._now = clock.now
        self._changed = threading.Condition()
        self._closed = False
        self._waiting: dict[Key, _Waiting] = {}
        self._running: dict[Key, _Waiting] = {}
        self._queues: dict[bool, list[tuple[float, Key]]] = {True: [], False: []}

    def add(self, row: Attachment) -> None:
        """Queue *row*; if its pass is under way, it gets another one after that.

        If it waits already it keeps its place, unless the attachment was replaced meanwhile.
        """
        with self._changed:
            now = self._now()
            known = self._waiting.get(row.key)
            if known is None or known.revision != row.revision:
                self._begin(row, known, now)
            elif known.begun is not None:
                known.again = True

    def knows(self, row: Attachment) -> bool:
        """Whether this revision of the attachment waits already, or is under way."""
        with self._changed:
            known = self._waiting.get(row.key)
            return known is not None and known.revision == row.revision

    def wake(self, guest: GuestId | None) -> None:
        """Shorten pauses, as *guest* changed (None: anything may have)."""
        with self._changed:
            now = self._now()
            for key, known in self._waiting.items():
                if known.begun is not None:
                    known.again = known.again or guest in (key.guest, None)
                    continue
                pause = known.due - known.ended
                least = MIN_PAUSE_SECONDS if key.guest == guest else _shortened(pause)
                soonest = max(now, known.ended + least)
                if soonest < known.due:
                    self._queue(key, known, soonest)

    def take(self, *, wait: bool = True) -> Turn | None:
        """Block until it is somebody's turn. None: it is closed, or nobody's turn and no *wait*."""
        with self._changed:
            while not self._closed:
                key, pause = self._next(self._now())
                if key is not None:
                    known = self._waiting[key]
                    return Turn(key, known.revision, known.tries, known.why)
                if not wait:
                    break
                self._changed.wait(pause)
        return None

    def done(self, turn: Turn) -> None:
        """End a turn: the attachment is as wanted, or does not exist any more."""
        with self._changed:
            known = self._ended(turn)
            if known.again or known.revision != turn.revision:
                known.again, known.tries, known.why = False, 0, ""
                self._queue(turn.key, known, self._now())
            else:
                del self._waiting[turn.key]

    def retry_after(self, turn: Turn, delay: float, why: str, *, tries: int) -> None:
        """End a turn: try again after *delay* seconds, or sooner if there was news meanwhile."""
        with self._changed:
            known = self._ended(turn)
            if known.revision != turn.revision:  # the outcome is not the new attachment's
                delay, why, tries = 0.0, "", 0
            known.tries, known.why = tries, why
            if known.again:
                known.again, delay = False, min(delay, _shortened(delay))
            self._queue(turn.key, known, known.ended + delay)

    def pending(self) -> list[Pending]:
        """Everything that waits or is under way, the longest-waiting first."""
        with self._changed:
            now = self._now()
            found = [
                Pending(
                    key,
                    known.want,
                    0.0 if known.begun is not None else max(0.0, known.due - now),
                    known.tries,
                    known.why,
                    now - known.since,
                    known.begun is not None,
                )
                for key, known in self._waiting.items()
            ]
        return sorted(found, key=lambda each: -each.age)

    def close(self) -> None:
        """Hand out no more turns."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def idle(self, timeout: float) -> bool:
        """Wait until no pass is under way; False if *timeout* seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def _begin(self, row: Attachment, known: _Waiting | None, now: float) -> None:
        """Queue an attachment that is new here; it does not inherit its predecessor's pause."""
        if known is not None and known.begun is not None:
            known.want, known.revision = row.want, row.revision
            return
        fresh = _Waiting(row.want, row.revision, since=now, ended=now)
        self._waiting[row.key] = fresh
        self._queue(row.key, fresh, now)

    def _queue(self, key: Key, known: _Waiting, due: float) -> None:
        known.due = due
        heapq.heappush(self._queues[known.want is Level.ABSENT], (due, key))
        self._changed.notify_all()

    def _next(self, now: float) -> tuple[Key | None, float | None]:
        """The key whose turn it is, or None and the seconds until one is due (None: unknown)."""
        waits: list[float] = []
        for going, queue in self._queues.items():
            while queue and not self._is_current(going, *queue[0]):
                heapq.heappop(queue)
            if not queue:
                continue
            wait = max(queue[0][0] - now, self._seconds_to_room(going, now))
            if wait <= 0:
                _, key = heapq.heappop(queue)
                known = self._running[key] = self._waiting[key]
                known.begun, known.going = now, going
                return key, None
            waits.append(wait)
        wait = min(waits, default=math.inf)
        return None, None if wait == math.inf else wait

    def _is_current(self, going: bool, due: float, key: Key) -> bool:
        """Whether a heap entry is valid.

        When a due time changes, the old entry stays in the heap.
        """
        known = self._waiting.get(key)
        return (
            known is not None
            and known.begun is None
            and known.due == due
            and (known.want is Level.ABSENT) is going
        )

    def _seconds_to_room(self, going: bool, now: float) -> float:
        """Seconds until the budget has room; 0 or less: it has room now."""
        begun = [
            k.begun for k in self._running.values() if k.going is going and k.begun is not None
        ]
        if len(begun) >= self._most:
            return math.inf
        budget = self._budgets[going]
        if len(begun) < budget:
            return 0.0
        return sorted(begun)[-budget] + BUDGET_SECONDS - now

    def _ended(self, turn: Turn) -> _Waiting:
        known = self._running.pop(turn.key)
        known.begun, known.ended = None, self._now()
        self._changed.notify_all()
        return known


def _shortened(pause: float) -> float:
    """The pause that is left after news: not 0, as the news may come from our own change."""
    return max(MIN_PAUSE_SECONDS, pause / 4)
