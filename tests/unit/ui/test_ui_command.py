"""The command, and the agent's option, as an operator starts them: on libvirt's test driver."""

from __future__ import annotations

import http.client
import os
import signal
import socket as sockets
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

from moorline.cli.commands import main
from tests.support.page_host import until

PROGRAM = str(Path(sys.executable).with_name("moorline"))
HEAD = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"


@contextmanager
def started(state: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [PROGRAM, *words, "--state-dir", str(state), "--hypervisor", "test:///default"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ended(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(20)


def read(path: Path) -> str:
    """What is served on a socket, once it is."""

    def get() -> str:
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.settimeout(20)
            try:
                connection.connect(str(path))
            except OSError:
                return ""
            connection.sendall(HEAD)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.read().decode()

    return until(get, 30)


def test_it_tells_its_address_and_shows_the_host_until_it_is_ended(tmp_path: Path) -> None:
    tmp_path.joinpath("state").mkdir()
    with started(tmp_path / "state", "ui", "--listen", "127.0.0.1:0") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urlopen(url) as answer:
            text = answer.read().decode()
        assert "test:///default" in text
        assert ">test<" in text  # the guest of libvirt's test driver
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()
        assert url.split("/")[3] not in arguments
        assert ended(process) == 0


def test_signals_that_come_together_end_it_too(tmp_path: Path) -> None:
    """Any of its threads may be given one: that must not leave the command waiting."""
    tmp_path.joinpath("state").mkdir()
    for _ in range(3):
        with started(tmp_path / "state", "ui", "--listen", "127.0.0.1:0") as process:
            assert process.stdout is not None
            with urlopen(process.stdout.readline().strip()) as answer:
                assert answer.status == 200
            process.send_signal(signal.SIGINT)
            assert ended(process) == 0


def test_on_a_socket_it_is_its_owners_and_gone_afterwards(tmp_path: Path) -> None:
    tmp_path.joinpath("state").mkdir()
    path = tmp_path / "page.sock"
    with started(tmp_path / "state", "ui", "--socket", str(path)) as process:
        assert ">test<" in read(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert ended(process) == 0
    assert not path.exists()


def test_the_agent_serves_it_by_an_option_and_the_command_asks_the_agent(tmp_path: Path) -> None:
    state, path, conf = tmp_path / "state", tmp_path / "page.sock", tmp_path / "moorline.conf"
    conf.write_text(f"[moorline]\nagent_ui = {path}\n")
    with started(state, "agent", "--config-file", str(conf)) as agent:
        assert ">test<" in read(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with started(state, "ui", "--listen", "127.0.0.1:0") as process:
            assert process.stdout is not None
            with urlopen(process.stdout.readline().strip()) as answer:
                assert ">test<" in answer.read().decode()
            assert ended(process) == 0
        assert ended(agent) == 0


def test_without_its_library_it_is_refused_and_nothing_else_is(tmp_path: Path) -> None:
    code = f"""if True:
        import sys
        sys.modules["jinja2"] = None
        from moorline.cli.commands import main
        main({["ui", "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path)]!r})"""
    environment = {**os.environ, "MOORLINE_HYPERVISOR": "test:///default"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 3, run.stderr
    assert "pip install 'moorline[ui]'" in run.stderr


@pytest.mark.parametrize(
    "words",
    [["--listen", "127.0.0.1:0", "--socket", "/tmp/x"], ["--group", "root"], ["surplus"]],
    ids=" ".join,
)
def test_what_contradicts_itself_is_wrong_usage(words: list[str]) -> None:
    assert CliRunner().invoke(main, ["ui", *words]).exit_code == 2


def test_a_network_is_refused(tmp_path: Path) -> None:
    words = ["ui", "--listen", "0.0.0.0:80", "--state-dir", str(tmp_path)]
    done = CliRunner().invoke(main, [*words, "--hypervisor", "test:///default"])
    assert done.exit_code == 3
    assert "no loopback address" in done.stderr


def test_the_help_loads_neither_the_page_nor_its_library() -> None:
    code = """if True:
        import sys
        from moorline.cli.commands import main
        main(["ui", "--help"], standalone_mode=False)
        print(*sys.modules, file=sys.stderr)"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "moorline ui --socket" in run.stdout
    assert not {"jinja2", "moorline.ui"} & set(run.stderr.split())
