"""The threads of a host that follows a fleet: when to look, and that somebody is told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from moorline.core.backoff import backoff
from moorline.deadline import CLOCK, Clock, Deadline
from moorline.errors import MoorlineError
from moorline.fleet import keys
from moorline.fleet.host import FleetHost
from moorline.fleet.host_look import Pace
from moorline.fleet.liveness import HEARTBEAT_SECONDS
from moorline.model import GuestId
from moorline.ports import Store, Watching

HURRIED_SECONDS = 0.25
"""Between two passes while a guest is on its way."""
MIN_REST_SECONDS = 0.1
"""Between the end of a pass and the next one, whatever happens."""
_STOP_SECONDS = 3.0
_log = logging.getLogger("moorline.fleet")


class Following:
    """Gives *host* its passes: when something changed, and now and then.

    *store* is the fleet's; *watchers* tell of changes on this host. *rest*: at least so many
    seconds, by *clock*, are between two passes.
    """

    def __init__(
        self,
        host: FleetHost,
        name: str,
        store: Store,
        watchers: Sequence[Watching] = (),
        clock: Clock = CLOCK,
        rest: float = MIN_REST_SECONDS,
    ) -> None:
        self._host = host
        self._name = name
        self._store = store
        self._watchers = watchers
        self._stop = threading.Event()
        self._news = threading.Event()
        self._rest_seconds = rest
        self._rested = Deadline(0.0, clock)
        self._threads: list[threading.Thread] = []
        self._beaten = Deadline(0.0)
        self.tried = threading.Event()
        """A pass came to its end, well or not: whatever was lost is stopped, if that can be
        told."""
        self.trouble = ""
        """What was in the way of the last pass; ''."""
        self.copies_stopped = 0
        """Copies of guests that were stopped here because they are another host's."""
        self._through = time.monotonic()

    def start(self) -> None:
        """Begin with a pass. Returns at once."""
        loops: dict[str, Callable[[], None]] = {
            "passes": self._take_passes,
            "signs of life": self._beat,
            "wants": self._watch_wants,
        }
        for watcher in self._watchers:
            loops[type(watcher).__name__] = partial(watcher.watch, self.wake, self._stop)
        for name, loop in loops.items():
            thread = threading.Thread(target=loop, name=f"fleet: {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wake(self, guest: GuestId | None = None) -> None:
        """Note that something changed. Never blocks."""
        self._news.set()

    def alive(self) -> bool:
        """Whether every thread runs. False: a defect ended one."""
        return all(thread.is_alive() for thread in self._threads)

    def unheard_seconds(self) -> float:
        """How long ago a pass last went through, or this began."""
        return time.monotonic() - self._through

    def stop(self) -> bool:
        """End after the step that is under way; False: one is still, after a few seconds."""
        self._stop.set()
        self._news.set()
        deadline = Deadline(_STOP_SECONDS)
        for thread in self._threads:
            thread.join(deadline.left())
        return not any(thread.is_alive() for thread in self._threads)

    def _take_passes(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._news.clear()
            failures = 0 if self._pass() else failures + 1
            self._rested = self._rested.anew(self._rest_seconds)
            self._news.wait(self._rest(failures))
            # Many changes are one pass; but whoever rested for longer is up at the first of them.
            self._stop.wait(self._rested.left())

    def _pass(self) -> bool:
        """Take one; False: something is in the way, or not as wanted yet."""
        self._beaten = Deadline(HEARTBEAT_SECONDS)
        trouble = ""
        try:
            self._host.advance()
        except MoorlineError as e:
            trouble = str(e)
        except Exception as e:  # noqa: BLE001 - a defect of one guest must not end the following
            _log.exception("a defect, met by a pass")
            trouble = f"a defect of Moorline's: {type(e).__name__}"
        if trouble != self.trouble:
            _log.warning("the fleet: %s", trouble or "all is well again")
        self.trouble = trouble
        if not trouble:
            self._through = time.monotonic()
        self.tried.set()
        return not trouble and self._host.pace is not Pace.RESTLESS

    def _rest(self, failures: int) -> float:
        if self._host.pace is Pace.HURRIED and not self.trouble:
            return HURRIED_SECONDS
        if failures:
            return backoff(failures, first=MIN_REST_SECONDS, longest=HEARTBEAT_SECONDS)
        return HEARTBEAT_SECONDS

    def _beat(self) -> None:
        """Tell that this host lives while a pass takes long, as one that sends a guest does."""
        while not self._stop.wait(1.0):
            if self._beaten.over():
                self._beaten = Deadline(HEARTBEAT_SECONDS)
                with suppress(MoorlineError):  # the next pass says what is wrong
                    self._host.beat()

    def _watch_wants(self) -> None:
        prefix, failures = keys.desired(self._name), 0
        while not self._stop.is_set():
            with suppress(MoorlineError):  # the next pass says what is wrong
                _, revision = self._store.list(prefix)
                self._news.set()
                for event in self._store.watch(prefix, revision, self._stop):
                    failures = 0
                    if event.key:  # else it only says up to where all was told
                        self._news.set()
            failures += 1
            self._stop.wait(backoff(failures, longest=HEARTBEAT_SECONDS))
