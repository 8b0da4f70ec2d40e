"""The daemon, as an operator starts it: on libvirt's test driver, so without the lab."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from lab.command import Moorline
from moorline import config
from moorline.agent.agent import Agent as Daemon
from moorline.agent.systemd import Notifier
from moorline.errors import Denied, Unavailable
from moorline.local_api.client import Client
from moorline.local_api.openapi import document
from moorline.wiring import OpenedAgent

PASSWORD = "hunter2-PLANTED-5f1c"
TEST = {"MOORLINE_HYPERVISOR": "test:///default"}


class Agent:
    """One that runs; its log goes to a file."""

    def __init__(self, state: Path, *args: str, **environment: str) -> None:
        self.socket = state / "agent.sock"
        self.log = state.parent / "log"
        self.command = Moorline(state, TEST)
        program = str(Path(sys.executable).with_name("moorline"))
        self.process = subprocess.Popen(
            [program, "agent", "--state-dir", str(state), *args],
            env={**os.environ, **TEST, **environment},
            stderr=self.log.open("wb"),
        )
        self.client = Client(self.socket, timeout=20)

    def ready(self) -> Agent:
        until(lambda: self.process.poll() is not None or self._answers())
        assert self.process.poll() is None, self.log.read_text()
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def _answers(self) -> bool:
        try:
            return bool(self.client.about())
        except (Unavailable, Denied):
            return False


def until(true: Callable[[], Any], deadline: float = 20) -> Any:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if answer := true():
            return answer
        time.sleep(0.02)
    raise AssertionError("waited in vain")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    begun: list[Agent] = []

    def start(*args: str, **environment: str) -> Agent:
        begun.append(Agent(tmp_path / "state", *args, **environment))
        return begun[-1]

    yield start
    for agent in begun:
        agent.process.kill()
        agent.process.wait()


def test_it_serves_until_it_is_told_to_stop(start: Callable[..., Agent]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        agent = start().ready()
        assert agent.client.about()["hypervisor"] == "test:///default"
        assert agent.client.attachments.list() == []
        assert agent.end(number) == 0
        assert not agent.socket.exists()
        assert "stopped" in agent.log.read_text()


def test_one_that_is_killed_leaves_nothing_in_the_way(start: Callable[..., Agent]) -> None:
    agent = start().ready()
    assert agent.end(signal.SIGKILL) == -signal.SIGKILL
    assert agent.socket.exists()
    assert agent.command.json("list") == []  # a stale socket is no agent
    agent.command("sweep")
    assert start().ready().client.attachments.list() == []


def test_a_second_agent_is_busy(start: Callable[..., Agent]) -> None:
    agent = start().ready()
    # It would wait a minute for the owner of the state to end, and this one does not.
    told = agent.command("agent", code=8, deadline=50).stderr
    assert "another agent serves" in told
    assert agent.client.attachments.list() == []  # and the first one did not mind


def test_commands_go_through_it(start: Callable[..., Agent]) -> None:
    agent = start("--log-format", "json").ready()
    agent.command("show", "nothing", code=4)
    agent.command("sweep")
    told = [json.loads(line) for line in agent.log.read_text().splitlines()]
    asked = {line["operation"]: line for line in told if "operation" in line}
    assert asked["show"]["outcome"] == "notfound"
    assert asked["sweep"]["outcome"] == "done"
    assert asked["sweep"]["request"]


def test_steps_are_in_the_log_with_the_request_that_they_were_taken_for(
    start: Callable[..., Agent], tmp_path: Path
) -> None:
    agent = start("--log-format", "json").ready()
    disk = tmp_path / "100%s"  # no format of ours
    disk.write_bytes(bytes(1 << 20))
    agent.command("attach", "test", str(disk), "--format", "raw", "--volume", "vol-1", code=3)
    told = [json.loads(line) for line in agent.log.read_text().splitlines()]
    (asked,) = [line for line in told if line.get("operation") == "attach"]
    (step,) = [line for line in told if line.get("step") == "attach"]
    assert step["request"] == asked["request"]
    assert (step["level"], step["outcome"]) == ("warning", "refused")
    assert step["message"].startswith("attach refused volume vol-1 on test ")


def test_who_follows_the_events_outlives_the_agent(
    start: Callable[..., Agent], tmp_path: Path
) -> None:
    agent = start().ready()
    told = tmp_path / "told"
    with told.open("w") as stderr:
        follower = agent.command.start("events", "--follow", "--output", "json", stderr=stderr)
    assert follower.stdout is not None
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    args = ("attach", "test", str(disk), "--format", "raw", "--volume")
    ids = []
    try:
        for number in (0, signal.SIGKILL, signal.SIGTERM):
            if number:
                agent.end(number)
                agent = start().ready()
            agent.command(*args, f"vol-{number:d}", code=3)
            for line in follower.stdout:
                entry = json.loads(line)
                ids.append(entry["id"])
                if entry["volume"] == f"vol-{number:d}":
                    break
    finally:
        follower.kill()
        follower.communicate()
    assert ids == list(range(1, len(ids) + 1))  # nothing twice, and nothing left out
    assert told.read_text() == ""


def test_a_command_that_asks_for_something_else_is_refused(
    start: Callable[..., Agent], tmp_path: Path
) -> None:
    conf = tmp_path / "a.conf"
    conf.write_text("[libvirt]\nquobyte_client_cfg = /etc/a\nconnection_uri = test:///default\n")
    agent = start("--config-file", str(conf)).ready()
    agent.command("list", "--config-file", str(conf))
    agent.command("list", "--hypervisor", "test:///default")
    told = agent.command("list", "--hypervisor", "qemu:///system", code=3).stderr
    assert "this host's agent uses test:///default, not qemu:///system" in told
    other = tmp_path / "b.conf"
    other.write_text(conf.read_text().replace("/etc/a", "/etc/b"))
    told = agent.command("list", "--config-file", str(other), code=3).stderr
    assert "runs with other options" in told


def test_a_command_that_meets_an_agent_being_started_waits_for_it(
    start: Callable[..., Agent], tmp_path: Path
) -> None:
    # Its socket is where nobody looks for it, as if it had not opened it yet.
    agent = start("--socket", str(tmp_path / "elsewhere"))
    until(lambda: "serving" in agent.log.read_text())
    sweep = agent.command.start("sweep")
    time.sleep(1)
    assert sweep.poll() is None
    assert agent.end() == 0
    assert sweep.wait(20) == 0
    sweep.communicate()


def test_systemd_is_told(start: Callable[..., Agent], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        agent = start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000")
        told = iter(lambda: manager.recv(4096).decode().splitlines()[0], "")
        assert set(takewhile(lambda line: line != "READY=1", told)) <= {"WATCHDOG=1"}
        assert [next(told) for _ in range(2)] == ["WATCHDOG=1"] * 2
        agent.process.send_signal(signal.SIGHUP)
        seen = ""
        while "READY=1" not in seen:
            seen += manager.recv(4096).decode() + "\n"
        assert "RELOADING=1" in seen
        assert "MONOTONIC_USEC=" in seen
        agent.process.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in seen:
            seen += manager.recv(4096).decode() + "\n"
        assert agent.process.wait(20) == 0


class Dead:
    """An controller that a defect has ended."""

    swept = None

    def alive(self) -> bool:
        return False

    def pending(self) -> list[Any]:
        return []


def test_it_ends_when_a_part_of_it_has_died(tmp_path: Path) -> None:
    dead: Any = Dead()
    facade: Any = None
    opened = OpenedAgent(facade, dead, None)
    daemon = Daemon(lambda: config.load([], tuple, state_dir=tmp_path))
    assert daemon._watch(Notifier(), opened) is False  # and systemd starts another


def test_it_ends_when_nobody_can_reach_it_any_more(start: Callable[..., Agent]) -> None:
    agent = start().ready()
    agent.socket.unlink()
    assert agent.process.wait(20) == 1  # and systemd starts another
    assert "somebody removed" in agent.log.read_text()
    assert start().ready().client.attachments.list() == []


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().tell("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "@moorline-nobody-listens")
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    notifier = Notifier()
    notifier.tell("READY=1")
    assert notifier.watchdog == 0  # it is for another process
    assert "NOTIFY_SOCKET" not in os.environ  # nor may children speak for us


def test_reload(start: Callable[..., Agent], tmp_path: Path) -> None:
    conf = tmp_path / "a.conf"

    def write(*lines: str) -> None:
        conf.write_text("\n".join(["[moorline]", *lines]))

    write("agent_anyone_may_look = no")
    agent = start("--config-file", str(conf)).ready()
    assert agent.socket.stat().st_mode & 0o777 == 0o660
    write("agent_anyone_may_look = yes", "agent_log_format = json", "agent_sweep_every = 7")
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: agent.socket.stat().st_mode & 0o777 == 0o666)
    told = until(lambda: [line for line in agent.log.read_text().splitlines() if "restart" in line])
    assert json.loads(told[0])["message"].endswith("sweep_every")
    write("agent_log_level = shouting")
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: "the options stay as they were" in agent.log.read_text())
    assert agent.client.attachments.list() == []


def test_metrics(start: Callable[..., Agent], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    conf = tmp_path / "often.conf"
    conf.write_text("[moorline]\nagent_sweep_every = 1\n")
    agent = start("--metrics", address, "--config-file", str(conf)).ready()
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    args = ("attach", "test", str(disk), "--format", "raw", "--volume", "vol-1")
    agent.command(*args, code=3)  # libvirt's test driver plugs nothing in
    agent.command(*args, "--level", "connected")
    until(lambda: "moorline_attachments 1.0" in scrape(address))
    told = scrape(address)
    assert 'moorline_steps_total{result="refused",step="attach"} 1.0' in told
    assert 'moorline_step_seconds_count{step="attach"} 1.0' in told
    assert 'moorline_queue_depth{want="attached"} 0.0' in told
    assert "vol-1" not in told
    assert 'guest="' not in told, "none stands still"
    with urlopen(f"http://{address}/metrics") as page:
        assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_metrics_stay_on_this_host(start: Callable[..., Agent]) -> None:
    agent = start("--metrics", "0.0.0.0:9877")
    assert agent.process.wait(20) == 3
    assert "no loopback address" in agent.log.read_text()
    assert not agent.socket.exists()


def test_without_its_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None;"
        f"from moorline.cli.commands import main; main(['agent', '--state-dir', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 3
    assert "pip install 'moorline[agent]'" in done.stderr


def test_the_document_is_printed(tmp_path: Path) -> None:
    assert Moorline(tmp_path).json("agent", "--openapi") == document()


def test_no_password_in_log_or_answer(start: Callable[..., Agent], tmp_path: Path) -> None:
    agent = start("--config-file", str(_debug(tmp_path))).ready()
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    data = {"path": str(disk), "format": "raw", "auth_password": PASSWORD}
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"driver_volume_type": "local", "data": data}))
    printed = ""
    for code, *words in (
        (3, "attach", "test", "--connection", str(given)),
        (0, "attach", "test", "--connection", str(given), "--level", "connected"),
        (0, "list", "-o", "json"),
        (0, "detach", "test", str(disk)),
        (3, "attach", "test", f"quobyte://u:{PASSWORD}@reg/vol/disk", "--format", "raw"),
        (4, "show", f"quobyte://u:{PASSWORD}@reg/vol/disk"),
        (4, "forget", f"quobyte://u:{PASSWORD}@reg/vol/disk"),
    ):
        done = agent.command(*words, code=code)
        printed += done.stdout + done.stderr
    assert agent.end() == 0
    assert "attach" in agent.log.read_text()
    assert PASSWORD not in agent.log.read_text() + printed


def test_the_state_is_backed_up_and_restored(start: Callable[..., Agent], tmp_path: Path) -> None:
    """As docs/operations.md says."""
    agent = start().ready()
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    connected = ("attach", "test", str(disk), "--format", "raw", "--level", "connected")
    agent.command(*connected)
    state, safe = tmp_path / "state", tmp_path / "safe"
    safe.mkdir()
    running, backup = (sqlite3.connect(where / "moorline.db") for where in (state, safe))
    with closing(running), closing(backup):
        running.backup(backup)
    for name in ("key", "host"):
        shutil.copy(state / name, safe / name)
    assert agent.end() == 0
    shutil.rmtree(state)
    shutil.copytree(safe, state)
    (view,) = start().ready().client.attachments.list()
    assert (view.wanted, view.seen) == ("connected", "connected")


def _debug(directory: Path) -> Path:
    conf = directory / "debug.conf"
    conf.write_text("[moorline]\nagent_log_level = debug\n")
    return conf


def scrape(address: str) -> str:
    with urlopen(f"http://{address}/metrics", timeout=10) as page:
        return str(page.read().decode())
