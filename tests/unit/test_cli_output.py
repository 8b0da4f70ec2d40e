"""What a command does where its streams are full, closed, or nobody reads them any more."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from moorline.care.eventlog import EventLog
from moorline.cli.output import details, table
from tests.unit.test_cli import VIEW

TEST = "test:///default"
COMMAND = [str(Path(sys.executable).with_name("moorline"))]


def run(
    tmp_path: Path, words: str, streams: str = "", more: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **more,
        "MOORLINE_STATE_DIR": str(tmp_path),
        "MOORLINE_HYPERVISOR": TEST,
    }
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" {words} {streams}', *COMMAND],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_name_that_the_terminal_has_no_letters_for_is_told(tmp_path: Path) -> None:
    """Else what was done ends as a defect, and what is seen is not told."""
    image = tmp_path / "\xfc\u540d.raw"
    image.write_bytes(bytes(1 << 20))
    state = tmp_path / "state"
    attach = f"attach test {image} --format raw --level connected --volume vol-a"
    assert run(state, attach).returncode == 0
    EventLog(state).saw(str(image))
    ascii_ = {"PYTHONIOENCODING": "ascii"}
    posix = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}
    for words, how in (
        ("list", posix),
        ("list", ascii_),
        ("show vol-a", ascii_),
        ("events", posix),
    ):
        done = run(state, words, more=how)
        assert (done.returncode, done.stderr) == (0, "")
        assert r"\xfc" in done.stdout, done.stdout


HOSTILE = "\x1b]0;owned\x07\x9b2J\u202egnp.exe"
"""Titles the window, clears the screen, and turns the direction of writing."""


def test_what_others_name_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    EventLog(tmp_path).saw(HOSTILE, guest=HOSTILE, volume="v1")
    told = [run(tmp_path, "events"), run(tmp_path, f"show '{HOSTILE}'")]
    view = replace(VIEW, storage=f"/srv/{HOSTILE}", paused=HOSTILE, guest="a\nb  c")
    shown = [table([view]), table([view], wide=True), details(view), *map(str, told)]
    for text in (each.replace("\n", "") for each in shown):
        assert text.isprintable(), text
    assert "owned" in told[0].stdout
    assert "owned" in told[1].stderr
    assert len(table([view]).splitlines()) == 3  # a heading, a row, why it is paused


HELP = ["--help", "list -h", "state show --help", "--version", "completion bash", "agent --openapi"]


@pytest.mark.parametrize("words", ["list", "list -o json", "doctor", "events -o yaml", *HELP])
def test_a_result_that_cannot_be_printed_is_told_and_no_success(tmp_path: Path, words: str) -> None:
    done = run(tmp_path, words, ">/dev/full")
    assert done.returncode == 6
    assert "cannot be printed: No space left on device" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["list", *HELP])
def test_a_reader_who_has_seen_enough_is_no_defect(tmp_path: Path, words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, *words.split()],
        env={**os.environ, "MOORLINE_STATE_DIR": str(tmp_path), "MOORLINE_HYPERVISOR": TEST},
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_error_that_cannot_be_printed_keeps_its_code(tmp_path: Path) -> None:
    assert run(tmp_path, "nonsense", "2>/dev/full").returncode == 2
    assert run(tmp_path, "list --nonsense -o json", "2>/dev/full").returncode == 2
    assert run(tmp_path, "show nothing", "2>/dev/full").returncode == 4
    assert run(tmp_path, "show nothing", "2>&-").returncode == 4


def test_what_was_closed_before_we_began_is_let_be(tmp_path: Path) -> None:
    assert run(tmp_path, "list", ">&-").returncode == 0


def test_a_closed_standard_input_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "attach test --connection -", "<&-")
    assert (done.returncode, done.stdout) == (3, "")
    assert "standard input, which is closed" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "attach web01 -o json",
        "attach web01 --output=json --bogus",
        "-ojson list",
        "attach web01 -qo json",
        "attach web01 -qvojson",
        "attach web01 --output text --output json",
        "nonsense --output json",
        "list --timeout never -o json",
    ],
)
def test_wrong_usage_is_json_to_whoever_asked_for_json(tmp_path: Path, words: str) -> None:
    done = run(tmp_path, words)
    told = json.loads(done.stderr)
    assert done.returncode == told["code"] == 2
    assert told["error"] == "usage"
    assert set(told) == {"error", "code", "message", "hint", "volume", "guest"}
    assert "--help" in told["hint"]


def test_wrong_usage_is_text_to_people(tmp_path: Path) -> None:
    done = run(tmp_path, "explain v1 -- -o json")
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: moorline explain")


@pytest.mark.parametrize("content", [os.urandom(100_000), b"[moorline]\nverysecret\n"])
def test_what_is_no_configuration_is_not_printed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.conf").write_bytes(content)
    done = run(tmp_path, f"list --config-file {tmp_path}/odd.conf")
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr) < 300
    assert "verysecret" not in done.stderr


@pytest.mark.parametrize("words", ["disks -v", "disks --log-level debug", "doctor --verbose"])
def test_what_the_hypervisor_is_asked_is_told_on_request(tmp_path: Path, words: str) -> None:
    done = run(tmp_path, words)
    assert f"DEBUG moorline.hypervisors.libvirt.connection asks {TEST} about" in done.stderr
    assert "DEBUG" not in done.stdout
    assert "DEBUG" not in run(tmp_path, words.split()[0]).stderr


def test_a_level_that_leaves_it_out(tmp_path: Path) -> None:
    assert "DEBUG" not in run(tmp_path, "disks --log-level info").stderr
    assert run(tmp_path, "list --log-level loud").returncode == 2


@pytest.mark.parametrize(
    ("words", "is_told"),
    [(("-o", "json"), False), (("-o", "yaml"), False), ((), True), (("-o", "json", "-v"), True)],
)
def test_what_is_logged_is_not_in_the_way_of_programs(
    words: tuple[str, ...], is_told: bool
) -> None:
    """Whoever logs it, in whichever command: a library does, too."""
    code = """if True:
        import logging
        import click
        from moorline.cli.common import common
        from moorline.errors import Refused

        @click.command()
        @common
        def command(given):
            logging.getLogger("some.library").warning("by the way")
            raise Refused("it is refused")

        command()
    """
    argv = [sys.executable, "-c", code, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "by the way" in done.stderr) == (3, is_told), done.stderr


@pytest.mark.parametrize("words", ["list --watch", "events --follow"])
def test_who_looks_on_a_terminal_ends_it_when_he_likes(tmp_path: Path, words: str) -> None:
    """It is painted in one place, and Ctrl+C is no error that wants words."""
    EventLog(tmp_path).saw("it is seen")
    mine, its = pty.openpty()
    environment = {**os.environ, "MOORLINE_STATE_DIR": str(tmp_path), "MOORLINE_HYPERVISOR": TEST}
    looking = subprocess.Popen(
        [*COMMAND, *words.split()], env=environment, stdout=its, stderr=subprocess.PIPE
    )
    os.close(its)
    shown = b""
    is_seen = {"list --watch": rb"(\x1b\[H\x1b\[2J\d\d:\d\d:\d\d\r\nVOLUME [^\x1b]*){2}"}
    while not re.search(is_seen.get(words, b"it is seen"), shown):
        shown += os.read(mine, 4096)
    looking.send_signal(signal.SIGINT)
    assert looking.communicate(timeout=30)[1] == b""
    assert looking.returncode == 130
    os.close(mine)
