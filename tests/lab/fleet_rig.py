"""A fleet in the lab: a real etcd with TLS, a controller, and hosts with an agent each."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from libvirt_rig import until

from lab.agent import Agent
from lab.command import Moorline
from lab.second_host import SecondHost
from tests.support.etcd import etcd_lab

UNMOUNT = 'cut -d" " -f5 /proc/self/mountinfo | grep "^$1/" | xargs -r umount -l'
FENCED = "its cable was pulled by N.N., ticket 4711"


class FleetHost:
    """One of them. Its *state* has the same path on each, so that disks have, too.

    *seen_at*: where the lab sees that. *before*: words that lead to the host.
    """

    def __init__(
        self, name: str, directory: Path, state: Path, seen_at: Path, before: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.credentials = directory / f"credentials-{name}"
        self.log = directory / f"log-{name}"
        self.moorline = Moorline(state / "moorline", before=before)
        self._seen_at = seen_at / "moorline"
        self._agent: Agent | None = None

    def start(self) -> None:
        words = ("--fleet", str(self.credentials))
        self._agent = Agent(self.moorline, self.log, *words, seen_at=self._seen_at)

    def kill(self) -> None:
        assert self._agent is not None
        self._agent.kill()
        self._agent = None

    def stop(self) -> None:
        if self._agent is not None:
            self._agent.stop()
            self._agent = None

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
        self.cluster = self._stack.enter_context(etcd_lab(members))
        self.admin = directory / "admin"
        self.admin.mkdir(mode=0o700)
        for name in ("ca.pem", "ca.key"):
            shutil.copy(self.cluster.directory / "users" / name, self.admin)
        self("certify")
        self("init", "--endpoints", ",".join(self.cluster.endpoints))
        state = directory / "state"
        state.mkdir()
        state.chmod(0o755)
        self.one = FleetHost("one", directory, state, state)
        self.hosts = [self.one]
        self.second: SecondHost | None = None
        if second:
            there = directory / "second-host"
            there.mkdir()
            self.second = SecondHost(there, [state])
            self._stack.callback(self.second.close)
            before = (*self.second.enter, "env", "MOORLINE_HYPERVISOR=" + self.second.uri)
            self.hosts.append(FleetHost("two", directory, state, there / "own-1", before))
        for each in self.hosts:
            self.join(each)
            each.start()
        self.controller: subprocess.Popen[str] | None = None
        self.start_controller()

    @property
    def two(self) -> FleetHost:
        return self.hosts[1]

    def __call__(self, *words: str, code: int = 0, deadline: float = 90) -> str:
        """Run ``moorline fleet …`` as who administers it; what it says."""
        directory = ("--directory", str(self.admin))
        done = Moorline()("fleet", *words, *directory, code=code, deadline=deadline)
        return done.stdout + done.stderr

    def json(self, *words: str) -> Any:
        return json.loads(
            Moorline()("fleet", *words, "--directory", str(self.admin), "-o", "json").stdout
        )

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

    def has_guest(self, name: str, host: str, seen: str = "") -> bool:
        """Whether the fleet says that *host* has the guest, and reports it as *seen*."""
        return any(
            (each["guest"], each["host"]) == (name, host) and seen in ("", each["seen"])
            for each in self.json("guests")
        )

    def wait_for_guest(self, name: str, host: str, seen: str = "") -> None:
        until(lambda: self.has_guest(name, host, seen), 60)

    @contextmanager
    def etcd_hangs(self) -> Iterator[None]:
        """Every member is stopped: connections stay, and nothing is answered."""
        for member in self.cluster.members:
            member.stop()
        try:
            yield
        finally:
            self.cluster.mend()

    def close(self) -> None:
        """End it. Its guests are gone; their volumes go as the fleet has them go."""
        with self._stack:
            try:
                for each in self.json("list"):
                    self("detach", each["guest"], each["volume"], "--timeout", "30")
            finally:
                self._end()

    def _end(self) -> None:
        """Stop all processes; then unmount what a test that failed has left in our directory."""
        for host in self.hosts:
            with suppress(AssertionError):
                host.stop()
        if self.controller is not None:
            self.kill_controller()

        left = ["sh", "-c", UNMOUNT, "sh", str(self.directory / "state")]
        subprocess.run(left, check=False, timeout=30)
        if self.second is not None:
            self.second.run(*left)
