"""Runs commands in a virtual machine by QEMU's guest agent, whose channel is a socket here.

The protocol is QEMU's: docs/interop/qemu-ga-ref. Only one client is heard at a time.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_SENTINEL = b"\xff"
"""Before it, what came is an answer to somebody else."""
_POLL_SECONDS = 0.1
_POLL_AT_MOST = 3.0
GRACE_SECONDS = 60.0
"""Of a command's deadline, in which the agent answers however busy the machine is."""


class Silent(Exception):
    """The agent did not answer in time, or is not there."""


class GuestAgent:
    """The agent at *path*."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids = itertools.count(int.from_bytes(os.urandom(3), "big") << 16)

    def ping(self, deadline: float) -> None:
        """Return when it answers. Raises Silent."""
        with self._talk(deadline) as ask:
            ask("guest-ping")

    def run(
        self, command: list[str], environment: dict[str, str], deadline: float
    ) -> subprocess.CompletedProcess[str]:
        """Run *command*. Raises Silent; TimeoutExpired, whereupon it is killed."""
        began = time.monotonic()
        end = began + deadline
        env = [f"{key}={value}" for key, value in environment.items()]
        # A session of its own, so that all of it can be killed.
        given = {"path": "/usr/bin/setsid", "arg": command, "env": env}
        with self._talk(deadline + GRACE_SECONDS) as ask:
            pid = ask("guest-exec", **given, **{"capture-output": True})["pid"]
        while not (told := self._told(pid, end))["exited"]:
            if time.monotonic() > end:
                with self._talk(GRACE_SECONDS) as ask:
                    ask("guest-exec", path="/bin/kill", arg=["-9", "--", f"-{pid}"])
                raise subprocess.TimeoutExpired(command, deadline)
            # Each such question is a line of the machine's journal: asked all the time, it took
            # a third of an emulated machine's time.
            time.sleep(min(max((time.monotonic() - began) / 8, _POLL_SECONDS), _POLL_AT_MOST))
        out, err = (
            base64.b64decode(told.get(name, "")).decode(errors="replace")
            for name in ("out-data", "err-data")
        )
        code = told.get("exitcode", -told.get("signal", 0))
        return subprocess.CompletedProcess(command, code, out, err)

    def _told(self, pid: int, end: float) -> Any:
        """What has become of a command; others are heard before the next such question."""
        with self._talk(max(end - time.monotonic(), 0) + GRACE_SECONDS) as ask:
            return ask("guest-exec-status", pid=pid)

    @contextlib.contextmanager
    def _talk(self, deadline: float) -> Iterator[Callable[..., Any]]:
        """What asks the agent a command. Raises Silent; RuntimeError: the agent refuses."""
        end = time.monotonic() + deadline

        def ask(command: str, **arguments: Any) -> Any:
            _send(channel, command, arguments)
            answer = _line(channel, end)
            if "return" not in answer:
                raise RuntimeError(f"{command}: {answer}")
            return answer["return"]

        try:
            with socket.socket(socket.AF_UNIX) as channel:
                channel.settimeout(deadline)
                _connect(channel, self._path, end)
                self._synchronize(channel, end)
                yield ask
        except OSError as e:
            raise Silent(f"{self._path}: {e}") from e

    def _synchronize(self, channel: socket.socket, end: float) -> None:
        id = next(self._ids)
        channel.sendall(_SENTINEL)
        _send(channel, "guest-sync-delimited", {"id": id})
        while True:
            with contextlib.suppress(ValueError):  # half a line, meant for somebody before us
                if _line(channel, end).get("return") == id:
                    return


def _connect(channel: socket.socket, path: Path, end: float) -> None:
    """Wait until QEMU, which may be busy, has taken those who came before."""
    with reachable(path) as address:
        while True:
            try:
                return channel.connect(address)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """An address of the socket at *path*: a path in an address has 107 bytes at most."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _send(channel: socket.socket, command: str, arguments: dict[str, Any]) -> None:
    question = {"execute": command, "arguments": arguments}
    channel.sendall(json.dumps(question).encode() + b"\n")


def _line(channel: socket.socket, end: float) -> Any:
    """The next answer. Raises ValueError: it is none."""
    line = b""
    while not line.endswith(b"\n"):
        channel.settimeout(max(end - time.monotonic(), 0.001))
        if not (byte := channel.recv(1)):
            raise ConnectionError("closed")
        line += byte
    return json.loads(line.lstrip(_SENTINEL))
