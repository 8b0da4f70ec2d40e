"""The owner's loop: attachments stay as wanted without anybody asking.

It is level-triggered: news of guests, mounts and attachments only says when to look, and
what is done follows from the look. News that is lost delays things until the next sweep.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from functools import partial

from moorline.core.backoff import Pending, backoff
from moorline.core.claims import Claims
from moorline.core.records import Records
from moorline.deadline import Deadline
from moorline.errors import MoorlineError
from moorline.loop.drift import DriftDetector, Sweep
from moorline.loop.worker import TurnResult, Worker
from moorline.loop.workqueue import Turn, WorkQueue
from moorline.model import Attachment, GuestId
from moorline.ports import Watching

SWEEP_INTERVAL_SECONDS = 60.0
"""Seconds between two sweeps."""
LINK_SCANS_PER_SWEEP = 6
"""How often links alone are looked at between two sweeps: no event tells of a dead FUSE daemon."""
REST_PER_SCAN = 4
"""A look is followed by a pause of so many times its own length."""
_MIN_REST_SECONDS, _MAX_REST_SECONDS = 0.1, 2.0
_STOP_TIMEOUT_SECONDS = 3.0
"""Seconds in which the threads must end: longer than a share has to answer."""
_DEFECT = TurnResult("a defect of Moorline's; the log tells more", 60.0)
_log = logging.getLogger(__name__)


class Controller:
    """Gives turns to each attachment that is not as wanted, until it is.

    Attachments that callers have *claims* on are left to them.
    *watchers* tell when to look. *every*: seconds between sweeps.
    """

    def __init__(
        self,
        records: Records,
        worker: Worker,
        drift: DriftDetector,
        claims: Claims,
        *,
        watchers: Sequence[Watching] = (),
        every: float = SWEEP_INTERVAL_SECONDS,
        queue: WorkQueue | None = None,
    ) -> None:
        self._records = records
        self._worker = worker
        self._drift = drift
        self._claims = claims
        claims.on_release = lambda key: self.wake(key.guest)
        self._watchers = watchers
        self._every = every
        self._queue = queue or WorkQueue()
        self._stop = threading.Event()
        self._news = _News()
        self._threads: list[threading.Thread] = []
        self.swept: Sweep | None = None
        """The last sweep; None: there was none yet."""

    def start(self) -> None:
        """Begin, with a sweep. Returns at once."""
        loops: dict[str, Callable[[], None]] = {
            "turns": self._give_turns,
            "looks": self._look_around,
            "attachments": self._watch_attachments,
        }
        for watcher in self._watchers:
            loops[type(watcher).__name__] = partial(watcher.watch, self.wake, self._stop)
        for name, loop in loops.items():
            thread = threading.Thread(target=loop, name=f"controller: {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wake(self, guest: GuestId | None = None) -> None:
        """Note that *guest* changed (None: anything may have). Never blocks."""
        self._news.add(guest)

    def pending(self) -> Sequence[Pending]:
        """The attachments that are not as wanted, as far as is known, the oldest first."""
        claimed = self._claims.pending()
        theirs = {each.key for each in claimed}
        ours = [each for each in self._queue.pending() if each.key not in theirs]
        return sorted([*claimed, *ours], key=lambda each: -each.age)

    def alive(self) -> bool:
        """Whether every thread runs.

        False: a defect ended one, and the process must be restarted.
        """
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def stop(self, timeout: float = 30.0) -> bool:
        """Finish the steps that are under way, and begin no others.

        False if one was still under way after *timeout* seconds. The process
        may end then all the same: the next one finds what came of it.
        """
        deadline = Deadline(timeout)
        self._stop.set()
        self._news.add(None)
        self._queue.close()
        finished = self._queue.idle(timeout)
        # A thread that looks can hang with libvirt. It changes nothing, so it is not waited for
        # long.
        deadline = Deadline(min(deadline.left(), _STOP_TIMEOUT_SECONDS))
        for thread in self._threads:
            thread.join(deadline.left())
        return finished

    # --- who needs a turn

    def _look_around(self) -> None:
        sweep, failures = Deadline(0.0), 0
        while not self._stop.is_set():
            news = self._news.wait(min(sweep.left(), self._every / LINK_SCANS_PER_SWEEP))
            begun = time.monotonic()
            for guest in news:
                self._queue.wake(guest)
            if sweep.over():
                news.add(None)
            failures = 0 if self._look(news) else failures + 1
            if failures:
                sweep = Deadline(backoff(failures, first=0.25))
            elif None in news:
                sweep = Deadline(self._every)
            # However many events come, looking takes only a small part of the time.
            rest = _MIN_REST_SECONDS + REST_PER_SCAN * (time.monotonic() - begun)
            self._stop.wait(min(rest, _MAX_REST_SECONDS))

    def _look(self, news: Set[GuestId | None]) -> bool:
        """Queue attachments that need a turn, where the news points; False: it was not possible."""
        try:
            if None in news:
                return self._sweep()
            guests = [partial(self._drift.at, guest, self._known) for guest in news if guest]
            for look in guests or [partial(self._drift.links, self._known)]:
                for row in look():
                    self._queue.add(row)
        except MoorlineError as e:
            _log.warning("the attachments cannot be read: %s", e)
            return False
        except Exception:  # noqa: BLE001 - a defect of a back end must not end the loop
            _log.exception("a defect, met by a look")
            return False
        return True

    def _known(self, row: Attachment) -> bool:
        """Whether a caller drives it, or it is in the queue."""
        return self._claims.turns_away(row.key) or self._queue.knows(row)

    def _sweep(self) -> bool:
        found = self._drift.everywhere()
        for row in found.due:
            self._queue.add(row)
        if found.error:
            _log.warning("the guests cannot be looked at: %s", found.error)
        self.swept = found
        return not found.error

    def _watch_attachments(self) -> None:
        failures = 0
        while not self._stop.is_set():
            with suppress(MoorlineError):  # a sweep says what is wrong with the store
                for row in self._records.changes(self._stop):
                    failures = 0
                    if row is None:
                        self._news.add(None)
                    else:
                        self._queue.add(row)
            failures += 1
            self._stop.wait(backoff(failures, first=0.25))

    # --- turns

    def _give_turns(self) -> None:
        while (turn := self._queue.take()) is not None:
            if self._claims.turns_away(turn.key):
                self._queue.done(turn)
                continue
            # Each turn has a thread of its own, so that one that hangs delays no other.
            threading.Thread(target=self._serve, args=[turn], name="worker", daemon=True).start()

    def _serve(self, turn: Turn) -> None:
        verdict = _DEFECT
        try:
            verdict = self._worker.serve(turn, self._stop.is_set)
        except Exception:  # noqa: BLE001 - what one attachment meets must not stop the others
            _log.exception("a defect, met by volume %s", turn.key.volume)
        finally:
            if verdict.why:
                self._queue.retry_after(turn, verdict.delay, verdict.why, tries=verdict.tries)
            else:
                self._queue.done(turn)


class _News:
    """What has changed since it was last asked."""

    def __init__(self) -> None:
        self._came = threading.Condition()
        self._of: set[GuestId | None] = set()

    def add(self, guest: GuestId | None) -> None:
        with self._came:
            self._of.add(guest)
            self._came.notify()

    def wait(self, timeout: float) -> set[GuestId | None]:
        """Take what there is; wait for it up to *timeout* seconds."""
        with self._came:
            self._came.wait_for(lambda: self._of, timeout)
            news, self._of = self._of, set()
        return news
