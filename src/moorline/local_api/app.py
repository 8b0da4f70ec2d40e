"""Answers requests; knows nothing of sockets."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

from moorline.core.privilege import acting_for
from moorline.core.validation import parse_json
from moorline.deadline import MAX_TIMEOUT_SECONDS, Deadline
from moorline.errors import Denied, MoorlineError, NotFound, Refused
from moorline.exit_codes import EXIT_CODES
from moorline.local_api import http_errors, json_types
from moorline.local_api.calls import Calls, Done
from moorline.local_api.openapi import TITLE, document
from moorline.local_api.peer import Peer, Rights
from moorline.local_api.request_id import current
from moorline.local_api.routes import ROUTES, Route
from moorline.local_api.wire import STREAM

LOOK_DEADLINE_SECONDS = 60.0
"""Seconds that a request that changes nothing may take."""
OVERRUN_SECONDS = 120.0
"""Seconds that a change may exceed its own timeout: the step under way is finished."""
Page = tuple[str, Callable[[], bytes]]
"""A page: its content type, and the function that makes it."""
_LOG = logging.getLogger("moorline.request")


@dataclass(frozen=True, slots=True)
class Request:
    """A request."""

    method: str
    target: str
    body: bytes
    peer: Peer
    streams: bool = False
    """Whether the answer is to come in lines, progress first."""
    host: str = ""
    """What the Host header says; of several, all of them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; the parts of its body may come slowly."""

    status: int
    body: Iterator[bytes]
    kind: str = "application/json"
    allow: str = ""
    """The method that the path takes, if the request had another."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further ones."""


class Answering(Protocol):
    """What a server serves."""

    def answer(self, request: Request) -> Answer:
        """Answer a request. Never raises."""


class BadRequest(Exception):
    """A malformed request, which did not reach the façade."""

    def __init__(self, status: int, message: str, hint: str = "", *, allow: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint
        self.allow = allow


class App:
    """Answers requests with a façade. *about*: what the agent says of itself.

    *pages*: further things to look at, by path, each with the kind of its
    content; *only_pages*: and nothing else. *routes*: what is served of the façade, which has an
    attribute for each part; *title*: of its document. *rights* may be replaced while it serves.
    """

    def __init__(
        self,
        facade: object,
        rights: Rights,
        about: Mapping[str, Any],
        pages: Mapping[str, Page],
        *,
        only_pages: bool = False,
        routes: tuple[Route, ...] = ROUTES,
        title: str = TITLE,
    ) -> None:
        self.rights = rights
        self._facade = facade
        self._changes = Calls(256)
        self._looks = Calls(32)  # a pool of their own, so that one can look while many changes wait
        self._routes = {} if only_pages else {route.path: route for route in routes}
        own: dict[str, Page] = {
            "/openapi.json": ("application/json", lambda: json_bytes(document(routes, title))),
            "/v1/about": ("application/json", lambda: json_bytes(dict(about))),
        }
        self._pages = dict(pages) if only_pages else {**own, **pages}

    def stop(self, patience: float) -> bool:
        """End calls that wait, let the others finish their step; return whether all did in time."""
        deadline = Deadline(patience)
        changed = self._changes.stop(patience)
        return self._looks.stop(deadline.left()) and changed

    def answer(self, request: Request) -> Answer:
        """Answer it, and write a line about it to the log. Never raises."""
        facts: dict[str, Any] = {"operation": "none", "outcome": "done"}
        facts |= {"uid": request.peer.uid, "pid": request.peer.pid}
        begun = time.monotonic()
        try:
            answer = self._answer(request, facts)
        except BadRequest as e:
            answer = replace(_problem(e.status, bad(e), facts), allow=e.allow)
        except MoorlineError as e:
            answer = _problem(http_errors.status(e), http_errors.to_problem(e), facts)
        except Exception as e:  # noqa: BLE001 - a defect: the caller must be told
            answer = _problem(500, _defect(e), facts)
        return replace(answer, body=_logged(answer, facts, begun))

    def _answer(self, request: Request, facts: dict[str, Any]) -> Answer:
        url = _split(request.target)
        route = self._routes.get(url.path)
        if route is None:
            return self._page(request, url.path, facts)
        facts |= {"operation": route.name, "changes": route.changes}
        return self._call(route, request, url.query, facts)

    def _page(self, request: Request, path: str, facts: dict[str, Any]) -> Answer:
        if path not in self._pages:
            raise NotFound("there is no such path", hint="see /openapi.json")
        if request.method != "GET":
            raise BadRequest(405, "this path takes GET", allow="GET")
        if not self.rights.may_look(request.peer):
            raise _denied()
        facts["operation"] = path
        kind, make = self._pages[path]
        return Answer(200, iter([make()]), kind)

    def _call(self, route: Route, request: Request, query: str, facts: dict[str, Any]) -> Answer:
        if request.method != route.method:
            raise BadRequest(405, f"this path takes {route.method}", allow=route.method)
        if not self._may(request.peer, route):
            raise _denied()
        try:
            arguments = _arguments(route, request.body, query)
        except Refused as e:
            raise BadRequest(400, e.message, e.hint) from None
        with acting_for(trusted=request.peer.trusted):
            told = self._begin(route, arguments)
        if request.streams:
            return Answer(200, (_line(item, facts) for item in told), STREAM)
        *_, done = told
        assert isinstance(done, Done), "a call tells its end last"
        if done.error is not None:
            raise done.error
        return Answer(200, iter([json_bytes(json_types.encode(done.result))]))

    def _may(self, peer: Peer, route: Route) -> bool:
        return self.rights.may_change(peer) if route.changes else self.rights.may_look(peer)

    def _begin(self, route: Route, arguments: dict[str, Any]) -> Iterator[str | Done]:
        calls = self._changes if route.changes else self._looks
        if not route.changes:
            deadline = LOOK_DEADLINE_SECONDS
        elif "timeout" in route.fields and not route.moves_data:
            deadline = route.patience(arguments) + OVERRUN_SECONDS
        else:
            deadline = MAX_TIMEOUT_SECONDS
        return calls.run(lambda progress: route.call(self._facade, arguments, progress), deadline)


def _split(target: str) -> SplitResult:
    try:
        return urlsplit(target)
    except ValueError:
        raise BadRequest(400, "the request's target is no path") from None


def _arguments(route: Route, body: bytes, query: str) -> dict[str, Any]:
    if route.changes:
        if query:
            raise Refused("a change has its fields in its body, not in the query")
        given = parse_json(body or b"{}")
        if not isinstance(given, dict):
            raise Refused("the body is no JSON object")
        return route.bind(given)
    if body:
        raise Refused("a look has its fields in the query, not in a body")
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict"
        )
    except ValueError:
        raise Refused("the query is not of the form a=b&c=d, in UTF-8") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise Refused("the query names a field twice")
    return route.bind_text(given)


