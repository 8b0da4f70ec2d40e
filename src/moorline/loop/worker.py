"""Serves one turn of an attachment, and says when its next turn is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moorline.core.backoff import MAX_REFUSED_PAUSE_SECONDS, REFUSED_PAUSE_SECONDS, backoff
from moorline.core.driver import Driver
from moorline.core.retry_loop import Wait
from moorline.errors import Busy, MoorlineError, Refused
from moorline.loop.workqueue import Turn
from moorline.model import Key


@dataclass(frozen=True, slots=True)
class TurnResult:
    """What came of a turn."""

    why: str = ""
    """Why it is not as wanted; '': it is, it does not exist any more, or a caller drives it now."""
    delay: float = 0.0
    """Seconds until it is worth trying again."""
    tries: int = 0
    """Tries in a row without a step forward."""


HINDERED_SECONDS = 1.0
"""Between two questions whether an attachment may be served by now."""
Hindrance = Callable[[Key], str]
"""Why an attachment may not be served now; ''. Must not block."""


def unhindered(_: Key) -> str:
    """For a host that is in no fleet."""
    return ""


class Worker:
    """Drives the attachment of a turn. Never waits for a lock. Thread-safe."""

    def __init__(self, driver: Driver, hindrance: Hindrance = unhindered) -> None:
        self._driver = driver
        self._hindrance = hindrance

    def serve(self, turn: Turn, stopping: Callable[[], bool] = lambda: False) -> TurnResult:
        """Take steps until the attachment is as wanted, must wait, or *stopping* says so.

        Blocks as long as the steps do. An attachment that is refused now stays recorded: it was
        acknowledged before, and may fit again (when its guest comes back, say).
        """
        if why := self._hindrance(turn.key):
            return TurnResult(why, HINDERED_SECONDS)
        came = self._driver.turn(turn.key, turn.why, stopping)
        if not isinstance(came, Wait) or not came.why:
            return TurnResult()
        # Asking a guest again and again to let go is not a step forward.
        tries = 0 if came.forward else turn.tries
        return TurnResult(came.why, _pace(came.error, tries), tries + 1)


def _pace(error: MoorlineError | None, tries: int) -> float:
    if isinstance(error, Busy):
        return backoff(tries, longest=1.0)
    if isinstance(error, Refused):
        return backoff(tries, first=REFUSED_PAUSE_SECONDS, longest=MAX_REFUSED_PAUSE_SECONDS)
    return backoff(tries)
