"""HTTP on the socket: who may, how much, how long."""

from __future__ import annotations

import json
import logging
import os
import socket as sockets
import stat
import threading
import time
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from moorline.agent.logs import Json, Text
from moorline.errors import Busy, Refused, Uncertain
from moorline.local_api import server as server_module
from moorline.local_api.app import App
from moorline.local_api.client import Client
from moorline.local_api.peer import Rights
from moorline.local_api.request_id import request_id
from moorline.local_api.server import Server, listen, loopback
from moorline.ports.api import Api
from tests.support.rig import Rig
from tests.support.toy_loop import until

SECRET = "hunter2-PLANTED-5f1c"
ATTACH = {
    "guest": "g1",
    "connection": {"driver_volume_type": "toy", "data": {"share": "s1", "name": "a"}},
}


def ask(path: Path, raw: bytes) -> tuple[int, Any, dict[str, str]]:
    """Send *raw* as it stands; return the status, the body and the headers."""
    with sockets.socket(sockets.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(raw)
        response = HTTPResponse(connection)
        response.begin()
        body = response.read()
        kind = response.headers.get_content_type()
        told = json.loads(body) if kind.endswith("json") and body else body
        return response.status, told, dict(response.headers)


def get(path: Path, target: str) -> tuple[int, Any, dict[str, str]]:
    return ask(path, f"GET {target} HTTP/1.0\r\n\r\n".encode("utf-8", "surrogateescape"))


def post(path: Path, target: str, body: bytes, more: str = "") -> tuple[int, Any, dict[str, str]]:
    head = f"POST {target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return ask(path, head.encode() + body)


# --- requests ---------------------------------------------------------------------


def test_plain_json_for_plain_tools(rig: Rig, socket: Path) -> None:
    status, told, headers = post(socket, "/v1/attach", json.dumps(ATTACH).encode())
    assert (status, told["steps"]) == (200, ["connect", "attach"])
    assert headers["Content-Type"] == "application/json"
    status, told, _ = get(socket, f"/v1/show?volume={told['view']['volume'][:8]}")
    assert (status, told[0]["seen"]) == (200, "attached")
    assert get(socket, "/metrics")[1] == b"up 1\n"
    assert get(socket, "/v1/about")[1]["host"] == "h1"
    assert get(socket, "/openapi.json")[1]["openapi"].startswith("3.")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /nowhere HTTP/1.0\r\n\r\n", 404),
        (b"GET /v1/attach HTTP/1.0\r\n\r\n", 405),
        (b"POST /v1/list HTTP/1.0\r\n\r\n", 405),
        (b"POST /metrics HTTP/1.0\r\n\r\n", 405),
        (b"BREW /v1/list HTTP/1.0\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.0\r\n\r\n", 400),
        (b"GET /v1/list HTTP/9.9\r\n\r\n", 400),
        (b"GET /v1/list?x=1 HTTP/1.0\r\n\r\n", 400),
        (b"GET /v1/show HTTP/1.0\r\n\r\n", 400),
        (b"GET /v1/show?volume=a&volume=b HTTP/1.0\r\n\r\n", 400),
        (b"GET /v1/show?volume HTTP/1.0\r\n\r\n", 400),
        (b"GET /v1/show?volume=%ff HTTP/1.0\r\n\r\n", 400),
        (b"GET /v1/show?volume=%00 HTTP/1.0\r\n\r\n", 400),
        (b"GET /v1/show?volume=" + b"x" * 5000 + b" HTTP/1.0\r\n\r\n", 400),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.0\r\n\r\n", 414),
        (b"GET /v1/list HTTP/1.0\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /v1/list HTTP/1.0\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /v1/list HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"POST /v1/sweep HTTP/1.0\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /v1/sweep HTTP/1.0\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/sweep HTTP/1.0\r\nContent-Length: 999999999999999\r\n\r\n", 413),
        (b"POST /v1/sweep HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /v1/sweep?x=1 HTTP/1.0\r\n\r\n", 400),
    ],
)
def test_requests_that_are_none(socket: Path, raw: bytes, status: int) -> None:
    shut = b"Content-Length: 9" in raw
    if shut:
        raw += b"{"
    answer = _shut_and_ask(socket, raw) if shut else ask(socket, raw)
    assert answer[0] == status
    assert answer[1]["code"] in (3, 4)
    assert answer[1]["message"]


