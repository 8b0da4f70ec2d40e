"""What is told of a step that was taken, for the event log and the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moorline.core.plan import Step
from moorline.errors import MoorlineError
from moorline.model import Attachment


@dataclass(frozen=True, slots=True)
class Took:
    """A step that was taken, for the event log and the metrics. No decision depends on it."""

    step: Step
    row: Attachment
    seconds: float
    error: MoorlineError | None
    """What the step raised; None: it succeeded."""
    found: str = ""
    """What was found that is to be known afterwards."""


Report = Callable[[Took], None]
"""Told of every step after it was taken. Must neither block nor raise."""


def no_report(took: Took) -> None:
    """A :data:`Report` that does nothing."""


def both(event_log: Report, report: Report) -> Report:
    """Both are told of each step."""

    def told(took: Took) -> None:
        event_log(took)
        report(took)

    return told
