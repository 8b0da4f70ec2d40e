"""Runs calls of the façade in threads, bounded in number and in time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from moorline.deadline import Deadline
from moorline.errors import Busy, Failed, Unavailable, Uncertain
from moorline.ports.progress import Progress

HEARTBEAT_SECONDS = 5.0
"""Seconds after which a call without progress shows that it still runs."""
Work = Callable[[Progress], Any]


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a call, or its error."""

    result: Any = None
    error: Exception | None = None


class _Stopping(Exception):
    """Ends a call between two of its steps. It is not a MoorlineError, so that none retries it."""


class Calls:
    """Runs calls in threads of their own, at most *most* at once.

    A call that misses its deadline goes on, and keeps its place, until it ends.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._running = 0
        self._stopping = False

    def run(self, work: Work, deadline: float) -> Iterator[str | Done]:
        """Yield the progress of *work* ('' now and then: it still runs), and at last its end.

        Raises Busy and Unavailable at once; nothing was begun then.
        """
        with self._changed:
            if self._stopping:
                raise Unavailable("the agent is about to stop", hint="repeat the command")
            if self._running >= self._most:
                raise Busy(f"{self._most} requests are under way already", hint="try again later")
            self._running += 1
        told: queue.SimpleQueue[str | Done] = queue.SimpleQueue()
        context = copy_context()  # the request's id, for the log, and the caller's privilege
        threading.Thread(
            target=context.run, args=(self._work, work, told), name="call", daemon=True
        ).start()
        return _until(told, deadline)

    def stop(self, patience: float) -> bool:
        """Begin no more, end those that wait, and return whether all ended in time."""
        with self._changed:
            self._stopping = True
            return self._changed.wait_for(lambda: self._running == 0, patience)

    def _work(self, work: Work, told: queue.SimpleQueue[str | Done]) -> None:
        def progress(what: str) -> None:
            told.put(what)
            if self._stopping:
                raise _Stopping

        try:
            done = Done(work(progress))
        except _Stopping:
            done = Done(
                error=Failed(
                    "the agent stops before this was done",
                    hint="the attachment is kept: the next agent, or the same command, goes on",
                )
            )
        except Exception as e:  # noqa: BLE001 - returned to whoever waits, and logged there
            done = Done(error=e)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
        told.put(done)


def _until(told: queue.SimpleQueue[str | Done], deadline: float) -> Iterator[str | Done]:
    end = Deadline(deadline)
    while left := end.left():
        item: str | Done = ""
        with suppress(queue.Empty):
            item = told.get(timeout=min(left, HEARTBEAT_SECONDS))
        yield item
        if isinstance(item, Done):
            return
    late = Uncertain(
        f"there is no result after {deadline:.0f} s; it goes on", hint="moorline list tells"
    )
    yield Done(error=late)