def _shut_and_ask(path: Path, raw: bytes) -> tuple[int, Any]:
    with sockets.socket(sockets.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(raw)
        connection.shutdown(sockets.SHUT_WR)
        response = HTTPResponse(connection)
        response.begin()
        return response.status, json.loads(response.read())


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"guest": "g1"}',
        b'{"guest": 1, "connection": {}}',
        b'{"guest": "g1", "connection": {}, "nonsense": 1}',
        b'{"guest": "g1", "connection": {}, "timeout": -1}',
        b'{"guest": "g1", "connection": {}, "timeout": 1e300}',
        b'{"guest": "g1", "connection": {}, "timeout": ' + b"9" * 400 + b"}",
        b'{"guest": "g\\u0000", "connection": {}}',
        b'{"guest": "g1", "connection": {"data": ["\\ud800"]}}',
        b'{"guest": "g1", "connection": {}, "level": "absolutely"}',
        b'{"guest": "g1", "connection": {}, "options": {"boot": 1.5}}',
        b'{"guest": "g1", "connection": {}, "progress": "x"}',
    ],
)
def test_bad_bodies_are_400(rig: Rig, socket: Path, body: bytes) -> None:
    status, told, _ = post(socket, "/v1/attach", body)
    assert (status, told["error"]) == (400, "refused"), told
    assert rig.records.all() == []


def test_a_body_that_is_too_large_is_told_so(socket: Path) -> None:
    body = b" " * (server_module.MAX_BODY_BYTES + 1)
    assert post(socket, "/v1/attach", body)[0] == 413


def test_the_families_have_their_statuses(rig: Rig, socket: Path) -> None:
    def attach(**more: Any) -> int:
        return post(socket, "/v1/attach", json.dumps({**ATTACH, **more}).encode())[0]

    assert attach(guest="nobody") == 404
    assert attach(connection={"driver_volume_type": "nope"}) == 422
    rig.world.mounts["/toy/s1"] = "theirs"
    assert attach() == 409
    rig.world.mounts.clear()
    rig.world.blind = True
    assert attach(timeout=0) == 503


def test_a_defect_is_500_and_says_no_more_than_where(
    rig: Rig, app: App, socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def list(self) -> None:
            raise KeyError(SECRET)

    app._facade = cast(Api, SimpleNamespace(attachments=Broken()))
    with caplog.at_level(logging.DEBUG, "moorline"):
        status, told, _ = get(socket, "/v1/list")
    assert (status, told["error"], told["code"]) == (500, "defect", 1)
    assert "KeyError" in caplog.text
    assert "in list" in caplog.text
    assert SECRET not in caplog.text + json.dumps(told)


# --- time -------------------------------------------------------------------------


@pytest.mark.parametrize("drip", [b"", b"GET /v1/list HTTP/1.0\r\nA: "])
def test_a_slow_sender_is_cut(app: App, tmp_path: Path, drip: bytes) -> None:
    server = Server(listen(tmp_path / "s", 0o600, None), app, read_deadline=0.4)
    server.start()
    try:
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(tmp_path / "s"))
            connection.sendall(drip)
            with pytest.raises(BrokenPipeError):
                _drip(connection)
    finally:
        server.stop()


def _drip(connection: sockets.socket) -> None:
    """Say a little, often enough that nobody can be thought to have gone; for ever."""
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def test_one_user_has_so_many_connections(socket: Path) -> None:
    held = []
    try:
        for _ in range(server_module.CONNECTIONS_PER_USER):
            held.append(sockets.socket(sockets.AF_UNIX))
            held[-1].connect(str(socket))
        time.sleep(0.3)
        with pytest.raises(Busy, match="this user has 128 requests under way"):
            Client(socket, timeout=5).attachments.attach("g1", ATTACH["connection"])
    finally:
        for each in held:
            each.close()
    until(lambda: get(socket, "/v1/list")[0] == 200)


def test_what_nobody_waits_for_any_more_is_not_begun(rig: Rig, app: App, tmp_path: Path) -> None:
    """Whoever gave up may have asked for the opposite since, and been answered."""
    path = tmp_path / "s"
    server = Server(listen(path, 0o600, None), app)  # it does not accept yet, as one that hangs
    with pytest.raises(Uncertain):
        Client(path, longest=0.2).attachments.attach("g1", ATTACH["connection"])
    server.start()
    try:
        body = b"POST /v1/sweep HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"
        with sockets.socket(sockets.AF_UNIX) as half_closed:
            half_closed.connect(str(path))
            half_closed.sendall(body)
            half_closed.shutdown(sockets.SHUT_WR)  # it still reads
            assert half_closed.recv(1 << 16).startswith(b"HTTP/1.0 200 ")
        assert server.drain(30)
        assert rig.records.all() == []
    finally:
        server.stop()


