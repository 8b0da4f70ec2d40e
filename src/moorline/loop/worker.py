"""What a worker does when it is an attachment's turn, and when the attachment's next turn is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from moorline.core.pace import backoff
from moorline.core.plan import Step
from moorline.core.reconciler import Pass, Reconciler
from moorline.core.records import Records
from moorline.errors import Busy, MoorlineError, NotOurs, Refused, Unavailable, Uncertain
from moorline.loop.workqueue import Turn
from moorline.model import Key, Level
from moorline.ports.results import Trouble

REFUSED_PAUSE_SECONDS, LONGEST_REFUSED_PAUSE_SECONDS = 15.0, 300.0
"""Seconds between tries of what was refused: at first, and at most."""
_DONE = frozenset({Step.NOTHING, Step.FORGET})
_WAITS = frozenset({Step.WAIT, Step.PARK})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a turn."""

    why: str = ""
    """Why it is not as wanted; '': it is, or there is no such attachment."""
    delay: float = 0.0
    """Seconds until it is worth trying again."""
    tries: int = 0
    """Tries in a row without a step forward."""


class Worker:
    """Takes steps for one attachment at a time; never waits for one that is occupied.

    *reconciler*: with locks that turn away at once. *clock*: what the time is
    for people; nothing is decided by it. Safe to use from several threads.
    """

    def __init__(
        self, records: Records, reconciler: Reconciler, clock: Callable[[], float] = time.time
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._clock = clock

    def serve(self, turn: Turn, stopping: Callable[[], bool] = lambda: False) -> Verdict:
        """Take steps until it is as wanted, must wait, or somebody is *stopping*.

        Blocks as long as the steps do. An attachment that is refused is kept: it was
        acknowledged, and may fit again (its guest comes back, say).
        """
        taken: list[Step] = []
        begun: list[Step] = []
        try:
            done = self._bring(turn.key, taken, begun, stopping)
        except MoorlineError as e:
            if not begun and isinstance(e, Unavailable | Uncertain):
                self._connect(turn.key)
            tries = 0 if taken else turn.tries
            if not isinstance(e, Busy):
                self._note(turn, e)
            return Verdict(str(e), _pace(e, tries), tries + 1)
        if done.row is None or done.step in _DONE:
            self._clear(done)
            return Verdict()
        # A guest that is asked again and again to let go is no step forward.
        tries = 0 if set(taken) - {done.step} else turn.tries
        why = done.reason or "the guest has not let go of the disk yet"
        if done.step in _WAITS:
            family = NotOurs if done.step is Step.PARK else Uncertain
            self._note(turn, family(why), done.step)
        return Verdict(why, backoff(tries), tries + 1)

    def _bring(
        self, key: Key, taken: list[Step], begun: list[Step], stopping: Callable[[], bool]
    ) -> Pass:
        """Tell the steps that were *taken*, and the one that was *begun* if it raises."""
        while True:
            done = self._reconciler.advance(key, begun.append)
            begun.clear()
            if done.row is None or done.step in _DONE or done.step in _WAITS:
                return done
            if done.step in taken or stopping():
                return done  # asked to go a second time, it needs more than asking
            taken.append(done.step)

    def _connect(self, key: Key) -> None:
        """Make the link though its guest cannot be asked: it is there when the guest starts."""
        with suppress(MoorlineError):
            row = self._records.get(key)
            if row is not None and row.want > Level.ABSENT:
                self._reconciler.connect(row)

    def _note(self, turn: Turn, error: MoorlineError, step: Step | None = None) -> None:
        """Write down what went wrong, for `show`, unless it is what was said last."""
        if str(error) == turn.why:
            return
        trouble = Trouble(step.value if step else "", error.kind, str(error), self._clock())
        with suppress(MoorlineError):  # a full disk, say: the log and `explain` have it
            if (row := self._records.get(turn.key)) is not None:
                self._records.note(row, trouble)

    def _clear(self, done: Pass) -> None:
        with suppress(MoorlineError):
            if done.row is not None and done.step is Step.NOTHING:
                self._records.note(done.row, None)


def _pace(error: MoorlineError, tries: int) -> float:
    if isinstance(error, Busy):
        return backoff(tries, longest=1.0)
    if isinstance(error, Refused):
        return backoff(tries, first=REFUSED_PAUSE_SECONDS, longest=LONGEST_REFUSED_PAUSE_SECONDS)
    return backoff(tries)
