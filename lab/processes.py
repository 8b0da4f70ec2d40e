"""The processes of a private host, as /proc shows them, and their end as a crash."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from pathlib import Path


def running(program: str, word: str = "") -> list[int]:
    """The processes that run *program*, by an interpreter too; only those told *word*, if given."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        words: list[str] = []
        with suppress(OSError):
            words = (process / "cmdline").read_text(errors="replace").split("\0")
        if program in (Path(each).name for each in words) and (not word or word in words):
            found.append(int(process.name))
    return found


def kill(pid: int) -> None:
    """SIGKILL; return when the kernel has closed all that it had open, such as /dev/fuse.

    /proc does not tell that moment: a process has lost its words before it lets go of its files,
    and its first thread may have ended before the others (pidfd_open(2): poll).
    """
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [])
        finally:
            os.close(handle)
