"""Which attachments callers drive now: the loop leaves those alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from moorline.core.pace import Pending
from moorline.core.plan import Step
from moorline.model import Attachment, Key, Level


@dataclass(slots=True)
class _Claimed:
    """What is known of an attachment that one caller drives, or several do."""

    want: Level
    since: float
    steps: list[list[Step]] = field(default_factory=list)
    """For each caller those that were taken since he came."""
    tries: int = 0
    why: str = ""
    turned_away: int = 0
    """How often the loop was."""
    covered: int = 0
    """How many of those times were before the look that found it as wanted."""


class Claims:
    """Who claims an attachment sees to it; its steps are told to all who do. Thread-safe.

    A claim is no lock: what is changed is changed under the locks of link and guest,
    whoever does it. It only says whose patience counts.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._claimed: dict[Key, _Claimed] = {}
        self.on_release: Callable[[Key], None] = lambda key: None
        """Told of an attachment from which the loop was turned away, and shall look at."""

    @contextmanager
    def claim(self, row: Attachment) -> Iterator[list[Step]]:
        """See to *row* oneself. The steps are all that are taken meanwhile, whoever takes them."""
        steps: list[Step] = []
        with self._guard:
            known = self._claimed.setdefault(row.key, _Claimed(row.want, time.monotonic()))
            known.want = row.want
            known.steps.append(steps)
        try:
            yield steps
        finally:
            with self._guard:
                known.steps = [each for each in known.steps if each is not steps]
                if not known.steps:
                    del self._claimed[row.key]
                missed = not known.steps and known.turned_away > known.covered
            if missed:
                self.on_release(row.key)

    def turns_away(self, key: Key) -> bool:
        """Whether the loop must leave it alone; then it is told when that is over."""
        with self._guard:
            known = self._claimed.get(key)
            if known is not None:
                known.turned_away += 1
            return known is not None

    def turned_away(self, key: Key) -> int:
        """How often the loop was, up to now."""
        with self._guard:
            known = self._claimed.get(key)
            return known.turned_away if known else 0

    def took(self, key: Key, step: Step) -> None:
        """Tell all who drive it of a step. A guest that is asked again to let go is one step."""
        with self._guard:
            if known := self._claimed.get(key):
                for steps in known.steps:
                    if steps[-1:] != [step]:
                        steps.append(step)

    def waits(self, key: Key, tries: int, why: str) -> None:
        """Tell for what it waits."""
        with self._guard:
            if known := self._claimed.get(key):
                known.tries, known.why = tries, why

    def as_wanted(self, key: Key, turned_away: int) -> None:
        """A look that began when the loop had been *turned_away* so often found it as wanted."""
        with self._guard:
            if known := self._claimed.get(key):
                known.covered = max(known.covered, turned_away)

    def pending(self) -> list[Pending]:
        """What callers drive: each is under way."""
        with self._guard:
            now = time.monotonic()
            return [
                Pending(key, each.want, 0.0, each.tries, each.why, now - each.since, True)
                for key, each in self._claimed.items()
            ]
