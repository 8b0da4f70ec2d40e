"""The owner's loop, run in the test's own process: it heals while the test only watches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libvirt_rig import until
from scene import Scene, Volume

from moorline import wiring
from moorline.api import Moorline
from moorline.loop.controller import Controller
from moorline.model import Level

HEALED = 20.0
"""Seconds that healing may take: the longest pause between two tries is 15 s."""


@dataclass(frozen=True)
class Loop:
    """The façade of the owner, and its loop."""

    moorline: Moorline
    controller: Controller

    def attach(
        self, domain: Any, volume: Volume, level: Level = Level.ATTACHED, **how: Any
    ) -> None:
        connection = json.loads(volume.connection.read_text())
        self.moorline.attachments.attach(domain.name(), connection, level=level, **how)

    def detach(self, domain: Any, volume: Volume, **how: Any) -> None:
        self.moorline.attachments.detach(domain.name(), volume.id, **how)

    def trouble(self, volume: Volume) -> str:
        """What went wrong with it last, as `moorline show` tells."""
        (view,) = self.moorline.attachments.show(volume.id)
        return view.trouble.message if view.trouble else ""

    def settles(self, deadline: float = HEALED) -> None:
        """Wait until nothing is pending."""
        until(lambda: self.controller.swept and not self.controller.pending(), deadline)


@contextmanager
def running_loop(state: Path | Scene, *, every: float = 60.0) -> Iterator[Loop]:
    """Own the host until the end of the block."""
    directory = state.moorline.state if isinstance(state, Scene) else state
    settings = wiring.settings(state_dir=directory)
    moorline, controller, _ = wiring.open_agent(settings, every=every)
    with moorline:
        controller.start()
        try:
            yield Loop(moorline, controller)
            assert controller.alive()
        finally:
            assert controller.stop(), "a step is still under way"
