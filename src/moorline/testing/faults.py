"""Faults at the n-th effect: the process dies, the effect fails, its outcome is lost."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from moorline.errors import Failed, Uncertain

T = TypeVar("T")


class Killed(BaseException):
    """The process is killed here. Not an Exception: nothing may handle it."""


def _raise_killed() -> None:
    raise Killed


class Fault(Enum):
    """What goes wrong at an effect."""

    KILL_BEFORE = "killed before"
    KILL_AFTER = "killed after"
    FAIL = "failed"
    LOST = "done, but reported uncertain"
    UNDONE = "not done, but reported uncertain"


@dataclass
class Faults:
    """Counts effects and does its worst at those that were chosen."""

    at: dict[int, Fault] = field(default_factory=dict)
    count: int = 0
    struck: int = 0
    die: Callable[[], None] = _raise_killed
    """How to be killed: for a real process, SIGKILL to itself."""

    def plan(self, *faults: tuple[int, Fault]) -> None:
        """Start to count anew, with these faults to come."""
        self.at, self.count = dict(faults), 0

    def effect(self, do: Callable[[], T]) -> T:
        """Run *do*, which changes the world outside, with the fault that is due."""
        fault = self.at.pop(self.count, None)
        self.count += 1
        if fault is None:
            return do()
        self.struck += 1
        if fault is Fault.KILL_BEFORE:
            self.die()
        if fault is Fault.FAIL:
            raise Failed("a fault that was planned")
        if fault is Fault.UNDONE:
            raise Uncertain("a fault that was planned; it did not happen")
        try:
            do()
        finally:  # however it ended: an effect that failed is tried again, and would not be killed
            if fault is Fault.KILL_AFTER:
                self.die()
        raise Uncertain("a fault that was planned; it happened")


class Faulty:
    """Stands before an object of ours; the methods named in *effects* are effects."""

    def __init__(self, inner: object, faults: Faults, effects: Collection[str]) -> None:
        self._inner = inner
        self._faults = faults
        self._effects = effects

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._effects:
            return found
        return lambda *args, **named: self._faults.effect(partial(found, *args, **named))
