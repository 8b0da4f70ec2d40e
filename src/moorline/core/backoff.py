"""When to try again, and what waits for that. It affects timing only, no decision."""

from __future__ import annotations

import random
from dataclasses import dataclass

from moorline.model import Key, Level

REFUSED_PAUSE_SECONDS, MAX_REFUSED_PAUSE_SECONDS = 15.0, 300.0
"""Seconds between two tries of what was refused: at first, and at most."""


@dataclass(frozen=True, slots=True)
class Pending:
    """An attachment that is not as wanted yet, as far as is known."""

    key: Key
    want: Level
    due: float
    """Seconds until its next try; 0: it is under way, or waits for its turn."""
    tries: int
    """How often it was tried without a step forward."""
    why: str
    """Why it waits; '' if it was not tried yet."""
    age: float
    """Seconds since it was first found not to be as wanted."""
    running: bool
    """Whether a pass for it is under way."""


def backoff(tries: int, *, first: float = 0.1, longest: float = 15.0) -> float:
    """Seconds to wait after *tries* failures in a row: doubling, with jitter.

    The jitter keeps the volumes of a share that fails from trying all at the same time.
    """
    delay = min(longest, first * 2.0 ** min(tries, 16))
    return delay * random.uniform(0.5, 1.0)  # noqa: S311 - not for cryptography
