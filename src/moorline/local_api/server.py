"""HTTP on a listening socket, with bounds of size, time, and connections for each user.

It is the standard library's server, because a request may take as long as a mount:
each has a thread of its own, so none waits for a worker, and a user with
too many is turned away. HTTP/1.0: one request for each connection.
"""

from __future__ import annotations

import io
import os
import re
import select
import socket
import socketserver
import stat
import threading
import uuid
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from moorline.deadline import Deadline
from moorline.errors import Busy, Denied, MoorlineError, Refused, Unavailable
from moorline.local_api import http_errors
from moorline.local_api.app import Answer, Answering, BadRequest, Request, bad, json_bytes
from moorline.local_api.peer import Peer, peer
from moorline.local_api.request_id import request_id
from moorline.local_api.wire import MAX_BODY_BYTES, STREAM

READ_DEADLINE_SECONDS = 10.0
WRITE_DEADLINE_SECONDS = 10.0
"""Seconds in which each part of an answer must be taken."""
CONNECTIONS_PER_USER = 128
"""Connections that one user may have at once."""
NOBODY = Peer(pid=0, uid=-1, groups=frozenset())
"""Who asks over TCP."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def listen(path: Path, mode: int, group: int | None) -> socket.socket:
    """Listen on a Unix socket that only those whom *mode* and *group* let in can open.

    A socket file that nobody serves is replaced. Raises Busy (somebody serves
    it), Refused (the path is too long, or something else is there), Denied.
    """
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        refuse_served(path)
        path.unlink(missing_ok=True)  # left by an agent that was killed
        found.bind(str(path))  # none can connect before listen()
        if group is not None:
            with suppress(PermissionError):  # not our group: then only we may use it
                os.chown(path, -1, group)
        path.chmod(mode)
        found.listen(CONNECTIONS_PER_USER)
    except PermissionError as e:
        found.close()
        raise Denied(f"the socket {path} cannot be made: {e.strerror}") from e
    except OSError as e:
        found.close()
        raise Refused(f"the socket {path} cannot be made: {e.strerror or e}") from e
    except MoorlineError:
        found.close()
        raise
    return found


def refuse_served(path: Path) -> None:
    """Raise Busy if somebody serves *path*, Refused if it is no socket; Denied."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise Refused(f"{path} is there and is no socket", hint="give another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except PermissionError as e:
            raise Denied(f"{path} is another user's") from e
        except TimeoutError:
            pass
    raise Busy(f"another agent serves {path}", hint="stop it, or give another --socket")


def loopback_address(address: str) -> tuple[str, int]:
    """Read ``127.0.0.1:PORT`` or ``[::1]:PORT``. Raises Refused."""
    host, _, port = address.rpartition(":")
    if (
        host not in ("127.0.0.1", "[::1]")
        or not re.fullmatch("[0-9]{1,5}", port)
        or int(port) > 65535
    ):
        raise Refused(f"{address} is no loopback address", hint="127.0.0.1:9877, or [::1]:9877")
    return host.strip("[]"), int(port)


def loopback(address: str) -> socket.socket:
    """Listen on ``127.0.0.1:PORT`` or ``[::1]:PORT``. Raises Refused, Unavailable."""
    host, port = loopback_address(address)
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as e:
        raise Unavailable(f"{address} cannot be listened on: {e.strerror}") from e


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves *app* on a socket that listens already, in a thread of its own.

    *read_deadline*: seconds in which a whole request must have come.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        listening: socket.socket,
        app: Answering,
        *,
        read_deadline: float = READ_DEADLINE_SECONDS,
    ) -> None:
        super().__init__(listening.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.app = app
        self.read_deadline = read_deadline
        self._changed = threading.Condition()
        self._connections: Counter[int] = Counter()
        self._thread = threading.Thread(target=self.serve_forever, name="server", daemon=True)

    def start(self) -> None:
        """Accept connections from now on."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Accept no more; requests that are under way go on."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # or it would take half a second
        self.shutdown()
        self.server_close()

    def drain(self, patience: float) -> bool:
        """Wait until the last answer is given; False if *patience* seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections.total(), patience)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, unless its user has too many."""
        client = peer(request) if request.family == socket.AF_UNIX else NOBODY
        with self._changed:
            self._connections[client.uid] += 1
            crowded = self._connections[client.uid] > CONNECTIONS_PER_USER
        try:
            if crowded:
                _turn_away(request)
                self.shutdown_request(request)
            else:
                super().process_request_thread(request, client)
        finally:
            with self._changed:
                self._connections[client.uid] -= 1
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client went away or was cut off: there is nobody to tell."""


