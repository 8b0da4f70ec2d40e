"""The API, fuzzed from its own document: no 500, no hang, nothing that it does not say."""

from __future__ import annotations

import socket
import socket as sockets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from requests.adapters import HTTPAdapter
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi import checks
from urllib3 import HTTPConnectionPool

from moorline.local_api.app import App
from moorline.local_api.openapi import document
from moorline.local_api.peer import Rights
from moorline.local_api.server import Server, listen
from moorline.local_api.wire import MAX_BODY_BYTES
from tests.support.rig import Rig

SCHEMA = schemathesis.openapi.from_dict(document())
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]
load_all_checks()
NEGATIVE = SCHEMA.config.checks.negative_data_rejection
NEGATIVE.expected_statuses = [*NEGATIVE.expected_statuses, "413"]
LONGEST = 60.0
"""Seconds after which an answer does not come any more, on a busy machine, too."""


class _Pool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> Any:
        from urllib3.connection import HTTPConnection

        connection = HTTPConnection("localhost", timeout=LONGEST)
        connection.sock = sockets.socket(sockets.AF_UNIX)
        connection.sock.settimeout(LONGEST)
        connection.sock.connect(self._path)
        return connection


class _Unix(HTTPAdapter):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return _Pool(self._path)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[requests.Session]:
    rig = Rig("g1", "g2")
    app = App(rig.owner(), Rights(None), dict.fromkeys(ABOUT, ""), {"/metrics": METRICS})
    path = tmp_path_factory.mktemp("fuzz") / "s"
    # A busy machine may not send a request in the time that the agent gives others.
    server = Server(listen(path, 0o600, None), app, read_deadline=LONGEST)
    server.start()
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.01):
            rig.world.tick()  # guests let go of what they are asked for

    threading.Thread(target=tick, daemon=True).start()
    with requests.Session() as made:
        made.mount("http://", _Unix(path))
        yield made
    over.set()
    server.stop()
    assert app.stop(LONGEST)
    assert not rig.world.violations


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Path]:
    """The socket of a server that waits for no request."""
    app = App(Rig().owner(), Rights(None), dict.fromkeys(ABOUT, ""), {"/metrics": METRICS})
    server = Server(listen(tmp_path / "s", 0o600, None), app, read_deadline=0.2)
    server.start()
    yield tmp_path / "s"
    server.stop()
    assert app.stop(LONGEST)


ABOUT = ("version", "host", "hypervisor", "state_dir", "options")
METRICS = ("text/plain", lambda: b"up 1\n")


@SCHEMA.hook
def map_body(context: Any, body: Any) -> Any:
    """Now and then something that exists, and nothing that takes long."""
    if not isinstance(body, dict):
        return body
    if isinstance(guest := body.get("guest"), str) and len(guest) in (1, 3, 5):
        body["guest"] = "g1"
    if isinstance(volume := body.get("volume"), str) and len(volume) in (1, 3, 5):
        body["volume"] = "known"
    if isinstance(given := body.get("connection"), dict) and len(given) % 2:
        data = {"share": "s1", "name": "known", "volume_id": "known"}
        body["connection"] = {"driver_volume_type": "toy", "data": data}
    timeout = body.get("timeout")
    if (
        isinstance(timeout, int | float)
        and not isinstance(timeout, bool)
        and 0.1 < timeout <= 86400
    ):
        body["timeout"] = 0.1
    return body


def test_the_document_is_one() -> None:
    SCHEMA.validate()
    assert SCHEMA.raw_schema["openapi"] == "3.1.0"


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        (b"POST /v1/detach HTTP/1.0\r\nContent-Length: 9\r\n\r\n{", 408),
        (b"POST /v1/detach HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /v1/detach HTTP/1.0\r\nContent-Length: 999999\r\n\r\n", 413),
        (b"GET /v1/show?volume=%b HTTP/1.0\r\n\r\n" % (b"x" * 70_000), 414),
        (b"GET /v1/list HTTP/1.0\r\nX-Odd: %b\r\n\r\n" % (b"x" * 70_000), 431),
    ],
)
def test_it_says_how_a_request_itself_is_refused(
    hasty: Path, request_of: bytes, status: int
) -> None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(LONGEST)
        asking.connect(str(hasty))
        asking.sendall(request_of)
        assert asking.recv(64).split()[1] == str(status).encode()
    for path in SCHEMA.raw_schema["paths"].values():
        for operation in path.values():
            assert str(status) in operation["responses"]


@SCHEMA.parametrize()
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_it_does_what_the_document_says(case: Any, session: requests.Session) -> None:
    begun = time.monotonic()
    response = case.call(base_url="http://localhost", session=session, timeout=LONGEST)
    assert time.monotonic() - begun < LONGEST
    assert response.status_code != 500, response.text
    if response.status_code == 413:
        assert len(response.request.body or b"") > MAX_BODY_BYTES
    case.validate_response(response, checks=CHECKS)
