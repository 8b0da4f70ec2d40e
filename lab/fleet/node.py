"""A host of the fleet, as the lab sees it from outside: it has a power button and a cable.

What it runs is below it in the tree of processes, so that cutting its power ends all of it at once,
and nothing else. What lies below the lab's directory is seen by all hosts; all else that a host
writes is its own, and outlives its power.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from lab import host
from lab.fleet.pki import Pki
from lab.images import CHECKOUT

START_SECONDS = 60.0
OWN = ("etc", "lib", "log", "cache", "state", "moorline", "sockets", "run", "libvirt")
"""Directories that each host has for itself."""
BRIDGE = "moor0"
SUBNET = "10.77.0"
LIBVIRTD = ("libvirtd", "--daemon", "--listen", "--pid-file", "/run/libvirtd.pid")
OUTSIDE = f"{SUBNET}.254"
"""The lab's own address, where hosts find what is none of them: etcd."""


class Node:
    """*number*: from 1; gives the host its name and its address. It begins without power."""

    def __init__(self, nodes: Path, number: int) -> None:
        self.name = f"host{number}"
        self.address = f"{SUBNET}.{number}"
        self.directory = nodes / self.name
        self._number = number
        self._holder: subprocess.Popen[bytes] | None = None
        for name in OWN:
            (self.directory / name).mkdir(parents=True)
        (self.directory / "sockets").chmod(0o1777)
        (self.directory / "state").chmod(0o711)
        (self.directory / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (self.directory / "uuid").write_text(str(uuid.uuid4()))
        shutil.copytree("/var/cache/libvirt", self.directory / "cache", dirs_exist_ok=True)

    @property
    def libvirt_uri(self) -> str:
        """How the lab reaches its libvirtd."""
        return f"qemu+unix:///system?socket={self.directory}/libvirt/libvirt-sock"

    def power_on(self) -> None:
        """Boot it: from power to a libvirtd that takes connections."""
        ready = self.directory / "run/ready"
        ready.unlink(missing_ok=True)
        namespaces = ("--mount", "--uts", "--net", "--ipc", "--pid", "--fork", "--mount-proc")
        inner = (sys.executable, "-m", "lab.fleet.inside", str(self.directory), self.address)
        self._holder = subprocess.Popen(
            ["unshare", *namespaces, "--kill-child", "--propagation", "private", "--", *inner],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )
        self._await(lambda: (self.directory / "run/waits").exists())
        self._plug_in()
        self._await(ready.exists)
        (self.directory / "run/power").write_text(str(self._holder.pid))

    @property
    def has_power(self) -> bool:
        return self._holder is not None and self._holder.poll() is None

    def power_off(self) -> None:
        """Cut its power: whatever runs there is gone, and nothing that it did not write is kept."""
        if self._holder is None:
            return
        self._holder.kill()  # it has its child killed, and that one all others
        self._holder.wait()
        self._holder = None
        end = time.monotonic() + START_SECONDS
        while _runs(self.directory):
            assert time.monotonic() < end, f"{self.name} does not end"
            time.sleep(0.02)
        for name in ("waits", "ready"):
            (self.directory / "run" / name).unlink(missing_ok=True)

    def cut_off(self) -> None:
        """Nothing that it says is heard, and it hears nothing."""
        _ip("link", "set", self._cable, "down")

    def reconnect(self) -> None:
        _ip("link", "set", self._cable, "up")

    def enter(self) -> tuple[str, ...]:
        """The words before a command that is to run there."""
        namespaces = ("--mount", "--uts", "--net", "--ipc", "--pid")
        return ("nsenter", "--target", str(self._pid()), *namespaces, "--")

    def run(self, *argv: str, deadline: float = 60) -> str:
        """Run a command there; what it says. Raises CalledProcessError, TimeoutExpired."""
        command = [*self.enter(), *argv]
        done = subprocess.run(command, check=True, timeout=deadline, capture_output=True, text=True)
        return done.stdout

    def kill_libvirtd(self) -> None:
        """kill -9, as a crash would; its guests run on."""
        self.run("sh", "-c", "kill -9 $(cat /run/libvirtd.pid); rm /run/libvirtd.pid")

    def start_libvirtd(self) -> None:
        self.run(*LIBVIRTD)

    @property
    def _cable(self) -> str:
        return f"moor-h{self._number}"

    def _plug_in(self) -> None:
        pid = str(self._pid())
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", pid)
        _ip("link", "set", self._cable, "master", BRIDGE, "up")
        (self.directory / "run/waits").unlink()

    def _pid(self) -> int:
        """Of its first process."""
        assert self._holder is not None, f"{self.name} has no power"
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
        return int(children.split()[0])

    def _await(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while not true():
            assert self._holder is not None
            assert self._holder.poll() is None, f"{self.name} ended"
            assert time.monotonic() < end, f"{self.name} does not boot"
            time.sleep(0.02)


class Nodes:
    """Hosts on one network, from ``with`` to its end. *directory*: an empty one, of the lab's."""

    def __init__(self, directory: Path, count: int) -> None:
        self.all = [Node(directory, number + 1) for number in range(count)]
        hosts = [f"{node.address} {node.name}" for node in self.all]
        text = "\n".join(["127.0.0.1 localhost", f"{OUTSIDE} outside", *hosts, ""])
        (directory / "hosts").write_text(text)
        pki = Pki()
        for node in self.all:
            pki.certify(node.directory / "etc/pki", node.name, node.address)

    def __enter__(self) -> Sequence[Node]:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{OUTSIDE}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for node in self.all:
            node.power_on()
        return self.all

    def __exit__(self, *_: object) -> None:
        for node in self.all:
            node.power_off()
        _ip("link", "del", BRIDGE)
        # Mount points are immutable while nothing is mounted on them.
        states = [str(node.directory / "state") for node in self.all]
        subprocess.run(["chattr", "-R", "-f", "-i", *states], check=False)


def _runs(directory: Path) -> bool:
    """Whether the first process of a host, which names its directory, is there."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[1:4:2] == [b"-m", os.fsencode(directory)]:
                return True
    return False


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def libvirtd_conf(node: Path, address: str) -> str:
    """The server's options: TLS, for other hosts."""
    base: str = host.LIBVIRTD_CONF.format(uuid=(node / "uuid").read_text())
    return base + (
        f'listen_addr = "{address}"\n'
        'auth_tls = "none"\n'
        'key_file = "/etc/libvirt/pki/serverkey.pem"\n'
        'cert_file = "/etc/libvirt/pki/servercert.pem"\n'
        'ca_file = "/etc/libvirt/pki/cacert.pem"\n'
    )
