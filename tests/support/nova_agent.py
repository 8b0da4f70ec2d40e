"""An agent as nova-compute has it, and nova-compute's controller, without Nova."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from moorline_nova.agent import Agent
from moorline_nova.controller import Controller
from moorline_nova.pending import Pending, Use

from moorline.errors import Unavailable

A = Use("7b1d2f6e-3a0c-4b5e-9d8f-0a1b2c3d4e5f", "a")
B = Use("8c2e3a7f-3a0c-4b5e-9d8f-0a1b2c3d4e5f", "b")


class Told(Agent):
    """An agent that keeps uses, and can be away."""

    def __init__(self, *kept: Use) -> None:
        self.kept = set(kept)
        self.away: Exception | None = None

    def tell(self, use: Use) -> bool:
        if self.away:
            raise self.away
        there = use in self.kept
        self.kept.discard(use)
        return there

    def uses(self) -> list[Use]:
        if self.away:
            raise self.away
        return sorted(self.kept)


def away() -> Unavailable:
    return Unavailable("no agent answers")


def nobody(use: Use) -> bool:
    return False


def everybody(use: Use) -> bool:
    return True


def process(agent: Agent, directory: Path, knows: Callable[[Use], bool] = everybody) -> Controller:
    """Nova-compute as it is started, but that nothing runs by itself."""
    made = Controller(agent, Pending(directory), knows)
    made.stop()  # the thread ends before its first look
    made.start()
    made._stopped = False
    return made
