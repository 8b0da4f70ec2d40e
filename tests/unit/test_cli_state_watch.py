"""A state directory that hangs after the first look: the command ends all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from moorline.cli import agent_socket, typed_files
from moorline.cli.commands import main
from moorline.cli.state_watch import StateWatch
from moorline.errors import Unavailable

_COMMAND = """
import os, sys, threading
from functools import partial
from moorline.cli import state_watch, typed_files
from moorline.cli.commands import main
from moorline.stores import sqlite

never, statvfs = threading.Event(), os.statvfs
hangs = threading.Event()

def look(path):
    if hangs.is_set():
        never.wait()
    return statvfs(path)

class Store:
    def __init__(self, *_, **__):
        print("opened", flush=True)
        hangs.set()
        never.wait()

os.statvfs = look
sqlite.SqliteStore = Store
state_watch._EVERY_SECONDS = 0.01
typed_files.answered = partial(typed_files.answered, patience=0.05)
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ("list --output json", 11, "unavailable"),
        ("state show --output json", 11, "unavailable"),
        ("state rebind --output json", 6, "uncertain"),
        ("attach g1 /srv/a.raw --format raw --output json", 6, "uncertain"),
    ],
)
def test_what_hangs_later_is_given_up(tmp_path: Path, words: str, code: int, error: str) -> None:
    """Changed may be something only by a command that changes."""
    (tmp_path / "moorline.db").touch()
    asked = [sys.executable, "-c", _COMMAND, *words.split(), "--state-dir", str(tmp_path)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("opened\n", code), done.stderr
    told = json.loads(done.stderr)
    assert (told["error"], f"{tmp_path} did not answer" in told["message"]) == (error, True)


def test_a_watch_ends_with_its_command(tmp_path: Path) -> None:
    told: list[str] = []
    watch = StateWatch(lambda error: told.append(str(error)) or 0)  # type: ignore[func-returns-value]
    before = threading.active_count()
    watch.begin(str(tmp_path), changes=False)
    watch.begin(str(tmp_path), changes=True)
    assert threading.active_count() == before + 1
    watch.end()
    (mine,) = (each for each in threading.enumerate() if each.name.endswith("(_watch)"))
    mine.join(60)
    assert (mine.is_alive(), told) == (False, [])


# --- where the configuration is looked for ---


@pytest.fixture
def hung_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A home directory that does not answer until the test is over."""
    never, lexists = threading.Event(), os.path.lexists

    def look(path: str) -> bool:
        if str(path).startswith("/srv/hung"):
            never.wait()
        return lexists(path)

    monkeypatch.setattr(os.path, "lexists", look)
    monkeypatch.setattr(typed_files, "answered", partial(typed_files.answered, patience=0.05))
    monkeypatch.setenv("HOME", "/srv/hung/home")
    yield "/srv/hung/home"
    never.set()


@pytest.mark.parametrize("words", ["list -o json", "config show -o json", "config check -o json"])
def test_a_home_directory_that_hangs_is_given_up(
    tmp_path: Path, hung_home: str, words: str
) -> None:
    done = CliRunner().invoke(main, [*words.split(), "--state-dir", str(tmp_path)])
    assert done.exit_code == 11
    told = json.loads(done.stderr)
    assert told["message"].startswith(f"the home directory {hung_home} did not answer within")


def test_nor_is_an_agent_looked_for_then(tmp_path: Path, hung_home: str) -> None:
    with pytest.raises(Unavailable, match=f"the home directory {hung_home} did not answer"):
        agent_socket.find(str(tmp_path))
