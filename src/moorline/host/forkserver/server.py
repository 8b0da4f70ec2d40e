"""The process that keeps a module imported, and calls its ``answer`` in forks of itself.

Started with a socket (``SOCK_SEQPACKET``) as its standard input and the module's
name. Each packet is a deadline in seconds, and bears a socket of its own: the
question comes in and the answer goes out there, between the caller and the fork
alone, so nothing that one call does holds up another. A fork that misses its
deadline is killed with all that it started. When the caller is gone this ends
with the last call: what was begun is not cut off, and not kept on either.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from moorline.deadline import Deadline
from moorline.errors import MoorlineError
from moorline.host.linux import fork
from moorline.host.process_name import call_self

READY = b"ready"
"""The first packet that it sends; anything else says why the module cannot be imported."""
_POLL_SECONDS = 0.1

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def main(module: str) -> None:
    """Import *module* and serve until the other end of standard input is closed."""
    call_self("moorline-call")
    control = socket.socket(fileno=0)
    try:
        answer: Answer = importlib.import_module(module).answer
    except ImportError as e:
        control.send(str(e).encode()[:512])
        return
    control.send(READY)
    _serve(control, answer)


def _serve(control: socket.socket, answer: Answer) -> None:
    running: dict[int, Deadline] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    listening = True
    while listening or running:
        patience = _POLL_SECONDS * 1000 if running else None
        if listening and poll.poll(patience):
            packet, files, _, _ = socket.recv_fds(control, 64, 2, socket.MSG_CMSG_CLOEXEC)
            if packet:
                running[_call(answer, *files)] = Deadline(float(packet))
            else:
                listening = False
        elif not listening:
            time.sleep(_POLL_SECONDS)
        _reap(running)


def _call(answer: Answer, file: int, *kept: int) -> int:
    def serve() -> None:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        with socket.socket(fileno=file) as call, call.makefile("rwb") as stream:
            said = json.dumps(_answered(answer, stream.readline())).encode()
            _close(kept)  # exit before the answer is read, so that its reader finds the hold free
            stream.write(said + b"\n")

    pid = fork(serve)
    _close((file, *kept))
    return pid


def _close(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


def _answered(answer: Answer, question: bytes) -> Mapping[str, Any]:
    try:
        return {"answer": dict(answer(json.loads(question)))}
    except MoorlineError as e:
        return {"error": e.kind, "message": e.message, "hint": e.hint}


def _reap(running: dict[int, Deadline]) -> None:
    """Forget the forks that have ended, and kill those whose deadline is over."""
    for pid, deadline in list(running.items()):
        if deadline.over():
            with suppress(ProcessLookupError):  # it is not reaped yet, so the group is its own
                os.killpg(pid, signal.SIGKILL)
        if os.waitpid(pid, os.WNOHANG)[0]:
            del running[pid]


if __name__ == "__main__":
    main(sys.argv[1])
