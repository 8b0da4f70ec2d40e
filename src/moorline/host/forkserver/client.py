"""Calls into modules that are slow to import or may hang, each in a process of its own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from moorline.deadline import Deadline
from moorline.errors import BY_KIND, Failed, Refused, Uncertain
from moorline.ports import Call

START_TIMEOUT_SECONDS = 60.0
"""Seconds that an import may take."""
ENFORCE_SECONDS = 2.0
"""Seconds beyond a call's deadline that the warm process has to enforce it."""
_EXIT_SECONDS = 0.5


class Process(Protocol):
    """The part of ``subprocess.Popen`` that is needed here."""

    def kill(self) -> None: ...

    def poll(self) -> int | None: ...


Start = Callable[[str, socket.socket], Process]
"""Start :mod:`moorline.host.forkserver.server`, the socket being its standard input."""


class Calls:
    """A warm process for each module that is called. Safe to use from several threads.

    *grace*: seconds beyond a call's deadline after which the warm process
    itself is taken to be stuck: it is killed, with every call under way in it.
    """

    def __init__(self, start: Start, *, grace: float = ENFORCE_SECONDS) -> None:
        self._start = start
        self._grace = grace
        self._lock = threading.Lock()
        self._warm: dict[str, _Warm] = {}

    def call(self, call: Call, keep: Sequence[int] = ()) -> Mapping[str, Any]:
        """See :meth:`moorline.ports.Host.call`.

        *keep*: descriptors that the fork keeps open, too.
        """
        deadline = Deadline(call.deadline)
        warm, ours = self._hand_over(call, keep)
        try:
            answer = _exchange(ours, call, self._grace)
        except TimeoutError as e:
            self._drop(call.module, warm)
            raise _late(call) from e
        if not answer.endswith(b"\n"):  # the fork has ended, or was killed
            if deadline.over():
                raise _late(call)
            raise Uncertain(f"the process that called {call.name} ended")
        return _value(json.loads(answer))

    def close(self) -> None:
        """End the warm processes; one with a call under way ends after the call."""
        with self._lock:
            left, self._warm = list(self._warm.values()), {}
        for warm in left:
            warm.control.close()
        deadline = Deadline(_EXIT_SECONDS)
        while any(warm.process.poll() is None for warm in left) and not deadline.over():
            deadline.sleep(0.005)

    def _hand_over(self, call: Call, keep: Sequence[int]) -> tuple[_Warm, socket.socket]:
        """Give the other end of a socket to the warm process; the question is sent later."""
        for last in (False, True):
            warm = self._get(call)
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    deadline = f"{call.deadline:.3f}".encode()
                    socket.send_fds(warm.control, [deadline], [theirs.fileno(), *keep])
            except OSError as e:  # it died (by the out-of-memory killer, say): start a new one
                ours.close()
                self._drop(call.module, warm)
                if last:
                    raise Failed(f"the process that calls {call.name} ends at once") from e
            else:
                return warm, ours
        raise AssertionError("unreachable")

    def _get(self, call: Call) -> _Warm:
        with self._lock:
            if call.module not in self._warm:
                self._warm[call.module] = _begin(self._start, call)
            return self._warm[call.module]

    def _drop(self, module: str, warm: _Warm) -> None:
        with self._lock:
            if self._warm.get(module) is warm:
                del self._warm[module]
        warm.control.close()
        warm.process.kill()
        warm.process.poll()


class _Warm:
    """A warm process and our end of its standard input."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        self.process = process
        self.control = control


def _begin(start: Start, call: Call) -> _Warm:
    """Start a process and wait until it has imported the module."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = start(call.module, theirs)
    control.settimeout(START_TIMEOUT_SECONDS)
    try:
        said = control.recv(512)
    except TimeoutError:
        said = b""
    if said == b"ready":
        return _Warm(process, control)
    control.close()
    process.kill()
    if said:
        raise Refused(f"{call.name} cannot be used: {said.decode(errors='replace')}")
    raise Failed(f"the process that calls {call.name} does not start")


def _exchange(ours: socket.socket, call: Call, grace: float) -> bytes:
    """Ask and read the answer, which ends with a newline. Raises TimeoutError."""
    deadline = Deadline(call.deadline + grace)
    answer = b""
    with ours, suppress(ConnectionError):  # the other end is gone: there is no answer
        ours.settimeout(call.deadline + grace)
        ours.sendall(json.dumps(call.question.reveal()).encode() + b"\n")
        while not answer.endswith(b"\n"):
            ours.settimeout(max(0.001, deadline.left()))
            if not (more := ours.recv(65536)):
                break
            answer += more
    return answer


def _late(call: Call) -> Uncertain:
    return Uncertain(f"{call.name} did not answer within {call.deadline:g} s")


def _value(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    if "error" in answer:
        raise BY_KIND.get(answer["error"], Uncertain)(answer["message"], hint=answer["hint"])
    value: Mapping[str, Any] = answer["answer"]
    return value
