"""Sends a request to the agent's Unix socket and reads the answer: as much HTTP as is needed.

The library's client reads headers with the parser for e-mail, which takes longer to load than
most commands take to run. Each command loads this module, so types are imported for mypy
alone.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress

from moorline.deadline import Deadline, callers_patience
from moorline.errors import Denied, Unavailable, Uncertain
from moorline.local_api import http_errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedReader
    from typing import Any

STREAM = "application/x-ndjson"
"""An answer in lines: objects with *progress*, and at last one with *result* or *problem*."""
MAX_BODY_BYTES = 256 << 10
"""Bytes of a request's body; no connection that the store takes is larger."""
TIMEOUT_SECONDS = 60.0
"""Seconds to wait for a sign of life, on top of a call's own timeout."""
ABOUT_TIMEOUT_SECONDS = 10.0
"""Seconds that an agent may take to say what it is, for which it looks at nothing."""
_MIN_ABOUT_SECONDS = 1.0
_MAX_LINE_BYTES = 65536
_MAX_HEADERS = 100


class Silent(Unavailable):
    """An agent has its socket open and does not answer: it is stopped, or there are too many."""


class Unanswered(Exception):
    """The agent was reached, and it is unknown what became of the request."""


def nobody(_: str) -> None:
    """A progress callback that does nothing."""


def about(path: str, patience: float = ABOUT_TIMEOUT_SECONDS) -> dict[str, Any]:
    """What the agent at *path* says of itself. Raises Unavailable, Silent, Denied.

    *patience*: seconds; less, if the caller waits less long.
    """
    patience = min(patience, callers_patience(_MIN_ABOUT_SECONDS))
    try:
        answer = exchange(path, "GET", "/v1/about", None, patience=patience)
        if not isinstance(answer, dict):
            raise Unanswered("it does not say what it is")
    except Unanswered as e:
        if isinstance(e.__cause__, TimeoutError):
            raise _silent(path) from e
        raise Unavailable(f"the agent at {path} did not answer: {e}") from e
    return answer


def _silent(path: str) -> Silent:
    return Silent(
        f"the agent at {path} does not answer",
        hint="systemctl status moorline-agent: is it stopped, or busy?",
    )


def lost(path: str, error: Unanswered, *, changes: bool) -> Uncertain | Unavailable:
    """The error of a call without an answer. *changes*: whether it may have changed something."""
    family = Uncertain if changes else Unavailable
    return family(
        f"the agent at {path} did not answer to the end: {error}",
        hint="moorline list tells what is wanted now",
    )


def exchange(
    path: str,
    method: str,
    target: str,
    body: bytes | None,
    *,
    patience: float,
    longest: float = float("inf"),
    progress: Callable[[str], None] = nobody,
) -> Any:
    """Ask the agent at *path*; return the result that it tells.

    *patience*: seconds to wait for each sign of life; *longest*: in all. Raises
    Unavailable (nobody answers there), Denied, Unanswered, and the error that the agent tells.
    """
    with _Connection(path, patience, longest) as connection:
        try:
            with suppress(BrokenPipeError):  # it may have answered before all was sent
                connection.send(method, target, body)
            answer, status = connection.receive(progress)
        except (OSError, ValueError, RecursionError) as e:
            raise Unanswered(str(e) or type(e).__name__) from e
    if status == 200:
        return answer
    if not isinstance(answer, dict):
        raise Unanswered(f"an answer of status {status} without a word")
    raise http_errors.from_problem(answer)


class _Connection:
    def __init__(self, path: str, patience: float, longest: float) -> None:
        self._patience = patience
        self._deadline = Deadline(longest)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bound()
            self._socket.connect(path)
        except PermissionError as e:
            self._socket.close()
            raise Denied(
                f"the agent's socket {path} cannot be opened: {e.strerror}",
                hint="run as root or as a member of the agent's group, or give --state-dir",
            ) from e
        except (BlockingIOError, TimeoutError) as e:  # as many wait there as may
            self._socket.close()
            raise _silent(path) from e
        except OSError as e:
            self._socket.close()
            raise Unavailable(
                f"no agent answers at {path}: {e.strerror or e}", hint="moorline agent"
            ) from e

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, method: str, target: str, body: bytes | None) -> None:
        head = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Accept: {STREAM}"]
        if body is not None:
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self._socket.sendall("\r\n".join([*head, "", ""]).encode("ascii") + (body or b""))

    def receive(self, progress: Callable[[str], None]) -> tuple[Any, int]:
        """The result and the status. Raises what :func:`exchange` translates."""
        with self._socket.makefile("rb") as stream:
            self._bound()
            status, kind, length = _head(stream)
            if kind == STREAM:
                return self._last_line(stream, progress), 200
            # Not a byte more: a server that refuses a request unread resets the connection.
            return json.loads(stream.read(length)), status

    def _last_line(self, stream: BufferedReader, progress: Callable[[str], None]) -> Any:
        """Tell of the progress, and return the result. Raises the error that it ended in."""
        while line := stream.readline():
            told = json.loads(line)
            if not isinstance(told, dict):
                break
            if "progress" in told:
                progress(told["progress"])
            elif isinstance(told.get("problem"), dict):
                raise http_errors.from_problem(told["problem"])
            elif "result" in told:
                return told["result"]
            self._bound()
        raise ValueError("the connection ended")

    def _bound(self) -> None:
        """Bound the next wait by what is left. Raises TimeoutError if nothing is."""
        left = self._deadline.left()
        if not left:
            raise TimeoutError("timed out")
        self._socket.settimeout(min(self._patience, left))


def _head(stream: BufferedReader) -> tuple[int, str, int | None]:
    """The status, and the kind and length of what follows (None: to the end of the connection).

    Raises ValueError: this is no HTTP.
    """
    version, _, rest = _line(stream).partition(b" ")
    if not version.startswith(b"HTTP/"):
        raise ValueError("what answers there is no agent")
    status, kind, length = int(rest[:3]), "", None
    for _ in range(_MAX_HEADERS):
        line = _line(stream)
        if not line.strip():
            return status, kind, length
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            kind = value.partition(b";")[0].strip().lower().decode("latin-1")
        elif name.strip().lower() == b"content-length":
            length = int(value)
    raise ValueError("the answer has too many headers")


def _line(stream: BufferedReader) -> bytes:
    line = stream.readline(_MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise ValueError("the answer ends in its headers")
    return line
