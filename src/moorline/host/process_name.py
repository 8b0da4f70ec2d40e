"""Names our processes in the process table, where they would all be ``python3``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def call_self(name: str) -> None:
    """Show *name*, of 15 bytes at most, in ps(1) and top(1); see proc_pid_comm(5).

    Forks inherit the name. If /proc cannot be written to, nothing happens.
    """
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)
