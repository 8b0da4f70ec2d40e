"""Names the processes that keep a mount busy, for people to read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
MAX_NAMES = 5
"""How many processes are named."""


def users_of(path: Path, proc: Path = PROC) -> list[str]:
    """Processes that have something open at or beneath *path*, as ``name (pid)``.

    Only links in the process table are read, which asks no file system. What
    we may not see, and mounts of other mount namespaces, stay unnamed.
    """
    found: list[str] = []
    for process in processes(proc):
        if _uses(process, str(path)):
            found.append(called(process))
            if len(found) == MAX_NAMES:
                break
    return found


def processes(proc: Path) -> Iterator[Path]:
    """The directories of all processes that we see, the smallest id first."""
    names = os.listdir(proc)  # noqa: PTH208 - names alone, and no stat
    for number in sorted(int(name) for name in names if name.isdigit()):
        yield proc / str(number)


def _uses(process: Path, path: str) -> bool:
    return any(link == path or link.startswith(f"{path}/") for link in _links(process))


def _links(process: Path) -> Iterator[str]:
    # Processes end while they are looked at, and some are not ours to look at.
    for name in ("cwd", "root"):
        with suppress(OSError):
            yield str((process / name).readlink())
    with suppress(OSError):
        for name in os.listdir(process / "fd"):  # noqa: PTH208
            with suppress(OSError):
                yield str((process / "fd" / name).readlink())


def called(process: Path) -> str:
    """A process as ``name (pid)``."""
    name = "?"
    with suppress(OSError):
        name = (process / "comm").read_text(errors="replace").strip()
    return f"{name} ({process.name})"
