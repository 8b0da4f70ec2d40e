"""A cluster of Ceph on loopback: one monitor, one store in memory, cephx. It needs a private host.

Different from real ones: one of each, nothing is kept twice, no manager, and what the store has
goes with it. The programs are the distribution's own (``software.py``).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import processes
from lab.ceph import software
from lab.ceph.software import Missing as Missing
from lab.host import LAB
from lab.leftovers import SERVICE

HOST = "127.0.0.5"
MONITOR = f"{HOST}:6789"
POOL, USER = "vols", "moor"
_START_SECONDS = 120.0
"""For a machine that others use too: ten are usual."""
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:{host}:3300,v1:{host}:6789]
public addr = {host}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon data avail warn = 1
mon data avail crit = 0
osd objectstore = memstore
memstore device bytes = 536870912
erasure code dir = {libraries}/ceph/erasure-code
plugin dir = {libraries}/ceph
osd class dir = {libraries}/rados-classes
mon data = {at}/mon
osd data = {at}/osd
keyring = {at}/keyring
admin socket = {at}/$name.asok
log file = {at}/$name.log
pid file = {at}/$name.pid
run dir = {at}
"""


class Ceph:
    """A cluster, from ``with`` to its end: :meth:`image` gives it volumes. Raises Missing.

    *host*: the address at which it is reached.
    """

    def __init__(self, host: str = HOST) -> None:
        if not list(Path("/usr/lib").glob("*/qemu/block-rbd.so")):
            raise Missing("QEMU has no RBD here (qemu-block-extra)")
        self._host = host
        self.monitor = f"{host}:6789"
        self._at = LAB / "ceph"
        self.fsid = str(uuid.uuid4())
        self._environment = {**software.environment(), SERVICE: "ceph"}
        self._admin = {**self._environment, "CEPH_CONF": str(self._at / "ceph.conf")}
        self.commands = self._at / "commands"
        """For the beginning of PATH: what a host with ceph-common has."""
        self.key = ""
        """Of the user that may have the pool's images."""

    def __enter__(self) -> Ceph:
        for name in ("mon", "osd", "commands"):
            (self._at / name).mkdir(parents=True)
        facts = {"fsid": self.fsid, "host": self._host, "at": self._at}
        text = _CONFIGURATION.format(**facts, libraries=software.libraries())
        (self._at / "ceph.conf").write_text(text)
        self._begin_monitor()
        self._begin_store()
        self.admin("ceph", "osd", "pool", "create", POOL, "8")
        self.admin("rbd", "pool", "init", POOL)
        caps = ("mon", "profile rbd", "osd", f"profile rbd pool={POOL}")
        self.key = json.loads(
            self.admin("ceph", "auth", "get-or-create", f"client.{USER}", *caps, "-f", "json")
        )[0]["key"]
        for name in ("rbd", "ceph"):
            self._make_command(name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pid in self._pids("ceph-osd") + self._pids("ceph-mon"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            processes.kill(pid)
        shutil.rmtree(self._at)

    # --- what it has ---

    def image(self, name: str, size: int) -> str:
        """Make one; return ``pool/image``."""
        self.admin("rbd", "create", f"{POOL}/{name}", "--size", f"{size}B")
        return f"{POOL}/{name}"

    def content(self, name: str, length: int = 65536) -> bytes:
        """How an image begins, behind the back of whoever has it."""
        command = ["rbd", "export", "--no-progress", name, "-"]
        done = subprocess.run(command, env=self._admin, check=True, capture_output=True, timeout=60)
        return done.stdout[:length]

    def watchers(self, name: str) -> list[str]:
        """The addresses of those who have it open."""
        told = json.loads(self.admin("rbd", "status", name, "--format", "json"))
        return [watcher["address"] for watcher in told["watchers"]]

    @contextmanager
    def opened(self, name: str) -> Iterator[None]:
        """While a client has it open that is no guest: QEMU's own, as another host's would be."""
        argv = ["qemu-io", "-f", "raw", f"rbd:{name}:conf={self._at}/ceph.conf"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as client:
            yield
            client.communicate()  # it closes the image when there is nothing more to do

    def admin(self, *argv: str) -> str:
        """Run a command as who may do all; return what it prints."""
        done = subprocess.run(
            argv,
            env=self._admin,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(argv)}: {done.stderr}"
        return done.stdout

    def connection(self, name: str, **more: Any) -> dict[str, Any]:
        """As Cinder gives it, but that it has the key."""
        host, port = self.monitor.split(":")
        data = {
            "name": name,
            "hosts": [host],
            "ports": [port],
            "auth_enabled": True,
            "auth_username": USER,
            "secret_type": "ceph",
            "auth_key": self.key,
            "volume_id": name.partition("/")[2].partition("@")[0],
            **more,
        }
        return {"driver_volume_type": "rbd", "data": data}

    # --- what happens to it ---

    def stop(self, program: str = "ceph-osd") -> None:
        """Have the store, or the monitor, answer nothing, and close nothing, until it resumes."""
        self._signal(program, signal.SIGSTOP)

    def resume(self, program: str = "ceph-osd") -> None:
        self._signal(program, signal.SIGCONT)

    def kill_monitor(self) -> None:
        for pid in self._pids("ceph-mon"):
            processes.kill(pid)

    def start_monitor(self) -> None:
        """Start it anew, with what it had."""
        subprocess.run(["ceph-mon", "-i", "a"], env=self._admin, check=True, timeout=60)
        self._until(lambda: self._answers("ceph", "fsid"))

    # --- how ---

    def _begin_monitor(self) -> None:
        keyring, monitors = str(self._at / "keyring"), str(self._at / "monmap")
        everything = [w for of in ("mon", "osd", "mgr") for w in ("--cap", of, "allow *")]
        self.admin("ceph-authtool", "-C", keyring, "--gen-key", "-n", "mon.", *everything[:3])
        self.admin("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *everything)
        address = f"[v2:{self._host}:3300,v1:{self.monitor}]"
        self.admin("monmaptool", "--create", "--addv", "a", address, "--fsid", self.fsid, monitors)
        self.admin("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)
        self.start_monitor()

    def _begin_store(self) -> None:
        name, key = str(uuid.uuid4()), self.admin("ceph-authtool", "--gen-print-key").strip()
        keyring, secret = self._at / "osd/keyring", self._at / "secret"
        secret.write_text(json.dumps({"cephx_secret": key}))
        self.admin("ceph", "osd", "new", name, "-i", str(secret))
        keyring.write_text(f"[osd.0]\n\tkey = {key}\n")
        how = ("-i", "0", "--keyring", str(keyring))
        self.admin("ceph-osd", *how, "--mkfs", "--osd-uuid", name)
        subprocess.run(["ceph-osd", *how], env=self._admin, check=True, timeout=60)
        self._until(
            lambda: json.loads(self.admin("ceph", "osd", "stat", "-f", "json"))["num_up_osds"]
        )

    def _make_command(self, name: str) -> None:
        """It finds its libraries, and no configuration: what is asked has all of it."""
        given = {k: self._environment[k] for k in ("LD_LIBRARY_PATH", "PYTHONPATH")}
        words = shlex.join(f"{k}={v}" for k, v in given.items())
        program = shutil.which(name, path=self._environment["PATH"])
        (self.commands / name).write_text(f'#!/bin/sh\nexec env {words} {program} "$@"\n')
        (self.commands / name).chmod(0o755)

    def _answers(self, *argv: str) -> bool:
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.admin(*argv)
            return True
        return False

    def _signal(self, program: str, number: int) -> None:
        for pid in self._pids(program):
            os.kill(pid, number)

    def _pids(self, program: str) -> list[int]:
        return processes.running(program)

    def _until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + _START_SECONDS
        while not true():
            assert time.monotonic() < end, "Ceph does not come to it"
            time.sleep(0.1)
