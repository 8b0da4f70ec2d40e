"""Asks the façade what the page shows, beside whoever looks at it.

A question may take long, or not come back at all where a share or a hypervisor hangs. So each has
a thread of its own, is asked once at a time, and a page is made of what is known by then.
Nobody is asked while nobody looks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from moorline.deadline import Deadline
from moorline.errors import MoorlineError
from moorline.ports.api import Api
from moorline.ports.care_results import Candidate, Diagnosis
from moorline.ports.guest_results import GuestView
from moorline.ports.results import EventLogEntry, View

T = TypeVar("T")

INTEREST_SECONDS = 30.0
"""Seconds that the questions go on after the last look at the page."""
FIRST_LOOK_SECONDS = 1.0
"""Seconds that a look waits at most for what was never answered yet."""
LATE_SECONDS = 3.0
"""Seconds after which an answer is late: the page says so."""
REST_RATIO = 4
"""How much longer than a question takes it is let rest: what is slow is not asked all the time."""
MOST_EVENTS = 200
_LOG = logging.getLogger("moorline.page")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """What came of a question so far. Times are seconds since the epoch; 0: never."""

    value: T
    at: float = 0.0
    """When the value was told."""
    asked_at: float = 0.0
    """Since when the question is under way; 0: it is not."""
    problem: str = ""
    """Why the latest answer is none; '': it is one."""
    problem_at: float = 0.0

    def is_late(self, now: float) -> bool:
        """Whether the question has been under way for long."""
        return bool(self.asked_at) and now - self.asked_at >= LATE_SECONDS

    @property
    def is_answered(self) -> bool:
        """Whether anything was told yet, a value or why there is none."""
        return bool(self.at or self.problem_at)


class Question(Generic[T]):
    """One question, asked again and again while somebody wants to know.

    *ask*: may block. *nothing*: what is known before the first answer. *pause_seconds*: between
    an answer and the next time. Safe to use from several threads.
    """

    def __init__(self, name: str, ask: Callable[[], T], nothing: T, pause_seconds: float) -> None:
        self._name = name
        self._ask = ask
        self._pause_seconds = pause_seconds
        self._known = Known(nothing)
        self._changed = threading.Condition()
        self._interest = Deadline(0)
        self._is_asked = False

    def want(self) -> None:
        """Have it asked for a while from now. Does not block."""
        with self._changed:
            self._interest = Deadline(INTEREST_SECONDS)
            if self._is_asked:
                return
            self._is_asked = True
        threading.Thread(target=self._go_on, name=f"page-{self._name}", daemon=True).start()

    def known(self, patience: Deadline) -> Known[T]:
        """What is known; waits no longer than *patience*, and for the first answer alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._known.is_answered, patience.left())
            return self._known

    def _go_on(self) -> None:
        while True:
            seconds = self._once()
            rest = Deadline(max(self._pause_seconds, seconds * REST_RATIO))
            rest.sleep(rest.left())
            with self._changed:
                if self._interest.over():
                    self._is_asked = False
                    return

    def _once(self) -> float:
        """Ask, and keep what came of it; return the seconds that it took."""
        self._keep(asked_at=time.time())
        begun = time.monotonic()
        try:
            value = self._ask()
        except MoorlineError as e:
            self._keep(asked_at=0.0, problem=e.message, problem_at=time.time())
        except Exception as e:  # noqa: BLE001 - a defect: the page must tell of it, and go on
            _LOG.error("a defect: %s, when asked for %s", type(e).__name__, self._name)
            told = f"a defect ({type(e).__name__})"
            self._keep(asked_at=0.0, problem=told, problem_at=time.time())
        else:
            self._keep(asked_at=0.0, problem="", problem_at=0.0, value=value, at=time.time())
        return time.monotonic() - begun

    def _keep(self, **changes: object) -> None:
        with self._changed:
            self._known = replace(self._known, **changes)  # type: ignore[arg-type]
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is known of a host at one moment."""

    attachments: Known[Sequence[View]] = field(default_factory=lambda: Known(()))
    guests: Known[Sequence[GuestView]] = field(default_factory=lambda: Known(()))
    disks: Known[Sequence[Candidate]] = field(default_factory=lambda: Known(()))
    doctor: Known[Diagnosis] = field(default_factory=lambda: Known(Diagnosis([], {})))
    events: Known[Sequence[EventLogEntry]] = field(default_factory=lambda: Known(()))


class Watch:
    """What is known of the host of *api*, for pages. Safe to use from several threads."""

    def __init__(self, api: Api) -> None:
        def events() -> Sequence[EventLogEntry]:
            return api.maintenance.events(most=MOST_EVENTS)

        nothing = Picture()
        self._attachments = Question(
            "attachments", lambda: api.attachments.list(), nothing.attachments.value, 2.0
        )
        self._guests = Question("guests", lambda: api.guests.all(), nothing.guests.value, 2.0)
        self._events = Question("events", events, nothing.events.value, 1.0)
        self._doctor = Question(
            "doctor", lambda: api.maintenance.doctor(), nothing.doctor.value, 5.0
        )
        self._disks = Question("disks", lambda: api.maintenance.disks(), nothing.disks.value, 15.0)

    def picture(self) -> Picture:
        """What is known now; of what was never told yet, what comes within a second."""
        questions = (self._attachments, self._guests, self._events, self._doctor, self._disks)
        for each in questions:
            each.want()
        patience = Deadline(FIRST_LOOK_SECONDS)
        return Picture(
            attachments=self._attachments.known(patience),
            guests=self._guests.known(patience),
            events=self._events.known(patience),
            doctor=self._doctor.known(patience),
            disks=self._disks.known(patience),
        )
