"""A compute host of the cloud: a host of the lab's, on which an agent and nova-compute run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import host, processes
from lab.cloud.configuration import STATE
from lab.fleet.node import Node
from lab.leftovers import SERVICE
from moorline.local_api.client import Client

_COMMANDS = Path(__file__).with_name("commands")
_FIRST_REPORT_SECONDS = 5
"""Nova's own: until its first one a nova-compute looks after what another one left, and takes a
server that comes meanwhile for that. What a killed one said last may be written later.
"""
_KEEP = f"mkdir -p {STATE} && mount --bind $1 {STATE} && mkdir -p {STATE}/instances {STATE}/locks"


class ComputeHost:
    """*node* has power. *nova_conf*: what nova-compute and the agent are told."""

    def __init__(self, node: Node, venv: Path, log: Path, nova_conf: str) -> None:
        self.node, self.venv = node, venv
        self.name = node.name
        self._log = log
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.heard_after = ""
        """What Nova hears later is of the nova-compute started last; as Nova's API writes it."""
        self.configuration = node.directory / "nova.conf"
        self._nova_conf = nova_conf
        self.configure()
        self._kept = node.directory / "nova"
        self._kept.mkdir()
        self.client = Client(node.directory / "state/agent.sock", timeout=30)
        self.furnish()

    def furnish(self) -> None:
        """What nova-compute has written is where it was, and others may run commands here.

        Once after each boot.
        """
        self.node.run("sh", "-c", _KEEP, "sh", str(self._kept))
        self._start("sshd", sys.executable, "-m", "lab.cloud.remote", self.node.address)

    def configure(self, driver: str = "", *lines: str) -> None:
        """Write ``nova.conf``, with more *lines* below ``[libvirt]``. *driver*: another than ours.

        Agent and nova-compute read it when they are started.
        """
        text = self._nova_conf.replace("[libvirt]\n", "\n".join(["[libvirt]", *lines, ""]))
        if driver:
            text = re.sub(r"(?m)^compute_driver = .*$", f"compute_driver = {driver}", text)
        self.configuration.write_text(text)

    def moorline(self, *words: str, code: int = 0) -> Any:
        """Run a command there, as an operator does; what it says."""
        how = ("--config-file", str(self.configuration), "--output", "json")
        command = [*self.node.enter(), self.command_path(), *words, *how]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def start(self) -> None:
        self.start_agent()
        self.start_compute()

    def start_agent(self) -> None:
        program = self.command_path()
        self._start("agent", program, "agent", "--config-file", str(self.configuration))
        end = time.monotonic() + 60
        while not self._serves():
            assert self._running["agent"].poll() is None, self.log("agent")
            assert time.monotonic() < end, self.log("agent")
            time.sleep(0.05)

    def start_compute(self) -> None:
        """Start nova-compute; :meth:`NovaCloud.wait_for_hosts` waits for it."""
        first = time.time() + _FIRST_REPORT_SECONDS - 1
        self.heard_after = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(first))
        self._start(
            "nova-compute",
            f"{self.venv}/bin/nova-compute",
            *("--config-file", str(self.configuration)),
        )

    def kill(self, name: str) -> None:
        """SIGKILL: to ``agent`` or ``nova-compute``, with what belongs to it."""
        entered = self._running.pop(name)
        for pid in reversed(_family(entered.pid)):
            processes.kill(pid)
        entered.wait(20)

    def power_off(self) -> None:
        """Cut its power: whatever runs there is gone."""
        self.node.power_off()
        for each in self._running.values():
            each.wait(20)
        self._running.clear()

    def power_on(self) -> None:
        """Boot it again, with its agent; nova-compute is not started yet."""
        self.node.power_on()
        self.furnish()
        self.start_agent()

    def kill_client(self, export: str) -> None:
        """SIGKILL to the FUSE daemon of its one mount of a share; the mount stays, dead."""
        here = _mounts_of(int(self.node.enter()[2]))
        found = processes.running("mount.quobyte", export)
        (pid,) = (each for each in found if _mounts_of(each) == here)
        processes.kill(pid)

    def runs(self, name: str) -> bool:
        return name in self._running and self._running[name].poll() is None

    def stop(self) -> None:
        """End all that was started here."""
        for name in list(self._running):
            self.kill(name)

    def log(self, name: str) -> str:
        return self._path(name).read_text(errors="replace")

    def mounts(self) -> list[str]:
        """What storage is mounted there; not what Cinder had mounted when the host was booted."""
        lines = self.node.run("cat", "/proc/self/mountinfo").splitlines()
        found = [line.split()[4] for line in lines if " fuse." in line]
        return [each for each in found if not each.startswith(f"{host.LAB}/")]

    def wanted(self) -> set[tuple[str, str]]:
        """The agent's attachments: instance and volume."""
        return {(view.guest_id, view.volume) for view in self.client.attachments.list()}

    def pending(self) -> list[str]:
        """What nova-compute could not tell the agent yet."""
        return [path.name for path in (self._kept / "moorline" / self.name).glob("*")]

    @staticmethod
    def command_path() -> str:
        return str(Path(sys.executable).with_name("moorline"))

    def _serves(self) -> bool:
        with suppress(Exception):
            self.client.about()
            return True
        return False

    def _start(self, name: str, *words: str) -> None:
        with self._path(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*self.node.enter(), *words],
                env={
                    **os.environ,
                    "PATH": f"{_COMMANDS}:{os.environ['PATH']}:{self.venv}/bin",
                    SERVICE: name,
                    "PYTHONWARNINGS": "ignore",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _path(self, name: str) -> Path:
        return self._log / f"{self.name}-{name}.log"


def _mounts_of(pid: int) -> Path:
    """What tells the mount namespace of a process."""
    return Path(f"/proc/{pid}/ns/mnt").readlink()


def _family(pid: int) -> list[int]:
    """The process, and all that descend from it."""
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    return found


def wait(true: Callable[[], object], what: str, seconds: float = 180) -> None:
    """Until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
        time.sleep(0.2)
