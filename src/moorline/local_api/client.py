"""The façade of an agent, over its Unix socket.

Synchronous and light: it needs the standard library, no thread and no event
loop, so it can live in a process such as nova-compute, patched by eventlet or
not. One connection a call, so it is safe to use from several threads, and
after a fork.
"""

from __future__ import annotations

import functools
import inspect
import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from urllib.parse import urlencode

from moorline.errors import Denied, Refused, Unavailable, Uncertain
from moorline.local_api import problem, shapes
from moorline.local_api.routes import LARGEST_BODY, ROUTES, STREAM, Route
from moorline.ports.api import Attachments, Guests, Maintenance, Progress, no_progress

ABOUT_TIMEOUT_SECONDS = 10.0
"""Seconds that an agent may take to say what it is: it looks at nothing for that."""


P = ParamSpec("P")
T = TypeVar("T")
_ROUTE_OF = {route.function: route for route in ROUTES}


class _Part:
    """What the agent does of one part of the protocol."""

    def __init__(self, client: Client) -> None:
        self.client = client


def _remote(asked: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[_Part, P], T]:
    """The same method, done by the agent: its signature is the protocol's."""
    route, signature = _ROUTE_OF[asked], inspect.signature(asked)

    @functools.wraps(asked)
    def method(part: _Part, /, *args: P.args, **named: P.kwargs) -> T:
        arguments = signature.bind(part, *args, **named).arguments
        del arguments["self"]
        answer: T = part.client.call(route, dict(arguments))
        return answer

    return method


class _Attachments(_Part):
    attach = _remote(Attachments.attach)
    detach = _remote(Attachments.detach)
    extend = _remote(Attachments.extend)
    relocate = _remote(Attachments.relocate)
    forget = _remote(Attachments.forget)
    sweep = _remote(Attachments.sweep)
    list = _remote(Attachments.list)
    show = _remote(Attachments.show)


class _Guests(_Part):
    launch = _remote(Guests.launch)
    start = _remote(Guests.start)
    remove = _remote(Guests.remove)
    ready = _remote(Guests.ready)
    unready = _remote(Guests.unready)
    datastores = _remote(Guests.datastores)


class _Maintenance(_Part):
    events = _remote(Maintenance.events)
    explain = _remote(Maintenance.explain)
    doctor = _remote(Maintenance.doctor)
    disks = _remote(Maintenance.disks)
    repair = _remote(Maintenance.repair)
    abort = _remote(Maintenance.abort)
    adopt = _remote(Maintenance.adopt)
    release = _remote(Maintenance.release)


