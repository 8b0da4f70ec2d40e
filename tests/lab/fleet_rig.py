"""A fleet in the lab: a real etcd with TLS, a controller, and hosts with an agent each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from libvirt_rig import until

from lab.agent import Agent
from lab.command import Moorline
from lab.etcd import Cluster
from lab.second_host import SecondHost


class FleetHost:
    """One of them: its state, its credentials, its agent. *before*: words that lead there."""

    def __init__(
        self, name: str, directory: Path, *, before: tuple[str, ...] = (), uri: str = ""
    ) -> None:
        self.name = name
        self.directory = directory
        self.credentials = directory / "fleet"
        directory.mkdir()
        directory.chmod(0o755)
        after = ("--hypervisor", uri) if uri else ()
        self.moorline = Moorline(directory / "moorline", before=before)
        self._for_agent = Moorline(directory / "moorline", before=before, after=after)
        self.log = directory / "log"
        self.agent: Agent | None = None

    def start(self) -> Agent:
        self.agent = Agent(self._for_agent, self.log, "--fleet", str(self.credentials))
        return self.agent

    def kill(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        self.agent = None

    def stop(self) -> None:
        if self.agent is not None:
            self.agent.stop()
            self.agent = None

    def seen(self) -> dict[str, str]:
        """How its attachments are, by volume."""
        return {row["volume"]: row["seen"] for row in self.moorline.json("list")}

    def events(self) -> str:
        return self.moorline("events").stdout


class LabFleet:
    """All of it. *members* of etcd; *second*: another host beside the lab's."""

    def __init__(self, directory: Path, members: int = 1, *, second: bool = False) -> None:
        self._stack = ExitStack()
        self.directory = directory
        self.cluster = self._stack.enter_context(Cluster(members))
        self.admin = directory / "admin"
        self.admin.mkdir(mode=0o700)
        for name in ("ca.pem", "ca.key"):
            shutil.copy(self.cluster.directory / "users" / name, self.admin)
        self("certify")
        self("init", "--endpoints", ",".join(self.cluster.endpoints))
        self.hosts = {"one": FleetHost("one", directory / "one")}
        self.second: SecondHost | None = None
        if second:
            (directory / "second-host").mkdir()
            self.second = SecondHost(directory / "second-host")
            self._stack.callback(self.second.close)
            self.hosts["two"] = FleetHost(
                "two", directory / "two", before=self.second.enter, uri=self.second.uri
            )
        for each in self.hosts.values():
            self.join(each)
        self.controller: subprocess.Popen[str] | None = None
        self.start_controller()

    def __call__(self, *words: str, code: int = 0, deadline: float = 90) -> str:
        """Run ``moorline fleet …`` as who administers it."""
        return Moorline()(
            "fleet", *words, "--directory", str(self.admin), code=code, deadline=deadline
        ).stdout

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--output", "json"))

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """The same, without waiting for its end."""
        return Moorline().start("fleet", *words, "--directory", str(self.admin))

    def join(self, host: FleetHost) -> None:
        file = self.directory / f"{host.name}.join"
        self("enrol", host.name, "--to", str(file))
        host.moorline("fleet", "join", str(file), "--directory", str(host.credentials))
        file.unlink()

    def start_controller(self) -> None:
        self.controller = self.begin("controller", "--every", "0.2")

    def kill_controller(self) -> None:
        assert self.controller is not None
        self.controller.kill()
        self.controller.communicate()
        self.controller = None

    def has_guest(self, name: str, host: str) -> bool:
        """Whether the fleet says that *host* has the guest."""
        return any(g["guest"] == name and g["host"] == host for g in self.json("guests"))

    def wait_for_guest(self, name: str, host: str) -> None:
        until(lambda: self.has_guest(name, host), 60)

    @contextmanager
    def etcd_stopped(self) -> Iterator[None]:
        """Every member hangs, as with SIGSTOP: connections stay, and nothing answers."""
        pids = [member.pid for member in self.cluster.members if member.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        with self._stack:
            for host in self.hosts.values():
                host.stop()
            if self.controller is not None:
                self.kill_controller()


def python(*words: str) -> Sequence[str]:
    """A command that runs a part of the lab."""
    return [sys.executable, "-m", *words]
