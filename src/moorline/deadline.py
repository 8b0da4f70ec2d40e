"""How long somebody waits, by the monotonic clock: setting the host's time changes no wait."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from contextvars import ContextVar

from moorline.errors import Refused

TYPE_CHECKING = False  # typing is left to mypy: what each command loads is kept small
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFAULT_TIMEOUT_SECONDS = 60.0
"""Seconds to go on trying where the caller says nothing."""
MAX_TIMEOUT_SECONDS = 86400.0
"""Seconds of the longest timeout that can be asked for."""


class Clock:
    """How time passes for whoever waits, in seconds."""

    __slots__ = ("now", "sleep")

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.now = now
        self.sleep = sleep


CLOCK = Clock()


class Deadline:
    """The time that is *seconds* from when it was made. Safe to use from several threads.

    Raises Refused (*seconds* is NaN: it would never be over).
    """

    __slots__ = ("_clock", "_end")

    def __init__(self, seconds: float, clock: Clock = CLOCK) -> None:
        if math.isnan(seconds):
            raise Refused("a time to wait for is NaN, which is no number of seconds")
        self._clock = clock
        self._end = clock.now() + seconds

    def anew(self, seconds: float) -> Deadline:
        """A new deadline, *seconds* from now by the same clock."""
        return Deadline(seconds, self._clock)

    def left(self) -> float:
        """Seconds until it is over; 0 from then on."""
        return max(0.0, self._end - self._clock.now())

    def over(self) -> bool:
        """Whether there is no time left."""
        return self._clock.now() >= self._end

    def sleep(self, seconds: float) -> None:
        """Block for *seconds*, or until it is over if that is sooner."""
        self._clock.sleep(min(seconds, self.left()))


_CALLERS: ContextVar[Deadline | None] = ContextVar("callers", default=None)


@contextmanager
def waited_for(deadline: Deadline) -> Iterator[None]:
    """Mark what is done within as done for a caller who waits until *deadline* and no longer."""
    token = _CALLERS.set(deadline)
    try:
        yield
    finally:
        _CALLERS.reset(token)


def callers_patience(least: float) -> float:
    """Seconds that whoever waits for us still does, but *least* at least; infinite: nobody says.

    For what asks others, each time: what does not answer must not keep the caller longer.
    """
    deadline = _CALLERS.get()
    return float("inf") if deadline is None else max(least, deadline.left())
