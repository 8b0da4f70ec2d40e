"""Timing, and the words for it."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """One comparison: ours against raw, both measured in this run."""

    what: str
    ours: float
    raw: float
    unit: str
    ratio: float
    goal: str
    met: bool

    def row(self) -> str:
        met = "yes" if self.met else "**no**"
        return (
            f"| {self.what} | {self.ours:.1f} {self.unit} | {self.raw:.1f} {self.unit} "
            f"| {self.ratio:.2f}× | {self.goal} | {met} |"
        )


HEAD = "| what | ours | raw | ratio | goal | met |\n|---|---|---|---|---|---|"


def milliseconds(do: Callable[[], object]) -> float:
    """How long *do* took."""
    start = time.perf_counter()
    do()
    return (time.perf_counter() - start) * 1000


def paired(rounds: int, raw: Callable[[], float], ours: Callable[[], float]) -> tuple[float, float]:
    """Medians of *raw* and *ours*, taken in turns, so that noise meets both."""
    samples: tuple[list[float], list[float]] = ([], [])
    raw(), ours()  # what is paid once is not what is compared
    for round in range(rounds):
        for which in ((0, 1), (1, 0))[round % 2]:
            samples[which].append((raw, ours)[which]())
    return statistics.median(samples[0]), statistics.median(samples[1])


def slower(what: str, raw: float, ours: float, most: float) -> Result:
    """A comparison of times: the ratio must be at most *most*."""
    ratio = ours / raw
    return Result(what, ours, raw, "ms", ratio, f"≤ {most}×", ratio <= most)


def machine() -> str:
    """This machine, in a line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}"
    )
