"""One etcd server: started, killed, stopped and started again on the data that it has."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path


class Missing(Exception):
    """There is no etcd on this machine."""


def installed() -> None:
    """Raise Missing where the servers or etcdctl are not there."""
    for program, package in (("etcd", "etcd-server"), ("etcdctl", "etcd-client")):
        if not shutil.which(program):
            raise Missing(f"needs {program}: apt-get install {package}, or `make etcd`")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has at this moment."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in taken]


@dataclass
class Member:
    """An etcd server; its data outlives its process."""

    name: str
    directory: Path
    client_port: int
    peer_port: int
    """Where it listens for its peers."""
    advertised_port: int
    """Where they are told to find it: the cable in between can be cut."""
    options: tuple[str, ...]
    address: str = "127.0.0.1"
    """Where clients reach it; peers are on loopback."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def endpoint(self) -> str:
        return f"https://{self.address}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"https://127.0.0.1:{self.advertised_port}"

    @property
    def pid(self) -> int:
        """Of its process; 0 if there is none."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def start(self, cluster: str, token: str) -> None:
        """Start it. *cluster*: all members' names and URLs, as etcd wants them."""
        keys = self.directory
        command = [
            *("etcd", "--name", self.name, "--data-dir", str(self.data)),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", f"https://127.0.0.1:{self.peer_port}"),
            *("--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", cluster, "--initial-cluster-token", token),
            *("--client-cert-auth", "--trusted-ca-file", str(keys / "ca.pem")),
            *("--cert-file", str(keys / "server.pem"), "--key-file", str(keys / "server.key")),
            *("--peer-client-cert-auth", "--peer-trusted-ca-file", str(keys / "peer-ca.pem")),
            *(
                "--peer-cert-file",
                str(keys / "peer.pem"),
                "--peer-key-file",
                str(keys / "peer.key"),
            ),
            *("--logger=zap", "--pre-vote", *self.options),
        ]
        # Its options are these, whatever the environment has for another etcd.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )

    def kill(self) -> None:
        """End it at once, as if power was cut, but that what was written is kept by the kernel."""
        if self._process:
            self._process.kill()  # stopped or not
            self._process.wait()

    def stop(self) -> None:
        """Let it hang: its connections stay, and nothing is answered."""
        if self.pid:
            os.kill(self.pid, signal.SIGSTOP)
            # Its threads stop one by one, and one that runs still may answer.
            while any(_state(thread) not in "TtZX" for thread in self._threads()):
                time.sleep(0.01)

    def _threads(self) -> list[Path]:
        return list(Path(f"/proc/{self.pid}/task").glob("*/stat"))

    def resume(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")


def _state(stat: Path) -> str:
    """One letter, as of proc_pid_stat(5)."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"  # it has ended
