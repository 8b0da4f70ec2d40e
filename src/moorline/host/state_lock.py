"""The host lock: whoever holds it is the owner of this host's state."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from moorline.deadline import Deadline
from moorline.errors import Busy, Denied, Unavailable


class HostLock:
    """An exclusive lock on *path* that the kernel drops when its holder dies.

    The file bears the holder's pid, for people. Children do not inherit it.
    *does*: what its holder does, for people.
    """

    def __init__(self, path: Path, does: str = "owns this host's state") -> None:
        self._path = path
        self._does = does
        self._fd = -1

    def take(self, patience: float, waiting: Callable[[str], None]) -> None:
        """Block up to *patience* seconds for the lock.

        *waiting* is told once who holds it. Raises Busy, Denied (no right to
        the state directory), Unavailable (the file cannot be made).
        """
        self._fd = self._open()
        deadline = Deadline(patience)
        told = False
        while not self._try():
            if deadline.over():
                holder = self._holder()
                self.release()
                raise Busy(f"{holder} {self._does}", hint="try again when it is done")
            if not told:
                waiting(f"waiting for {self._holder()}, which {self._does}")
                told = True
            deadline.sleep(0.02)
        with suppress(OSError):  # on a full disk the lock works all the same
            os.truncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Release the lock; without effect if it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as e:
            raise Denied(
                f"{self._path} cannot be opened: {e.strerror}",
                hint="run as root, or give --state-dir",
            ) from e
        except OSError as e:
            raise Unavailable(f"{self._path} cannot be opened: {e.strerror}") from e

    def _try(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> str:
        pid = os.pread(self._fd, 20, 0).decode(errors="replace")
        return f"process {pid}" if pid.isdigit() else "another process"
