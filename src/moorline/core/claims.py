"""Claims of callers on the attachments that they drive: the loop leaves those alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from moorline.core.backoff import Pending
from moorline.core.plan import Step
from moorline.model import Attachment, Key, Level


@dataclass(slots=True)
class _Claimed:
    """An attachment that one or several callers drive."""

    want: Level
    since: float
    steps: list[list[Step]] = field(default_factory=list)
    """For each caller, the steps that were taken since he claimed it."""
    tries: int = 0
    why: str = ""
    turned_away: int = 0
    """How often the loop was turned away."""
    covered: int = 0
    """How many of those times were before a look that found the attachment as wanted."""


class Claims:
    """The claims of all callers; each step is told to all who claim its attachment. Thread-safe.

    A claim is no lock: changes are made under the locks of link and guest, whoever makes
    them. A claim only decides whose patience counts.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._claimed: dict[Key, _Claimed] = {}
        self.on_release: Callable[[Key], None] = lambda key: None
        """Called with each attachment that the loop was turned away from and may look at again."""

    @contextmanager
    def claim(self, row: Attachment) -> Iterator[list[Step]]:
        """Claim *row*. The list gets all steps that are taken meanwhile, whoever takes them."""
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
        """Whether the loop must leave *key* alone; :attr:`on_release` tells when that is over."""
        with self._guard:
            known = self._claimed.get(key)
            if known is not None:
                known.turned_away += 1
            return known is not None

    def turned_away(self, key: Key) -> int:
        """How often the loop was turned away from *key* up to now."""
        with self._guard:
            known = self._claimed.get(key)
            return known.turned_away if known else 0

    def took(self, key: Key, step: Step) -> None:
        """Tell all who claim *key* of a step.

        The same step again (a guest asked twice) counts once.
        """
        with self._guard:
            if known := self._claimed.get(key):
                for steps in known.steps:
                    if steps[-1:] != [step]:
                        steps.append(step)

    def waits(self, key: Key, tries: int, why: str) -> None:
        """Note why *key* waits, and after how many tries."""
        with self._guard:
            if known := self._claimed.get(key):
                known.tries, known.why = tries, why

    def as_wanted(self, key: Key, turned_away: int) -> None:
        """Note that *key* is as wanted, by a look that began after so many times *turned_away*."""
        with self._guard:
            if known := self._claimed.get(key):
                known.covered = max(known.covered, turned_away)

    def pending(self) -> list[Pending]:
        """What is claimed; each is under way."""
        with self._guard:
            now = time.monotonic()
            return [
                Pending(key, each.want, 0.0, each.tries, each.why, now - each.since, True)
                for key, each in self._claimed.items()
            ]
