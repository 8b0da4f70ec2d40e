"""The one loop that keeps at something, and how long whoever waits keeps at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from moorline.core.pace import backoff
from moorline.core.plan import Step
from moorline.deadline import Deadline
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
from moorline.ports.api import Progress, no_progress

T = TypeVar("T")
LOCK_TIMEOUT_SECONDS = 30.0
"""Seconds after which whoever has a lock is taken to be stuck."""
SHORTEST_LOCK_TIMEOUT_SECONDS = 1.0
"""Seconds that also who has no time waits for a lock: mostly somebody only looks."""
REPEATED_FAILURES = 5
"""Failures of one step in a row, after which a caller who said nothing is not kept waiting..."""
REPEATED_FAILURE_SECONDS = 10.0
"""...if they go on for so many seconds: what is restarted is mostly back by then."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing more can be done for now."""

    why: str
    error: MoorlineError | None = None
    """What was met; None: nothing is wrong, it takes its time."""
    step: Step = Step.NOTHING
    """WAIT, PARK, or the step that was begun; NOTHING: none was."""
    forward: bool = False
    """Whether other steps were taken before."""
    seen: Seen | None = None
    """None: it could not be looked at, or a step failed."""


class Patience:
    """One caller's, with one thing. Not for several threads.

    *persistent*: to the end, however often the same step fails.
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
        """In a row without a step forward."""

    def lock_timeout(self) -> float:
        """Seconds to wait for a lock: not past the deadline, but that somebody only looks."""
        least = max(SHORTEST_LOCK_TIMEOUT_SECONDS, self._deadline.left())
        return min(LOCK_TIMEOUT_SECONDS, least)

    def forward(self) -> None:
        """A step was taken."""
        self.tries = self._failures = 0

    def again(self, wait: Wait) -> bool:
        """Sleep until it is worth trying again; False: it is not, or the time is over."""
        if isinstance(wait.error, Refused | NotOurs):
            return False
        # A guest is asked again about once a second; what failed is left in peace longer.
        delay = backoff(self.tries) if wait.error else backoff(self.tries, longest=1.0)
        self.tries += 1
        if delay >= self._deadline.left() or self._fails_alike(wait, delay):
            return False
        self._progress(f"{wait.why}; looking again in {delay:.1f} s")
        self._deadline.sleep(delay)
        return True

    def _fails_alike(self, wait: Wait, delay: float) -> bool:
        """Whether the same step fails again and again, and trying after *delay* will not help.

        Clients' exit codes and words are not known well enough to tell what can come
        true later from what cannot; how often it fails can be counted.
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
    """Do *once* until it has a result, or must wait longer than somebody has *patience*.

    Whoever has none (the loop, which comes back) is told at once that it must wait.
    *once* returns None for a step forward. What it raises of ours is a reason to wait.
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
