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
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from moorline.deadline import callers_patience
from moorline.errors import Refused
from moorline.local_api import json_types, wire
from moorline.local_api.routes import ROUTES, Route
from moorline.local_api.wire import MAX_BODY_BYTES, TIMEOUT_SECONDS
from moorline.ports.api import Attachments, Guests, Maintenance
from moorline.ports.progress import no_progress

P = ParamSpec("P")
T = TypeVar("T")
_MIN_LOOK_SECONDS = 2.0
"""Seconds that a look has even if its caller waits no longer."""
_ROUTE_OF = {route.function: route for route in ROUTES}


class _Part:
    """One part of the protocol, done by the agent."""

    def __init__(self, client: Client) -> None:
        self.client = client


def _remote(asked: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[_Part, P], T]:
    """The same method, done by the agent: its signature is the protocol's."""
    route = _ROUTE_OF[asked]

    @functools.wraps(asked)
    def method(part: _Part, /, *args: P.args, **named: P.kwargs) -> T:
        arguments = inspect.signature(asked).bind(part, *args, **named).arguments
        del arguments["self"]
        answer: T = part.client.call(route, dict(arguments))
        return answer

    return method


class _Attachments(_Part):
    attach = _remote(Attachments.attach)
    detach = _remote(Attachments.detach)
    set = _remote(Attachments.set)
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
    all = _remote(Guests.all)
    ready = _remote(Guests.ready)
    permit = _remote(Guests.permit)
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
    follow = _remote(Maintenance.follow)
    adopt_all = _remote(Maintenance.adopt_all)
    release_all = _remote(Maintenance.release_all)


class Client:
    """Implements :class:`moorline.ports.api.Api` by an agent.

    *socket*: where the agent listens. *timeout*: seconds to wait for a sign of
    life of it, on top of a call's own timeout. *longest*: seconds that a call
    may take in all, whatever signs of life there are.

    The methods raise what the façade's do, and besides: Unavailable (no agent
    answers there; nothing was changed), Denied (the agent does not let this
    user), Uncertain (a change got no answer; the attachment may be recorded: look,
    or repeat the call).
    """

    def __init__(
        self, socket: Path | str, timeout: float = TIMEOUT_SECONDS, longest: float | None = None
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
        ``options`` (a digest). Raises Unavailable, Denied.
        """
        return wire.about(self._socket, min(self._timeout, wire.ABOUT_TIMEOUT_SECONDS))

    def call(self, route: Route, arguments: dict[str, Any]) -> Any:
        """Call a method in the agent; see the class. *arguments*: by name, and *progress*."""
        progress = arguments.pop("progress", no_progress)
        patience = self._timeout + route.patience(arguments)
        if not route.changes:
            patience = min(patience, callers_patience(_MIN_LOOK_SECONDS))
        path, body = _written(route, json_types.encode(arguments, brief=True))
        try:
            answer = wire.exchange(
                self._socket,
                route.method,
                path,
                body,
                patience=patience,
                longest=self._longest,
                progress=progress,
            )
            return _read(route, answer)
        except wire.Unanswered as e:
            changes = route.changes and not arguments.get("dry_run")
            raise wire.lost(self._socket, e, changes=changes) from e


def _written(route: Route, plain: dict[str, Any]) -> tuple[str, bytes | None]:
    """The request's path and body. Raises Refused."""
    try:
        if route.changes:
            body = json.dumps(plain).encode()
            if len(body) > MAX_BODY_BYTES:  # the agent would hang up, and the result be uncertain
                raise Refused(f"the request has more than {MAX_BODY_BYTES} bytes as JSON")
            return route.path, body
        query = {k: v if isinstance(v, str) else json.dumps(v) for k, v in plain.items()}
        if not query:
            return route.path, None
        from urllib.parse import urlencode  # slow to import

        return f"{route.path}?{urlencode(query)}", None
    except (TypeError, ValueError):
        raise Refused("what was given cannot be written as JSON") from None


def _read(route: Route, answer: Any) -> Any:
    try:
        return json_types.decode(route.returns, answer, answer=True)
    except Refused as e:  # an agent of another version answered something that is not understood
        raise wire.Unanswered(e.message) from e
