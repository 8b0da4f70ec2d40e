"""How somebody who waits is told what goes on."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Told what goes on, in a few words. What it raises ends the call between two steps."""


def no_progress(_: str) -> None:
    """A progress that tells nobody."""
