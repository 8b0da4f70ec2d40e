"""Shares one costly look among all threads that asked before it began."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

A = TypeVar("A")
T = TypeVar("T")


class SharedLook(Generic[A, T]):
    """A look that costs much, made once for several threads that ask at the same time.

    A thread never gets a look that began before it asked: all that was done until then must be
    in it. So a thread that asks while a look is under way waits for that and for the next one,
    which answers all that was asked meanwhile.
    """

    def __init__(self, look: Callable[[Sequence[A]], T]) -> None:
        """*look* is told all that was asked of it, in no order; each who asked gets its answer."""
        self._look = look
        self._changed = threading.Condition()
        self._under_way = False
        self._next: _Next[A, T] | None = None
        """What has not begun yet; None: nobody has asked since the last one began."""

    def ask(self, *what: A) -> T:
        """Return the result of a look that begins after this call. Raises as that look."""
        with self._changed:
            if self._next is None:
                self._next = _Next()
            mine = self._next
            mine.asked += what
            self._changed.wait_for(lambda: mine.answer.done() or not self._under_way)
            begins = not mine.answer.done()
            if begins:
                self._under_way = True
                self._next = None if self._next is mine else self._next
        if begins:
            self._make(mine)
        return mine.answer.result()

    def _make(self, mine: _Next[A, T]) -> None:
        """Look for all that wait. If the look is interrupted, another thread looks for them."""
        try:
            mine.answer.set_result(self._look(mine.asked))
        except Exception as e:  # noqa: BLE001 - raised in each of their threads
            mine.answer.set_exception(e)
        finally:
            with self._changed:
                self._under_way = False
                self._changed.notify_all()


class _Next(Generic[A, T]):
    """A look that is still to begin, what is asked of it, and its answer."""

    def __init__(self) -> None:
        self.asked: list[A] = []
        self.answer: Future[T] = Future()
