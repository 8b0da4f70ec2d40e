"""Files that a person names: no pipe and no share that hangs holds a command up for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from moorline import agent_location
from moorline.agent_location import AgentLocation
from moorline.cli import agent_socket, fast_path, typed_files
from moorline.cli.commands import main
from moorline.cli.connection import read_connection
from moorline.cli.hypervisor_options import typed
from moorline.cli.name_completion import FilePath
from moorline.errors import Refused, Unavailable
from moorline.hypervisors.libvirt.launch_options import LAUNCHING
from moorline.hypervisors.vsphere.launch_options import LAUNCHING as ON_VSPHERE


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def _parameters(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Parameter]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _parameters(command, f"{name} ")
        yield from ((before + name, each) for each in command.params)


def test_click_itself_looks_at_no_file_that_is_typed() -> None:
    declared = [each for its in (LAUNCHING, ON_VSPHERE) for each in typed(its.options)]
    everything = [*_parameters(main), *(("launch", each) for each in declared)]
    paths = [(name, each) for name, each in everything if isinstance(each.type, click.Path)]
    assert len(paths) > 10
    assert not [(name, each.name) for name, each in paths if not isinstance(each.type, FilePath)]


def test_a_pipe_that_nobody_writes_to_is_given_up(pipe: Path) -> None:
    with pytest.raises(Unavailable, match="did not answer within"):
        typed_files.read(str(pipe), 100, patience=0.05)


def test_what_hangs_is_given_up(tmp_path: Path) -> None:
    never = threading.Event()
    with pytest.raises(Unavailable, match="/srv/hung did not answer"):
        typed_files.answered("/srv/hung", never.wait, patience=0.05)
    never.set()


def test_a_pipe_that_somebody_writes_to_slowly_is_read_to_its_end(pipe: Path) -> None:
    told = {"driver_volume_type": "local", "data": {"path": "/srv/a.raw"}}
    read = threading.Event()

    def write() -> None:
        with pipe.open("w") as stream:
            stream.write(json.dumps(told)[:10])
            stream.flush()
            read.wait(0.2)  # longer than the patience beneath
            stream.write(json.dumps(told)[10:])

    writer = threading.Thread(target=write)
    writer.start()
    assert typed_files.read(str(pipe), 1 << 10, patience=0.1) == json.dumps(told).encode()
    writer.join()


def test_what_hangs_keeps_no_process_from_ending() -> None:
    code = (
        "import threading; from moorline.cli.typed_files import answered;"
        "answered('/srv/hung', threading.Event().wait, 0.01)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, "did not answer" in done.stderr) == (1, True)


def test_what_is_too_large_is_seen_to_be(tmp_path: Path, pipe: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(100))
    writer = threading.Thread(target=lambda: pipe.write_bytes(bytes(100)))
    writer.start()
    assert [len(typed_files.read(str(path), 10)) for path in (file, pipe)] == [11, 11]
    writer.join()


@pytest.mark.parametrize("path", ["/no/such/file", "with\0zero"])
def test_what_is_not_there_is_neither_a_file_nor_a_pipe(path: str) -> None:
    assert not typed_files.is_regular(path)
    typed_files.refuse_pipe(path)


def test_as_errors_are_told_so_they_were(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"the connection .*/gone cannot be read: No such file"):
        read_connection(str(tmp_path / "gone"))
    with pytest.raises(Refused, match="cannot be read: Is a directory"):
        read_connection(str(tmp_path))
    assert not typed_files.is_regular(str(tmp_path))


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_configuration_is_no_pipe(pipe: Path, output: str) -> None:
    done = CliRunner().invoke(main, ["list", "--config-file", str(pipe), "--output", output])
    assert done.exit_code == 3
    assert "is a pipe" in (json.loads(done.stderr)["message"] if output == "json" else done.stderr)


# --- where the state is ---


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A directory whose share does not answer until the test is over."""
    never, statvfs = threading.Event(), os.statvfs

    def look(path: str) -> object:
        if path.startswith("/srv/hung"):
            never.wait()
        return statvfs(path)

    monkeypatch.setattr(os, "statvfs", look)
    monkeypatch.setattr(typed_files, "answered", partial(typed_files.answered, patience=0.05))
    yield "/srv/hung/state"
    never.set()


@pytest.mark.parametrize(
    "words", ["list", "attach g1 /srv/a.raw --format raw", "agent", "state show", "doctor"]
)
def test_a_configured_state_directory_that_hangs_is_given_up(
    tmp_path: Path, hung: str, words: str
) -> None:
    configured = tmp_path / "moorline.conf"
    configured.write_text(f"[moorline]\nstate_dir = {hung}\n")
    asked = [*words.split(), "--config-file", str(configured), "--output", "json"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 11
    assert json.loads(done.stderr)["message"].startswith(f"{hung} did not answer within")


def test_no_agent_is_looked_for_where_nothing_answers(
    monkeypatch: pytest.MonkeyPatch, hung: str
) -> None:
    there = AgentLocation(hung, f"{hung}/agent.sock", personal=False)
    monkeypatch.setattr(agent_location, "find", lambda _: there)
    with pytest.raises(Unavailable, match=f"{hung} did not answer"):
        agent_socket.find(None)


@pytest.mark.parametrize("path", ["x" * 300, "/srv/x\udcff", "loop/state"])
@pytest.mark.parametrize("words", ["list", "list -o json", "attach g1 /srv/a.raw --format raw"])
def test_what_can_be_no_state_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, path: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    asked = [*words.split(), "--state-dir", path]
    code = fast_path.run(asked)
    assert (CliRunner().invoke(main, asked).exit_code if code is None else code) == 3


def test_a_file_name_has_no_nul() -> None:
    """No shell can type one; a program that calls the command's function can."""
    for option in ("--config-file", "--state-dir"):
        done = CliRunner().invoke(main, ["list", option, "a\0b", "--output", "json"])
        assert (done.exit_code, json.loads(done.stderr)["error"]) == (2, "usage")