def _is_gone(connection: socket.socket) -> bool:
    """Whether the client gave up before anything was begun.

    Its request is obsolete then: it may have asked for the opposite since, and that may have
    been done already.
    """
    looked = select.poll()
    looked.register(connection, 0)  # a hang-up is reported always; half-closed is none
    return any(told & select.POLLHUP for _, told in looked.poll(0))


def _turn_away(connection: socket.socket) -> None:
    """Answer busy without reading anything, so that the client knows that nothing was done."""
    error = Busy(f"this user has {CONNECTIONS_PER_USER} requests under way", hint="try again later")
    told = json_bytes(http_errors.to_problem(error))
    head = (
        f"HTTP/1.0 {http_errors.status(error)} Busy\r\nContent-Type: {http_errors.KIND}\r\n"
        f"Content-Length: {len(told)}\r\n\r\n"
    )
    connection.settimeout(1)
    with suppress(OSError):
        connection.sendall(head.encode() + told)


class _Patient(io.RawIOBase):
    """Reads a connection until a deadline for the whole request, however slowly it is sent."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._deadline = Deadline(seconds)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline.left()
        if not left:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One request. *client_address* is who asks."""

    server: Server
    client_address: Any

    def setup(self) -> None:
        self.connection = self.request
        self.rfile = io.BufferedReader(_Patient(self.connection, self.server.read_deadline))
        self.wfile: Any = _Writer(self.connection)

    def finish(self) -> None:
        self.rfile.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the app logs, and never the request, which may contain a password."""

    def version_string(self) -> str:
        return "moorline"

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a malformed request, without repeating it as the library would."""
        told = bad(BadRequest(code, "this is no request that the agent understands"))
        self.close_connection = True
        status = 400 if code >= 500 else code  # the request is wrong, not the server
        self._send(Answer(status, iter([json_bytes(told)]), http_errors.KIND), "")

    def _handle(self) -> None:
        given = self.headers.get("X-Request-Id", "")
        id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        with request_id(id):
            try:
                body = self._body()
            except BadRequest as e:
                answer = Answer(e.status, iter([json_bytes(bad(e))]), http_errors.KIND)
            else:
                if _is_gone(self.connection):
                    return
                streams = STREAM in self.headers.get("Accept", "")
                host = ", ".join(self.headers.get_all("Host", []))
                asked = Request(self.command, self.path, body, self.client_address, streams, host)
                answer = self.server.app.answer(asked)
            self._send(answer, id)

    def __getattr__(self, name: str) -> Any:
        """Handles every HTTP method: the app says which one a path takes."""
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _body(self) -> bytes:
        if "Transfer-Encoding" in self.headers:
            raise BadRequest(411, "the request must say its Content-Length")
        said = self.headers.get("Content-Length", "0")
        if not (said.isascii() and said.isdigit() and len(said) < 16):
            raise BadRequest(400, "the Content-Length is no number")
        length = int(said)
        if length > MAX_BODY_BYTES:
            # Read the rest of the request, or the client would never see the answer.
            with suppress(OSError):
                self.rfile.read(min(length, 16 * MAX_BODY_BYTES))
            raise BadRequest(413, f"a request may have {MAX_BODY_BYTES} bytes")
        try:
            body = self.rfile.read(length)
        except OSError:
            raise BadRequest(408, "the request did not come in time") from None
        if len(body) < length:
            raise BadRequest(400, "the request is shorter than its Content-Length")
        return body

    def _send(self, answer: Answer, id: str) -> None:
        self.request_version = self.protocol_version  # to HTTP/0.9 the library sends no headers
        self.send_response_only(answer.status)
        self.send_header("Content-Type", answer.kind)
        if id:
            self.send_header("X-Request-Id", id)
        if answer.status == 405:
            self.send_header("Allow", answer.allow)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.command == "HEAD":
            self.end_headers()
            for _ in answer.body:
                pass
            return
        self.end_headers()
        for part in answer.body:
            self.wfile.write(part)


class _Writer(io.RawIOBase):
    """Writes to a connection, each part with a deadline of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._connection.settimeout(WRITE_DEADLINE_SECONDS)
        self._connection.sendall(data)
        return len(data)
