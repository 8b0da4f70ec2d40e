"""Tells a story in a private host, and checks every claim of it."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from lab import host

T = TypeVar("T")


class Untrue(Exception):
    """A claim of the story does not hold."""


STORIES = {
    "quobyte": "lab.quobyte.demo",
    "virtuozzo": "lab.virtuozzo.demo",
    "hyperscale": "lab.hyperscale.demo",
    "powervm": "lab.novalink.demo",
    "vvol": "lab.vcenter.demo",
    "fleet": "lab.fleet.demo",
    "survive": "lab.quobyte.survive",
    "rbd": "lab.ceph.demo",
}
APART = {"rbd"}
"""Those that need more than `make test` installs."""


def run(name: str) -> int:
    """Tell the story; 0 if all of it was true."""
    if not host.inside():
        return host.enter([sys.executable, "-m", "lab", "demo", name])
    start = time.monotonic()
    try:
        importlib.import_module(STORIES[name]).main()
    except (Untrue, AssertionError) as e:
        print(f"\ndemo: FAILED: {e}", flush=True)
        return 1
    print(f"\n{time.monotonic() - start:.0f} s\ndemo: ok", flush=True)
    return 0


def chapter(text: str) -> None:
    print(f"\n== {text}", flush=True)


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def claim(text: str, seen: Any, expected: Any = True) -> None:
    """Print the claim if *seen* is what was expected; else the story ends. Raises Untrue."""
    if seen != expected:
        raise Untrue(f"{text}: expected {expected!r}, saw {seen!r}")
    print(f"   ✓ {text}", flush=True)


def until(question: Callable[[], T], what: str, deadline: float = 60) -> T:
    """The first true answer to *question*, asked again and again. Raises Untrue."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if answer := question():
            return answer
        time.sleep(0.01)
    raise Untrue(f"waited {deadline} s in vain: {what}")
