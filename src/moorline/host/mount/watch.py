"""Tells when the mount table changes."""

from __future__ import annotations

import select
import threading

from moorline.host.mount.table import MOUNTINFO
from moorline.ports import Wake

_STOP_POLL_MILLISECONDS = 500
"""Milliseconds between two checks of the stop event."""


class MountTable:
    """A :class:`moorline.ports.Watching`: mounts and unmounts, whoever makes them."""

    def watch(self, wake: Wake, stop: threading.Event) -> None:
        """The kernel marks the open file when the table changes: see proc_pid_mountinfo(5)."""
        with MOUNTINFO.open("rb") as table:
            poll = select.poll()
            poll.register(table, select.POLLPRI | select.POLLERR)
            while not stop.is_set():
                if poll.poll(_STOP_POLL_MILLISECONDS):
                    wake(None)
