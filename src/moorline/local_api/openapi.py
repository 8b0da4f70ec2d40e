"""The OpenAPI 3.1 document of the API, from the table that is served."""

from __future__ import annotations

import inspect
from functools import cache
from importlib.metadata import version
from typing import Any

from moorline.errors import MoorlineError
from moorline.local_api import http_errors, json_types
from moorline.local_api.routes import ROUTES, Route
from moorline.local_api.wire import STREAM

TITLE = "Moorline's agent"
_PROBLEM = {
    "type": "object",
    "properties": {
        "error": {"type": "string", "description": "the error's class, in small letters"},
        "code": {"type": "integer", "description": "the command's exit code for it"},
        "message": {"type": "string"},
        "hint": {"type": "string"},
        "volume": {"type": "string", "description": "the id of the volume that it is about"},
        "guest": {"type": "string", "description": "the name of the guest that it is about"},
    },
    "required": ["error", "code", "message", "hint"],
}
_ABOUT = {
    "type": "object",
    "properties": {
        name: {"type": "string"}
        for name in ("version", "host", "hypervisor", "state_dir", "options")
    },
}
_OWN_STATUSES = {
    400: "refused: the request is malformed; nothing changed",
    405: "refused: this path takes another method",
    408: "refused: the request did not come in time",
    411: "refused: the request does not say its length",
    413: "refused: the request is too large",
    414: "refused: the path and query are too long",
    431: "refused: the headers are too large",
    500: "a defect of the agent",
}


@cache
def document(routes: tuple[Route, ...] = ROUTES, title: str = TITLE) -> dict[str, Any]:
    """The document, with every path that is served."""
    components: dict[str, json_types.Schema] = {"Problem": _PROBLEM, "About": _ABOUT}
    paths = {route.path: {route.method.lower(): _operation(route, components)} for route in routes}
    paths["/v1/about"] = {"get": _page("about", "What the agent says of itself.", "About")}
    paths["/openapi.json"] = {"get": _page("openapi", "This document.", None)}
    if routes is ROUTES:
        paths["/metrics"] = {"get": _metrics()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version("moorline"),
            "description": "Served on a Unix socket; the kernel tells the agent who asks. A"
            f" request with `Accept: {STREAM}` is answered in lines: objects with `progress`,"
            " empty ones now and then, and at last one with `result` or `problem`.",
        },
        "servers": [{"url": "http://localhost"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, components: dict[str, json_types.Schema]) -> dict[str, Any]:
    summary, _, more = inspect.cleandoc(route.function.__doc__ or "").partition("\n\n")
    told: dict[str, Any] = {
        "operationId": route.name,
        "summary": summary.replace("\n", " "),
        "description": more,
        "responses": _responses(json_types.schema(route.returns, components, answer=True)),
    }
    fields = {name: field.schema(components) for name, field in route.fields.items()}
    required = [name for name, field in route.fields.items() if field.required]
    if route.changes:
        body = {"type": "object", "properties": fields, "required": required}
        content = {"application/json": {"schema": {**body, "additionalProperties": False}}}
        told["requestBody"] = {"required": bool(required), "content": content}
    elif fields:
        told["parameters"] = [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in fields.items()
        ]
    return told


def _responses(result: json_types.Schema) -> dict[str, Any]:
    return {
        "200": {"description": "done", "content": {"application/json": {"schema": result}}},
        **_problems(),
    }


def _problems() -> dict[str, Any]:
    words = dict(_OWN_STATUSES)
    for kind, status in http_errors.STATUSES.items():
        name = kind.__name__.lower()
        words[status] = f"{words[status]}, or {name}" if status in words else _said(kind)
    content = {http_errors.KIND: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        str(status): {"description": words[status], "content": content} for status in sorted(words)
    }


def _said(kind: type[MoorlineError]) -> str:
    first = inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]
    return f"{kind.__name__.lower()}: {first}"


def _page(name: str, summary: str, component: str | None) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{component}"} if component else {"type": "object"}
    return {"operationId": name, "summary": summary, "responses": _responses(schema)}


def _metrics() -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "metrics",
        "summary": "What Prometheus collects.",
        "responses": {"200": {"description": "done", "content": text}, **_problems()},
    }