def test_looks_go_on_while_changes_wait(rig: Rig, client: Client) -> None:
    rig.world.hung.add("s1")
    threads = [
        threading.Thread(target=_swallow, args=(client, f"v{number}")) for number in range(40)
    ]
    for thread in threads:
        thread.start()
    for _ in range(10):
        client.attachments.list()
    assert all(thread.is_alive() for thread in threads)
    rig.world.hung.clear()
    for thread in threads:
        thread.join()
    assert {view.seen for view in client.attachments.list()} == {"attached"}


def _swallow(client: Client, name: str) -> None:
    data = {"share": "s1", "name": name, "volume_id": name}
    client.attachments.attach("g1", {"driver_volume_type": "toy", "data": data}, timeout=600)


# --- sockets ----------------------------------------------------------------------


def test_a_socket_is_for_those_it_is_for(tmp_path: Path) -> None:
    for mode in (0o660, 0o666):
        path = tmp_path / f"s{mode}"
        with listen(path, mode, None):
            assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_stale_socket_is_replaced_and_a_served_one_is_not(socket: Path, tmp_path: Path) -> None:
    with pytest.raises(Busy, match="another agent"):
        listen(socket, 0o600, None)
    stale = tmp_path / "stale"
    listen(stale, 0o600, None).close()
    listen(stale, 0o600, None).close()
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(Refused, match="is no socket"):
        listen(file, 0o600, None)
    assert file.read_text() == "precious"
    with pytest.raises(Refused, match="too long"):
        listen(tmp_path / ("x" * 150), 0o600, None)
    with pytest.raises(Refused):
        listen(tmp_path / "no" / "dir", 0o600, None)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "192.0.2.1:9", ":9", "9877", "localhost:9", "127.0.0.1:x", "[::]:1"]
)
def test_metrics_stay_on_this_host(address: str) -> None:
    with pytest.raises(Refused, match="no loopback address"):
        loopback(address)


def test_over_tcp_there_is_nothing_but_the_pages(rig: Rig) -> None:
    pages = {"/metrics": ("text/plain", lambda: b"up 1\n")}
    app = App(rig.owner(), Rights(None, anyone_may_look=True), {}, pages, only_pages=True)
    listening = loopback("127.0.0.1:0")
    server = Server(listening, app)
    server.start()
    try:
        for target, status in (("/metrics", 200), ("/v1/list", 404), ("/openapi.json", 404)):
            with sockets.create_connection(listening.getsockname()) as connection:
                connection.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
                response = HTTPResponse(connection)
                response.begin()
                assert response.status == status
    finally:
        server.stop()


# --- the log ----------------------------------------------------------------------


def test_a_request_has_an_id_in_answer_and_log(
    socket: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(Json().format(record))

    log = logging.getLogger("moorline")
    handler = Keep()
    log.addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG, "moorline"):
            headers = post(socket, "/v1/sweep", b"{}", "X-Request-Id: req-4f1c\r\n")[2]
            assert headers["X-Request-Id"] == "req-4f1c"
            made = post(socket, "/v1/sweep", b"{}", "X-Request-Id: a b\r\n")[2]["X-Request-Id"]
            assert len(made) == 32
            get(socket, f"/v1/show?volume={SECRET}")
            get(socket, f"/{SECRET}")
            post(socket, "/v1/attach", f'{{"{SECRET}": 1}}'.encode())
            ask(socket, f"{SECRET} {SECRET}\r\n\r\n".encode())
            # Each line is written once the answer is out; the last request has none, as it is none.
            until(lambda: len(lines) == 5, deadline=20)
    finally:
        log.removeHandler(handler)
    told = {line["request"]: line for line in map(json.loads, lines)}
    assert told.keys() > {"req-4f1c", made}
    first = told["req-4f1c"]
    assert (first["operation"], first["outcome"]) == ("sweep", "done")
    assert first["uid"] == os.geteuid()
    assert SECRET not in "".join(lines) + caplog.text


def test_a_log_line_for_people() -> None:
    record = logging.makeLogRecord({"name": "moorline", "levelname": "INFO", "msg": "well"})
    assert Text().format(record).endswith("INFO moorline well")
    with request_id("4f1c"):
        assert Text().format(record).endswith("INFO moorline [4f1c] well")
        assert json.loads(Json().format(record))["request"] == "4f1c"
