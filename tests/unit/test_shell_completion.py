"""What bash, zsh and fish make of `moorline completion`: TAB is typed in each."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

from moorline.cli.commands import main
from moorline.local_api.app import App
from moorline.local_api.peer import Rights
from moorline.local_api.server import Server, listen
from moorline.ports.api import Api
from moorline.ports.guest_results import GuestView
from tests.support.missing import missing
from tests.support.page_host import Told, view

ONE = "0a1b2c3d-0000-4000-8000-000000000001"
OTHER = "9f8e7d6c-0000-4000-8000-000000000002"
SHARE = "quobyte://reg1:7866,reg2/vm-disks"
VIEWS = [
    view(volume=ONE, device="vda", storage=f"{SHARE}/data.qcow2", label="web-team"),
    view(volume=OTHER, device="vdb", storage=f"{SHARE}/logs.raw", label="web-team"),
]
GUESTS = [GuestView("web01", "id-1", True), GuestView("db: old, 2", "id-2", False)]
LINES = {
    "supp": "support-bundle",
    "help wa": "wait",
    "start db": "db: old, 2",
    "detach web01 9f": OTHER,
    "list --share quobyte://r": SHARE,
    "list --share=quobyte://reg1:78": f"--share={SHARE}",
    "list --label web": "web-team",
    "attach web01 --format=qc": "--format=qcow2",
    "attach web01 --connection=da": "--connection=data.raw",
}
"""What is typed, and what its last word is then."""
SHELLS = {
    "bash": ("bash --norc --noprofile -i", ". ./script"),
    "zsh": ("zsh -f -i", "autoload -Uz compinit && compinit -u -d ./dump && . ./script"),
    "fish": ("fish --no-config -i", "source ./script"),
}
"""How each is started, and given the script."""
MOORLINE = """#!/bin/sh
if [ -n "$_MOORLINE_COMPLETE" ]; then exec {python} -m moorline.cli "$@"; fi
printf '%s\\0' "$@" >unfinished && mv unfinished words
"""
"""To be completed, it is Moorline; else it tells which words it was given."""
SECONDS = 60.0
"""Until a shell answers, on a machine that others use too."""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory with an agent that knows two guests and two volumes."""
    state = tmp_path / "state"
    state.mkdir()
    about = {"version": "1", "host": "kvm07", "hypervisor": "toy:///", "options": "d"}
    told = cast(Api, Told(VIEWS, GUESTS))
    app = App(told, Rights(None), {**about, "state_dir": str(state)}, {})
    server = Server(listen(state / "agent.sock", 0o600, None), app)
    server.start()
    yield state
    server.stop()
    assert app.stop(10)


class Shell:
    """A shell on a terminal."""

    def __init__(self, name: str, directory: Path, state: Path) -> None:
        self._directory = directory
        command, prepare = SHELLS[name]
        self._terminal, its = pty.openpty()
        self._seen = b""
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *command.split()],
            stdin=its,
            stdout=its,
            stderr=its,
            cwd=directory,
            env={
                "PATH": f"{directory}/bin:{os.environ['PATH']}",
                "HOME": str(directory),
                "TERM": "dumb",
                "LC_ALL": "C.UTF-8",
                "MOORLINE_STATE_DIR": str(state),
            },
        )
        os.close(its)
        self._type(f"{prepare}; echo REA''DY\r", lambda: b"READY\r" in self._seen)

    def tab(self, line: str) -> list[str]:
        """The words that *line* has once TAB was hit at its end."""
        words = self._directory / "words"
        self._type(f"{line}\t\r", words.exists)
        told = words.read_text().split("\0")[:-1]
        words.unlink()
        return told

    def end(self) -> None:
        os.close(self._terminal)
        self._process.kill()
        self._process.wait()

    def _type(self, keys: str, done: Callable[[], bool]) -> None:
        os.write(self._terminal, keys.encode())
        deadline = time.monotonic() + SECONDS
        while not done():
            if select.select([self._terminal], [], [], 0.05)[0]:
                self._seen += os.read(self._terminal, 4096)
            assert time.monotonic() < deadline, self._seen.decode(errors="replace")


@pytest.mark.parametrize("name", SHELLS)
def test_tab_completes_what_has_colons_commas_and_blanks(
    name: str, tmp_path: Path, state: Path
) -> None:
    if shutil.which(name) is None:
        missing(f"needs {name}")
    (tmp_path / "bin").mkdir()
    ours = tmp_path / "bin/moorline"
    ours.write_text(MOORLINE.format(python=sys.executable))
    ours.chmod(0o755)
    (tmp_path / "data.raw").touch()
    script = CliRunner().invoke(main, ["completion", name])
    (tmp_path / "script").write_text(script.stdout)
    shell = Shell(name, tmp_path, state)
    try:
        completed = {line: shell.tab(f"moorline {line}") for line in LINES}
    finally:
        shell.end()
    assert completed == {line: [*line.split()[:-1], last] for line, last in LINES.items()}
