"""Timing, and the words for it."""

from __future__ import annotations

import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


class Milliseconds(float):
    """How long something took, and the processor time of this process in it."""

    cpu: float

    def __new__(cls, wall: float, cpu: float) -> Milliseconds:
        made = super().__new__(cls, wall)
        made.cpu = cpu
        return made


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
            f"| {self.what} | {_told(self.ours, self.unit)} | {_told(self.raw, self.unit)} "
            f"| {self.ratio:.2f}× | {self.goal} | {met} |"
        )


def _told(value: float, unit: str) -> str:
    cpu = f" ({value.cpu:.1f} CPU)" if isinstance(value, Milliseconds) else ""
    return f"{value:.1f} {unit}{cpu}"


def milliseconds(do: Callable[[], object]) -> Milliseconds:
    """How long *do* took."""
    cpu, start = time.process_time(), time.perf_counter()
    do()
    wall = time.perf_counter() - start
    return Milliseconds(wall * 1000, (time.process_time() - cpu) * 1000)


def paired(rounds: int, raw: Callable[[], float], ours: Callable[[], float]) -> tuple[float, float]:
    """Medians of *raw* and *ours*, taken in turns of a random order, so that noise meets both."""
    samples: tuple[list[float], list[float]] = ([], [])
    raw(), ours()  # what is paid once is not what is compared
    for _ in range(rounds):
        for which in random.sample((0, 1), 2):
            samples[which].append((raw, ours)[which]())
    return median(samples[0]), median(samples[1])


def median(samples: Sequence[float]) -> float:
    """The median, of the processor time as well if it is known of each."""
    wall = statistics.median(samples)
    cpu = [each.cpu for each in samples if isinstance(each, Milliseconds)]
    return Milliseconds(wall, statistics.median(cpu)) if len(cpu) == len(samples) else wall


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