def _denied() -> Denied:
    return Denied("this user may not ask the agent for that", hint="root may, and its group")


def _line(item: str | Done, facts: dict[str, Any]) -> bytes:
    if isinstance(item, str):
        return json_bytes({"progress": item} if item else {})
    if item.error is None:
        return json_bytes({"result": json_types.encode(item.result)})
    if isinstance(item.error, MoorlineError):
        told = http_errors.to_problem(item.error)
    else:
        told = _defect(item.error)
    facts["outcome"] = told["error"]
    return json_bytes({"problem": told})


def json_bytes(value: Any) -> bytes:
    """A line of JSON."""
    return json.dumps(value).encode() + b"\n"


def _problem(status: int, told: dict[str, Any], facts: dict[str, Any]) -> Answer:
    facts["outcome"] = told["error"]
    return Answer(status, iter([json_bytes(told)]), http_errors.KIND)


def bad(error: BadRequest) -> dict[str, Any]:
    """The body of the answer to a malformed request."""
    code = EXIT_CODES[Refused]
    return {"error": "refused", "code": code, "message": error.message, "hint": error.hint}


def _defect(error: Exception) -> dict[str, Any]:
    # Its text may contain what was given, even a password: only where it happened is logged.
    frames = "".join(traceback.format_tb(error.__traceback__))
    _LOG.error("a defect: %s\n%s", type(error).__name__, frames)
    return {
        "error": http_errors.DEFECT,
        "code": 1,
        "message": f"a defect of the agent ({type(error).__name__}, request {current()})",
        "hint": "its log has more: please report it",
    }


def _logged(answer: Answer, facts: dict[str, Any], begun: float) -> Iterator[bytes]:
    try:
        yield from answer.body
    finally:
        facts["seconds"] = round(time.monotonic() - begun, 6)
        # requests that change nothing are many
        looked = facts["outcome"] == "done" and not facts.get("changes")
        text = "%(operation)s %(outcome)s uid=%(uid)s pid=%(pid)s %(seconds).3f s"
        _LOG.log(logging.DEBUG if looked else logging.INFO, text, facts)
