"""Etcd clusters of one or three members on loopback, with TLS as the fleet page has it.

The servers are the distribution's own. What is different from real ones: they share a machine
and a disk, and killing one loses nothing that it wrote and did not sync.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.etcd.cable import Cables
from lab.etcd.member import Member, free_ports, installed
from moorline.stores.etcd.authority import Authority, Certificate
from moorline.stores.key_files import write_over

START_SECONDS = 60.0
CONTROL_SECONDS = 20.0


class Cluster:
    """An etcd cluster, from ``with`` to its end. Raises Missing.

    *options*: of each server, beside those that it has (``--quota-backend-bytes=…``).
    *address*: of this machine, where clients reach them.
    """

    def __init__(
        self, members: int = 1, options: Sequence[str] = (), *, address: str = "127.0.0.1"
    ) -> None:
        installed()
        self._address = address
        self._stack = ExitStack()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory("-etcd")))
        self._token = "moorline-lab"
        self._cables: Cables | None = None
        for name in ("users", "peers"):
            (self.directory / name).mkdir()
        self.authority = Authority.make(self.directory / "users", "Moorline lab users")
        self._peers = Authority.make(self.directory / "peers", "Moorline lab peers")
        self.members = self._laid(members, tuple(options))

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    @property
    def ca(self) -> Path:
        return self.directory / "users/ca.pem"

    def __enter__(self) -> Cluster:
        try:
            if self._cables:
                self._cables.start()
            for member in self.members:
                self._start(member)
            self.wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for member in self.members:
            member.kill()
        if self._cables:
            self._cables.close()
        self._stack.close()

    def user(self, name: str) -> tuple[Path, Path]:
        """A certificate with the CN *name*, and its key."""
        return self._written(
            self.directory / f"user-{name.replace('/', '_')}", self.authority.user(name)
        )

    def kill(self, member: Member) -> None:
        member.kill()

    def restart(self, member: Member) -> None:
        """Start it again, with the data that it has."""
        member.kill()
        self._start(member)

    def cut_off(self, member: Member) -> None:
        """Its peers and it do not hear each other; its clients still reach it."""
        assert self._cables, "a cluster of one has no cable to cut"
        self._cables.cut(member.name)

    def mend(self) -> None:
        """All members run, are awake, and hear each other."""
        if self._cables:
            self._cables.mend()
        for member in self.members:
            member.resume()
            if not member.pid:
                self._start(member)
        self.wait()

    def leader(self) -> Member:
        """The member that leads, once one does."""
        return self._told()[0]

    def followers(self) -> list[Member]:
        leader = self.leader()
        return [member for member in self.members if member is not leader]

    def wait(self) -> None:
        """Return when all members that are to run have the same leader. Raises TimeoutError."""
        self._told()

    def control(self, *words: str, member: Member | None = None, user: str = "root") -> str:
        """What ``etcdctl`` answers. Raises CalledProcessError."""
        certificate, key = self.user(user)
        command = [
            *("etcdctl", "--endpoints", (member or self.members[0]).endpoint),
            *("--cacert", str(self.ca), "--cert", str(certificate), "--key", str(key)),
            *("--command-timeout=5s", *words),
        ]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=CONTROL_SECONDS,
            check=False,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
        return done.stdout

    def compact(self) -> None:
        """Forget all history before now."""
        revision = self.status(self.members[0])["header"]["revision"]
        self.control("compaction", "--physical", str(revision))

    def make_room(self) -> None:
        """Bring a member that is full back, as the operator does: compact, defragment, disarm."""
        self.compact()
        for member in self.members:
            self.control("defrag", member=member)
        self.control("alarm", "disarm")

    def save(self, file: Path) -> None:
        """Take a backup."""
        self.control("snapshot", "save", str(file))

    def restore(self, file: Path, *, token: str = "moorline-lab") -> None:
        """Bring a backup back, on all members. *token*: another makes another cluster id."""
        self._token = token
        for member in self.members:
            member.kill()
            shutil.rmtree(member.data)
            tool = shutil.which("etcdutl") or "etcdctl"  # etcdctl has no `restore` from 3.6 on
            command = [
                *(tool, "snapshot", "restore", str(file), "--data-dir", str(member.data)),
                *("--name", member.name, "--initial-cluster", self._all()),
                *("--initial-cluster-token", token),
                *("--initial-advertise-peer-urls", member.peer_url),
            ]
            environment = {**os.environ, "ETCDCTL_API": "3"}
            subprocess.run(command, check=True, capture_output=True, env=environment)
        for member in self.members:
            self._start(member)
        self.wait()

    def status(self, member: Member) -> dict[str, Any]:
        """What a member says of itself. Raises CalledProcessError."""
        text = self.control("endpoint", "status", "-w", "json", member=member)
        status: dict[str, Any] = json.loads(text)[0]["Status"]
        return status

    def _told(self) -> tuple[Member, dict[str, Any]]:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                told = [self.status(member) for member in self.members if self._asked(member)]
            except (subprocess.CalledProcessError, ValueError, subprocess.TimeoutExpired):
                told = []
            leaders = {status.get("leader", 0) for status in told}
            if len(leaders) == 1 and (leader := leaders.pop()):
                for member, status in zip(filter(self._asked, self.members), told, strict=True):
                    if status["header"]["member_id"] == leader:
                        return member, status
            time.sleep(0.1)
        logs = "\n".join(member.log()[-2000:] for member in self.members)
        raise TimeoutError(f"no leader in {START_SECONDS:g} s:\n{logs}")

    def _asked(self, member: Member) -> bool:
        """Whether it runs, and is not stopped."""
        if not member.pid:
            return False
        state = Path(f"/proc/{member.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "T"

    def _start(self, member: Member) -> None:
        member.start(self._all(), self._token)

    def _all(self) -> str:
        return ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    def _laid(self, count: int, options: tuple[str, ...]) -> list[Member]:
        listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        for one in listening:
            self._stack.callback(one.close)
        ports = free_ports(2 * count)
        if count > 1:
            self._cables = Cables(lambda: {m.name: m.pid for m in self.members if m.pid})
        members = []
        for index, one in enumerate(listening):
            directory = self.directory / f"m{index}"
            directory.mkdir()
            member = Member(
                f"m{index}",
                directory,
                client_port=ports[2 * index],
                peer_port=ports[2 * index + 1],
                advertised_port=one.getsockname()[1] if count > 1 else ports[2 * index + 1],
                options=options,
                address=self._address,
            )
            self._equip(member)
            if self._cables:
                self._cables.lay(member.name, one, member.peer_port)
            members.append(member)
        return members

    def _equip(self, member: Member) -> None:
        names = ["127.0.0.1", "localhost"]
        server = self.authority.member([*names, self._address])
        self._written(member.directory / "server", server)
        self._written(member.directory / "peer", self._peers.peer(names))
        (member.directory / "ca.pem").write_bytes(self.authority.pem)
        (member.directory / "peer-ca.pem").write_bytes(self._peers.pem)

    def _written(self, at: Path, made: Certificate) -> tuple[Path, Path]:
        paths = at.with_name(f"{at.name}.pem"), at.with_name(f"{at.name}.key")
        if not paths[0].exists():
            write_over(paths[1], made.key.reveal())
            write_over(paths[0], made.certificate, mode=0o644)
        return paths
