"""What a process of ours is called in the process table: its program is Python's."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def call_self(name: str) -> None:
    """Show *name*, of 15 bytes at most, in ps(1) and top(1); see proc_pid_comm(5).

    Those that are forked have it as well. Where /proc cannot be written to, nothing happens.
    """
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)
