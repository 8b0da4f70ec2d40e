"""The fleet's API: what the agent's is for one host, served by a controller on a Unix socket."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from moorline.fleet.fleet import Fleet
from moorline.fleet.orders import Orders, Parse
from moorline.local_api import openapi
from moorline.local_api.app import Answer, App, Request
from moorline.local_api.peer import Peer, Rights
from moorline.local_api.routes import Route
from moorline.local_api.server import Server, listen

TITLE = "Moorline's fleet"
_STOP_SECONDS = 2.0
_WHO: ContextVar[str] = ContextVar("who", default="")
ROUTES: tuple[Route, ...] = (
    Route("hosts", Orders.hosts, changes=False),
    Route("guests", Orders.guests, changes=False),
    Route("list", Orders.list, changes=False),
    Route("show", Orders.show, changes=False),
    Route("explain", Orders.explain, changes=False),
    Route("events", Orders.events, changes=False),
    Route("attach", Orders.attach, changes=True),
    Route("detach", Orders.detach, changes=True),
    Route("migrate", Orders.migrate, changes=True),
    Route("give_up", Orders.give_up, changes=True),
    Route("cordon", Orders.cordon, changes=True),
    Route("uncordon", Orders.uncordon, changes=True),
    Route("drain", Orders.drain, changes=True),
    Route("evacuate", Orders.evacuate, changes=True),
)


class FleetApp:
    """An :class:`App` that knows who asks, for what is recorded with a name."""

    def __init__(self, fleet: Fleet, parse: Parse, rights: Rights) -> None:
        facade = SimpleNamespace(orders=Orders(fleet, parse, _WHO.get))
        about = {"version": version("moorline")}
        self._app = App(facade, rights, about, {}, routes=ROUTES, title=TITLE)
        self.stop = self._app.stop

    def answer(self, request: Request) -> Answer:
        """See :class:`moorline.local_api.app.Answering`."""
        token = _WHO.set(_name(request.peer))  # a call that is begun has it from then on
        try:
            return self._app.answer(request)
        finally:
            _WHO.reset(token)


@contextmanager
def serving(fleet: Fleet, parse: Parse, socket: Path, group: str) -> Iterator[None]:
    """Serve *fleet* at *socket* meanwhile, to root, this user and the members of *group*.

    Raises Busy (somebody serves it), Refused, Denied.
    """
    rights = Rights.of(group, anyone_may_look=False)
    app = FleetApp(fleet, parse, rights)
    server = Server(listen(socket, rights.mode, rights.group), app)
    server.start()
    try:
        yield
    finally:
        server.stop()
        with suppress(OSError):
            socket.unlink()
        app.stop(_STOP_SECONDS)


def document() -> dict[str, Any]:
    """The OpenAPI document of the fleet's API."""
    return openapi.document(ROUTES, TITLE)


def _name(peer: Peer) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(peer.uid).pw_name
    return f"uid {peer.uid}"