class Client:
    """Has what :class:`moorline.ports.api.Api` has, and does it in the agent.

    *socket*: where the agent listens. *timeout*: seconds to wait for a sign of
    life of it, on top of a call's own timeout. *longest*: seconds that a call
    may take in all, whatever signs of life there are.

    The methods raise what the façade's do, and besides: Unavailable (no agent
    answers there; nothing was changed), Denied (the agent does not let this
    user), Uncertain (a change got no answer; the attachment may be recorded: look,
    or repeat the call).
    """

    def __init__(
        self, socket: Path | str, timeout: float = 60.0, longest: float | None = None
    ) -> None:
        self._socket = str(socket)
        self._timeout = timeout
        self._longest = inf if longest is None else longest
        self.attachments = _Attachments(self)
        self.guests = _Guests(self)
        self.maintenance = _Maintenance(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is kept open between calls."""

    def about(self) -> dict[str, Any]:
        """What the agent says of itself: ``version``, ``host``, ``hypervisor``, ``state_dir``,
        ``options`` (a digest). Raises Unavailable, Denied."""
        try:
            patience = min(self._timeout, ABOUT_TIMEOUT_SECONDS)
            answer = self._exchange("GET", "/v1/about", None, patience, no_progress)
        except _Unanswered as e:
            raise Unavailable(f"the agent at {self._socket} did not answer: {e}") from e
        assert isinstance(answer, dict), "as the document says"
        return answer

    def call(self, route: Route, arguments: dict[str, Any]) -> Any:
        """Have the agent do it; see the class. *arguments*: by name, and *progress*."""
        progress = arguments.pop("progress", no_progress)
        patience = self._timeout + route.patience(arguments)
        path, body = _written(route, shapes.encode(arguments))
        try:
            answer = self._exchange(route.method, path, body, patience, progress)
            return _read(route, answer)
        except _Unanswered as e:
            family = Uncertain if route.changes and not arguments.get("dry_run") else Unavailable
            raise family(
                f"the agent at {self._socket} did not answer to the end: {e}",
                hint="moorline list tells what is wanted now",
            ) from e

    def _exchange(
        self, method: str, path: str, body: bytes | None, patience: float, progress: Progress
    ) -> Any:
        connection = _UnixConnection(self._socket, patience, self._longest)
        try:
            connection.connect()
            return _answer(connection, method, path, body, progress)
        finally:
            connection.close()


def _written(route: Route, plain: dict[str, Any]) -> tuple[str, bytes | None]:
    """The request's path and body. Raises Refused."""
    try:
        if route.changes:
            body = json.dumps(plain).encode()
            if len(body) > LARGEST_BODY:  # the agent would hang up on it, and leave us uncertain
                raise Refused(f"the request has more than {LARGEST_BODY} bytes as JSON")
            return route.path, body
        query = {k: v if isinstance(v, str) else json.dumps(v) for k, v in plain.items()}
        return (f"{route.path}?{urlencode(query)}" if query else route.path), None
    except (TypeError, ValueError):
        raise Refused("what was given cannot be written as JSON") from None


def _read(route: Route, answer: Any) -> Any:
    try:
        return shapes.decode(route.returns, answer, answer=True)
    except Refused as e:  # an agent of another version: it was answered, but with what?
        raise _Unanswered(e.message) from e


class _Unanswered(Exception):
    """The agent was reached, and what became of the request is not known."""


class _UnixConnection(HTTPConnection):
    """Waits *timeout* seconds for each sign of life, and *longest* in all."""

    def __init__(self, path: str, timeout: float, longest: float = inf) -> None:
        super().__init__("localhost", timeout=min(timeout, longest))
        self._path = path
        self._patience = timeout
        self._end = time.monotonic() + longest

    def connect(self) -> None:
        """Raises Unavailable, Denied."""
        self.sock = self._open = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except PermissionError as e:
            raise Denied(
                f"the agent's socket {self._path} cannot be opened: {e.strerror}",
                hint="run as root or as a member of the agent's group, or give --state-dir",
            ) from e
        except OSError as e:
            raise Unavailable(
                f"no agent answers at {self._path}: {e.strerror or e}", hint="moorline agent"
            ) from e

    def wait(self) -> None:
        """Bound the next wait by what is left. Raises TimeoutError if nothing is."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._open.settimeout(min(self._patience, left))


def _answer(
    connection: _UnixConnection, method: str, path: str, body: bytes | None, progress: Progress
) -> Any:
    headers = {"Accept": STREAM}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        with suppress(BrokenPipeError):  # it may have answered before it was told all
            connection.request(method, path, body, headers)
        connection.wait()
        with connection.getresponse() as response:
            if response.headers.get_content_type() == STREAM:
                return _last_line(connection, response, progress)
            answer = json.loads(response.read())
    except (OSError, HTTPException, ValueError) as e:
        raise _Unanswered(str(e) or type(e).__name__) from e
    if response.status != 200:
        raise problem.from_problem(answer)
    return answer


def _last_line(connection: _UnixConnection, response: HTTPResponse, progress: Progress) -> Any:
    """Tell of the progress, and return the result. Raises the error that it ended in."""
    while line := response.readline():
        told = json.loads(line)
        if "progress" in told:
            progress(told["progress"])
            connection.wait()
        elif "problem" in told:
            raise problem.from_problem(told["problem"])
        elif "result" in told:
            return told["result"]
    raise _Unanswered("the connection ended")
