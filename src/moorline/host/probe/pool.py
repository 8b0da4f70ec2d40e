"""Looks at shares in children that can be killed, so that a hung share hangs nobody else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from moorline.deadline import CLOCK, Clock, Deadline
from moorline.errors import Refused, Uncertain

PROBE_DEADLINE_SECONDS = 2.0
"""Seconds that a share has to answer a look at it."""
MAX_PAUSE_SECONDS = 10.0
"""Seconds between two tries at a hung share, at most."""
_CHILDREN = 4
"""So many are kept when idle. While as many look, one of them is waited for, for a moment."""
START_SECONDS = 0.05
"""About what it costs to start a child; most looks take less."""
_EXIT_SECONDS = 0.5


class Child(Protocol):
    """A process that answers questions (:mod:`moorline.host.probe.child`)."""

    def ask(self, question: bytes, deadline: float) -> bytes:
        """Return the answer. Raises TimeoutError, EOFError (it has ended, or is of no use)."""

    def kill(self) -> None:
        """Send SIGKILL; do not wait. It stays while the kernel keeps it in a hung call."""

    def gone(self) -> bool:
        """Whether it has ended."""


@dataclass
class _Share:
    """What is known of a share. Its lock admits one question at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stuck: Child | None = None
    """The child that got no answer: the share is in quarantine."""
    incarnation: Hashable = None
    """What was mounted there when it hung."""
    pause: float = 0.0
    retry: Deadline | None = None
    """Over when it may be asked again; None: it never hung."""


class Probe:
    """A pool of children, with a quarantine for shares that do not answer.

    At most one child is stuck on a share at any time: while the last one still
    is, and for a pause after it, further questions about that share are
    answered at once with Uncertain. Then one question is let through, so that
    the quarantine ends when the share recovers, or is mounted anew.
    Safe to use from several threads.
    """

    def __init__(
        self,
        start: Callable[[], Child],
        *,
        deadline: float,
        incarnation: Callable[[str], Hashable] = lambda share: None,
        clock: Clock = CLOCK,
        patience: float = START_SECONDS,
    ) -> None:
        """*patience*: seconds to wait for a child at work before another one is started."""
        self._start = start
        self._patience = patience
        self._deadline = deadline
        self._incarnation = incarnation
        self._clock = clock
        self._lock = threading.Lock()
        self._given_back = threading.Condition(self._lock)
        self._looking = 0
        """Children that were taken and not yet given back, or killed."""
        self._shares: dict[str, _Share] = {}
        self._idle: list[Child] = []
        self._killed: list[Child] = []

    def ask(self, share: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a question about *share*.

        Blocks for the deadline at most (twice that, if another thread's
        question must be waited for). Raises Uncertain (no answer), Refused and
        OSError (as the child met them), Failed (no child can be started).
        """
        with self._lock:
            state = self._shares.setdefault(share, _Share())
        # Another thread may be trying a hung share just now: only that one waits for it.
        patience = 0.0 if state.stuck else self._deadline
        if not state.lock.acquire(timeout=patience):
            raise Uncertain(f"{share} does not answer")
        try:
            self._respect_quarantine(share, state)
            answer = self._look(share, state, json.dumps(question).encode() + b"\n")
        finally:
            state.lock.release()
        return _value(json.loads(answer))

    def close(self) -> None:
        """Kill all children, and see them end; one in a hung call is abandoned."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            self._kill(child)
        deadline = Deadline(_EXIT_SECONDS)
        self._reap()
        while self._killed and not deadline.over():
            deadline.sleep(0.001)
            self._reap()

    def _respect_quarantine(self, share: str, state: _Share) -> None:
        if state.stuck is None:
            return
        if self._incarnation(share) != state.incarnation:
            state.stuck, state.pause = None, 0.0  # it was mounted anew: the quarantine ends
        elif not (state.retry and state.retry.over() and state.stuck.gone()):
            raise Uncertain(f"{share} does not answer")

    def _look(self, share: str, state: _Share, question: bytes) -> bytes:
        # A share that hung gets a new child: the idle ones are for the others.
        if state.stuck:
            return self._looked(share, state, self._start(), question)
        with self._taken() as child:
            return self._looked(share, state, child or self._start(), question)

    def _looked(self, share: str, state: _Share, child: Child, question: bytes) -> bytes:
        try:
            answer = self._answer(share, state, child, question)
        except EOFError:
            # It ended while it was idle (by the out-of-memory killer, say). Asking again is
            # harmless: questions change nothing.
            child = self._start()
            try:
                answer = self._answer(share, state, child, question)
            except EOFError as e:
                raise Uncertain(f"the process that looked at {share} ended") from e
        state.stuck, state.pause = None, 0.0
        self._give_back(child)
        return answer

    def _answer(self, share: str, state: _Share, child: Child, question: bytes) -> bytes:
        try:
            return child.ask(question, self._deadline)
        except EOFError:
            self._kill(child)
            raise
        except TimeoutError as e:
            self._kill(child)
            self._quarantine(share, state, child)
            raise Uncertain(f"{share} did not answer within {self._deadline:g} s") from e

    def _quarantine(self, share: str, state: _Share, child: Child) -> None:
        state.stuck = child
        state.incarnation = self._incarnation(share)
        state.pause = min(MAX_PAUSE_SECONDS, state.pause * 2 or self._deadline)
        state.retry = Deadline(state.pause, self._clock)

    @contextmanager
    def _taken(self) -> Iterator[Child | None]:
        """An idle child; None: one must be started, as those that look may hang."""
        self._reap()
        with self._lock:
            if self._looking >= _CHILDREN:
                self._given_back.wait_for(lambda: self._idle, self._patience)
            self._looking += 1
            child = self._idle.pop() if self._idle else None
        try:
            yield child
        finally:
            with self._lock:
                self._looking -= 1

    def _give_back(self, child: Child) -> None:
        with self._lock:
            if len(self._idle) < _CHILDREN:
                self._idle.append(child)
                self._given_back.notify()
                return
        self._kill(child)

    def _kill(self, child: Child) -> None:
        with suppress(OSError):
            child.kill()
        with self._lock:
            self._killed.append(child)

    def _reap(self) -> None:
        with self._lock:
            self._killed = [child for child in self._killed if not child.gone()]


def _value(answer: dict[str, Any]) -> dict[str, Any]:
    if "refused" in answer:
        raise Refused(answer["refused"], hint=answer["hint"])
    if "errno" in answer:
        raise OSError(answer["errno"], answer["text"], answer["path"])
    return answer
