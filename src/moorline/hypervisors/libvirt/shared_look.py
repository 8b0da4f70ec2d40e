"""Shares one costly look among all threads that asked before it began."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedLook(Generic[T]):
    """A look that costs much, made once for several threads that ask at the same time.

    A thread never gets a look that began before it asked: all that was done until then must be
    in it. So a thread that asks while a look is under way waits for that and for the next one.
    """

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._changed = threading.Condition()
        self._begun = 0
        self._under_way = False
        self._last: tuple[int, Future[T]] = 0, Future()
        """The number of the last look that ended, and its result."""

    def ask(self) -> T:
        """Return the result of a look that begins after this call. Raises as that look."""
        with self._changed:
            wanted = self._begun + 1
            while self._under_way and self._last[0] < wanted:
                self._changed.wait()
            number, answer = self._last
            if number < wanted:
                number, answer = self._begun + 1, Future()
                self._begun, self._under_way = number, True
        if not answer.done():
            self._make(number, answer)
        return answer.result()

    def _make(self, number: int, answer: Future[T]) -> None:
        """Look for all that wait. If the look is interrupted, another thread looks for them."""
        try:
            answer.set_result(self._look())
        except Exception as e:  # noqa: BLE001 - raised in each of their threads
            answer.set_exception(e)
        finally:
            with self._changed:
                self._under_way = False
                if answer.done():
                    self._last = number, answer
                self._changed.notify_all()
