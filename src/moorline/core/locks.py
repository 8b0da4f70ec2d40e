"""Locks by name: one worker at a time for each link and each guest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from moorline.errors import Busy


class Locks:
    """One worker at a time for each name; other names are not delayed.

    Whoever waits for a lock is turned away after *patience* seconds, so that a stuck worker
    does not collect threads.
    """

    def __init__(self, patience: float = 30.0) -> None:
        self._patience = patience
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def hold(self, name: str, timeout: float | None = None) -> Iterator[None]:
        """Hold the lock *name*. Blocks for *timeout* seconds at most (None: the patience), then
        raises Busy. 0 does not block at all.
        """
        timeout = self._patience if timeout is None else timeout
        with self._guard:
            lock, users = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = lock, users + 1
        try:
            if not lock.acquire(timeout=timeout):
                raise Busy(f"another step on {name} is still under way")
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._locks[name]
                if users == 1:
                    del self._locks[name]
                else:
                    self._locks[name] = lock, users - 1
