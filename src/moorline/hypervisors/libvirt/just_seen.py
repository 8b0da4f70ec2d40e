"""What a thread just saw of a guest, for its next step, which would see the same."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

from moorline.deadline import Deadline
from moorline.model import GuestId

T = TypeVar("T")
_FRESH_SECONDS = 1.0
"""Seconds in which something counts as just seen."""


class JustSeen(threading.local):
    """The last of each type; it can be taken once, by the thread that saw it."""

    def __init__(self) -> None:
        self._kept: dict[type, tuple[GuestId, Deadline, Any]] = {}

    def keep(self, guest: GuestId, what: object | None) -> None:
        """Keep what was seen of *guest*. None: nothing was."""
        self._kept[type(what)] = guest, Deadline(_FRESH_SECONDS), what

    def take(self, guest: GuestId, kind: type[T]) -> T | None:
        """What was just seen of *guest*; None: nothing, or it was another guest's."""
        of, fresh, what = self._kept.pop(kind, (None, None, None))
        if of != guest or fresh is None or fresh.over():
            return None
        assert isinstance(what, kind)
        return what
