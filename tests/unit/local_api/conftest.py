"""An API that serves a toy host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from moorline.local_api.app import App
from moorline.local_api.client import Client
from moorline.local_api.peer import Rights
from moorline.local_api.server import Server, listen
from tests.support.rig import Rig

ABOUT = {"version": "1", "host": "h1", "hypervisor": "toy:///", "state_dir": "/s", "options": "d"}


@pytest.fixture
def app(rig: Rig) -> App:
    return App(rig.owner(), Rights(None), ABOUT, {"/metrics": ("text/plain", lambda: b"up 1\n")})


@pytest.fixture
def socket(app: App, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "agent.sock"
    server = Server(listen(path, 0o600, None), app)
    server.start()
    yield path
    server.stop()
    assert app.stop(10)


@pytest.fixture
def client(socket: Path) -> Client:
    return Client(socket, timeout=10)
