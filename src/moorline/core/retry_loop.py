"""The one retry loop, and how long a caller goes on in it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from moorline.core.backoff import backoff
from moorline.core.plan import Step
from moorline.deadline import DEFAULT_TIMEOUT_SECONDS, Deadline, waited_for
from moorline.errors import (
    Busy,
    Conflict,
    Failed,
    MoorlineError,
    NotOurs,
    Refused,
    Unavailable,
)
from moorline.model import Seen
from moorline.ports.progress import Progress, no_progress

T = TypeVar("T")
P = ParamSpec("P")
LOCK_TIMEOUT_SECONDS = 30.0
"""Seconds after which the holder of a lock is taken to be stuck."""
MIN_LOCK_TIMEOUT_SECONDS = 1.0
"""Seconds to wait for a lock even if the deadline is over: most holders only look, briefly."""
REPEATED_FAILURES = 5
"""How often one step fails in a row before a caller who gave no timeout is told..."""
REPEATED_FAILURE_SECONDS = 10.0
"""...if that took at least so many seconds: a service that is restarted is mostly back by then."""


def keeping_timeout(verb: Callable[P, T]) -> Callable[P, T]:
    """Give up all that *verb* asks of others soon after its argument *timeout* is over.

    What it makes raises Refused of a timeout that is no number of seconds: NaN, or infinite.
    """

    @functools.wraps(verb)
    def kept(*args: P.args, **named: P.kwargs) -> T:
        timeout = named.get("timeout")
        seconds = timeout if isinstance(timeout, int | float) else DEFAULT_TIMEOUT_SECONDS
        if not math.isfinite(seconds):
            raise Refused(f"the timeout is {seconds}, which is no number of seconds")
        with waited_for(Deadline(seconds)):
            return verb(*args, **named)

    return kept


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing more can be done for now."""

    why: str
    error: MoorlineError | None = None
    """The error that was met; None: nothing is wrong, it takes its time."""
    step: Step = Step.NOTHING
    """WAIT, PARK, or the step that was begun; NOTHING: none was begun."""
    forward: bool = False
    """Whether other steps were taken before."""
    seen: Seen | None = None
    """What was observed; None: observing failed, or a step did."""


class Patience:
    """How long one caller goes on trying one thing. Not for several threads.

    *persistent*: until the deadline, however often the same step fails.
    """

    def __init__(
        self, deadline: Deadline, progress: Progress = no_progress, *, persistent: bool = True
    ) -> None:
        self._deadline = deadline
        self._progress = progress
        self._persistent = persistent
        self._failing = Step.NOTHING
        self._failures = 0
        self._enough = deadline
        self.tries = 0
        """Tries in a row without a step forward."""

    def lock_timeout(self) -> float:
        """Seconds to wait for a lock: until the deadline, and a moment even after it."""
        least = max(MIN_LOCK_TIMEOUT_SECONDS, self._deadline.left())
        return min(LOCK_TIMEOUT_SECONDS, least)

    def forward(self) -> None:
        """A step was taken."""
        self.tries = self._failures = 0

    def again(self, wait: Wait) -> bool:
        """Sleep until it is worth trying again; False: it is not, or no time is left."""
        if isinstance(wait.error, Refused | NotOurs):
            return False
        # A guest is asked again about once a second; after a failure the pause is longer.
        delay = backoff(self.tries) if wait.error else backoff(self.tries, longest=1.0)
        self.tries += 1
        if delay >= self._deadline.left() or self._fails_alike(wait, delay):
            return False
        self._progress(f"{wait.why}; looking again in {delay:.1f} s")
        self._deadline.sleep(delay)
        return True

    def _fails_alike(self, wait: Wait, delay: float) -> bool:
        """Whether the same step failed so often that trying again after *delay* will not help.

        Vendors document their clients' exit codes and messages too little to tell a failure that
        passes from one that does not; how often it happens can be counted.
        """
        error = wait.error
        if not isinstance(error, Failed) or isinstance(error, Busy | Conflict | Unavailable):
            self._failures = 0
            return False
        if not self._failures or self._failing is not wait.step:
            self._failures, self._failing = 0, wait.step
            self._enough = self._deadline.anew(REPEATED_FAILURE_SECONDS)
        self._failures += 1
        if self._persistent:
            return False
        return self._failures >= REPEATED_FAILURES and self._enough.left() <= delay


def drive(once: Callable[[], T | Wait | None], patience: Patience | None = None) -> T | Wait:
    """Call *once* until it has a result, or must wait longer than *patience* allows.

    *once* returns None for a step forward; a MoorlineError of it is a reason to wait. Without
    *patience* (the loop, which comes back later) the first Wait is returned at once.
    """
    while True:
        came: T | Wait | None
        try:
            came = once()
        except MoorlineError as e:
            came = Wait(str(e), e)
        if came is None:
            if patience is not None:
                patience.forward()
        elif not isinstance(came, Wait) or patience is None or not patience.again(came):
            return came
