"""An agent's socket, and another user who asks by it."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorline.local_api.app import App
from moorline.local_api.peer import Rights
from moorline.local_api.server import Server, listen

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY, OURS = 65534, 54321


@contextmanager
def reachable(app: App, rights: Rights) -> Iterator[Path]:
    """A socket where others can get at it."""
    app.rights = rights
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "agent.sock"
        server = Server(listen(path, rights.mode, rights.group), app)
        server.start()
        yield path
        server.stop()


def as_nobody(groups: list[int], do: Callable[[], object]) -> str:
    """What *do* comes to when user nobody does it: the error's class, or the result's."""
    here, there = multiprocessing.Pipe()

    def child() -> None:
        os.setgroups(groups)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            there.send(type(do()).__name__)
        except Exception as e:  # noqa: BLE001 - whatever it is is the answer
            there.send(type(e).__name__)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert here.poll(20)
    process.join()
    return str(here.recv())
