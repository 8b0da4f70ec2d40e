"""A fleet in the lab: hosts, three members of etcd, controllers, and guests that write."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from lab import guest as guests
from lab import host
from lab.command import Moorline
from lab.demo import Untrue, until
from lab.etcd.cluster import Cluster
from lab.fleet.node import OUTSIDE, Node, Nodes
from lab.quobyte.cluster import Quobyte, QuobyteVolume
from lab.virtuozzo.cluster import Cluster as VirtuozzoCluster

Share = QuobyteVolume | VirtuozzoCluster

UNAVAILABLE = 11
"""The exit code of a command that changed nothing, as the store did not answer."""
BOOT_SECONDS = 240.0
"""For a guest's boot: its processor is emulated, and the machine may be busy."""
MOORLINE = Path(sys.executable).with_name("moorline")
BLOCK = 4096
BLOCKS = 16384
WRITER = (
    "(i=0; while :; do yes $i | head -c {block} | dd of={device} bs={block}"
    " seek=$((i % {blocks})) iflag=fullblock oflag=direct conv=notrunc,fsync status=none"
    " && echo $i > /acked; i=$((i+1)); done) </dev/null >/dev/null 2>&1 &"
)
USERS = (
    "for p in /proc/[0-9]*; do if ls -l $p/fd $p/cwd 2>/dev/null | grep /moorline/mnt; then"
    " echo $p; tr '\\0' ' ' <$p/cmdline | head -c 200; echo; fi; done; true"
)
"""Lists which processes have files open on mounts of Moorline's, and which."""
SAYS = "dmesg | tail -n 20; head -n 3 /proc/meminfo; ps -o pid,stat,args | grep -v '\\['"
"""What a guest has to say when its programs do not do what they should."""
CONFIGURATION = """\
[libvirt]
live_migration_uri = qemu+tls://%s/system?pkipath=/etc/libvirt/pki
vzstorage_disk_cache = none
vzstorage_mount_user = {user}
vzstorage_mount_group = {group}
"""


class Fleet:
    """From ``with`` to its end. *directory*: an empty one, of the lab's.

    *before*: words before ``moorline`` where an agent or a controller of that name is started.
    *members*: of etcd.
    """

    def __init__(
        self,
        directory: Path,
        hosts: int = 2,
        controllers: Sequence[str] = ("c1",),
        before: Callable[[str], Sequence[str]] = lambda _: (),
        members: int = 3,
    ):
        self.directory = directory
        self._nodes = Nodes(directory, hosts)
        self.etcd = Cluster(members, address=OUTSIDE)
        self.admin = directory / "admin"
        self.log = directory / "log"
        self.command = Moorline()
        self.quobyte = Quobyte(host.LAB)
        self.controllers: dict[str, subprocess.Popen[str]] = {}
        self._controllers = controllers
        self._before = before
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Fleet:
        with ExitStack() as stack:
            self.nodes = stack.enter_context(self._nodes)
            stack.enter_context(self.etcd)
            self.log.mkdir()
            self._make_fleet()
            for node in self.nodes:
                self._join(node)
            stack.callback(self._end_processes)
            for name in self._controllers:
                self.start_controller(name)
            for node in self.nodes:
                self.start_agent(node)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._stack.close()
        self.quobyte.clear()

    def order(self, *words: str, code: int | None = 0, deadline: float = 120) -> str:
        """Type ``moorline fleet …``; what it prints.

        Where etcd does not answer it is typed again, as a person does: on a busy machine, each of
        its members may take longer than it has.
        """
        words = ("fleet", *words, "--directory", str(self.admin))
        end = time.monotonic() + deadline
        while True:
            done = self.command(*words, code=None, deadline=deadline)
            if done.returncode != UNAVAILABLE or time.monotonic() > end:
                break
        told = f"{done.stdout}{done.stderr}"
        assert code in (None, done.returncode), f"{words} exited {done.returncode}\n{told}"
        return done.stdout

    def ask(self, *words: str) -> Any:
        """The same, with ``--output json``."""
        return json.loads(self.order(*words, "--output", "json"))

    def where(self, guest: str) -> str:
        """The host that has *guest*; ''."""
        return next(
            (str(each["host"]) for each in self.ask("guests") if each["guest"] == guest), ""
        )

    def host(self, name: str) -> dict[str, Any]:
        """What ``moorline fleet hosts`` tells of it."""
        found: dict[str, Any] = next(each for each in self.ask("hosts") if each["host"] == name)
        return found

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def start_agent(self, node: Node) -> None:
        """``moorline agent``, as systemd starts it."""
        with (self.log / f"{node.name}.log").open("ab") as log:
            words = [*node.enter(), *self._before(node.name), str(MOORLINE), "agent"]
            self.agents[node.name] = subprocess.Popen(words, stderr=log, stdout=log)

    def kill_agent(self, node: Node) -> None:
        """kill -9."""
        entered = self.agents.pop(node.name)
        children = Path(f"/proc/{entered.pid}/task/{entered.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        entered.wait(20)

    def start_controller(self, name: str) -> None:
        with self._log_of(name).open("ab") as log:
            words = ("fleet", "controller", "--directory", str(self.admin), "--every", "0.3")
            command = Moorline(before=tuple(self._before(name)))
            self.controllers[name] = command.start(*words, stderr=log)

    def leading_controller(self) -> str:
        """The one that leads: it alone tells what it does."""
        return max(self.controllers, key=lambda name: self._log_of(name).stat().st_mtime_ns)

    def _log_of(self, controller: str) -> Path:
        return self.log / f"controller-{controller}.log"

    def kill_controller(self, name: str) -> None:
        """kill -9."""
        self.controllers[name].kill()
        self.controllers[name].communicate()

    def boot(self, **homes: Node) -> list[Writer]:
        """New guests, each on its host, as somebody with virsh makes them."""
        import libvirt

        for name, node in homes.items():
            connection = libvirt.open(node.libvirt_uri)
            domain = connection.createXML(guests.domain_xml(name, host.images(), host.SOCKETS))
            connection.defineXML(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            connection.close()
        found = [Writer(self, name, node) for name, node in homes.items()]
        for each in found:
            each.agent.ready(BOOT_SECONDS)
        registered = "the fleet knows the guests"
        until(lambda: all(self.where(n) == node.name for n, node in homes.items()), registered, 60)
        return found

    def volume(self, share: Share, number: int) -> Volume:
        return Volume(self, share, number)

    def logs(self) -> str:
        """What everybody said, and who uses mounts of ours, for a story that fails."""
        said = [(path.name, path.read_text()[-3000:]) for path in sorted(self.log.iterdir())]
        on = [node for node in self.nodes if node.has_power]
        used = [(f"users on {node.name}", node.run("sh", "-c", USERS)) for node in on]
        return "\n".join(f"--- {what}\n{text}" for what, text in said + used)

    def _make_fleet(self) -> None:
        self.admin.mkdir(mode=0o700)
        for name in ("ca.pem", "ca.key"):
            shutil.copy(self.etcd.directory / "users" / name, self.admin)
        self.order("certify")
        self.order("init", "--endpoints", ",".join(self.etcd.endpoints))

    def _join(self, node: Node) -> None:
        file = node.directory / f"{node.name}.join"
        self.order("enrol", node.name, "--to", str(file))
        qemu = pwd.getpwuid(host.qemu_user())
        group = grp.getgrgid(qemu.pw_gid).gr_name
        configuration = CONFIGURATION.format(user=qemu.pw_name, group=group)
        (node.directory / "moorline/moorline.conf").write_text(configuration)
        node.run(str(MOORLINE), "fleet", "join", str(file))
        file.unlink()
        node.run(str(MOORLINE), "hook", "install")
        node.kill_libvirtd()  # it looks for hooks when it starts
        node.start_libvirtd()

    def _end_processes(self) -> None:
        for node in self.nodes:
            if node.name in self.agents and node.has_power:
                self.kill_agent(node)
        for name, process in self.controllers.items():
            if process.returncode is None:
                self.kill_controller(name)


class Volume:
    """A disk image on a share, as Cinder would hand it over, and what must be in it."""

    def __init__(self, fleet: Fleet, share: Share, number: int) -> None:
        # Unlike in the first 20 bytes: no more of a serial fits into a virtio disk.
        self.id = f"{number}f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b"
        name = f"volume-{self.id}"
        self.file = share.disk(name, BLOCK * BLOCKS)
        self.connection = fleet.directory / f"volume-{number}.json"
        self.connection.write_text(json.dumps({**share.connection(name), "serial": self.id}))

    def wrong(self, acknowledged: int) -> list[int]:
        """The blocks, up to the last that the guest had acknowledged, that are not as written.

        A guest that is fast has begun from the front again: the last half of the disk is looked at.
        """
        with self.file.open("rb") as file:

            def block(number: int) -> bytes:
                file.seek(number % BLOCKS * BLOCK)
                return file.read(BLOCK)

            first = max(0, acknowledged + 1 - BLOCKS // 2)
            numbers = range(first, acknowledged + 1)
            return [each for each in numbers if block(each) != guests.pattern(str(each), BLOCK)]


class Writer:
    """A guest of the fleet, wherever it is, that writes all the time."""

    def __init__(self, fleet: Fleet, name: str, node: Node) -> None:
        self.name = name
        self._fleet = fleet
        self.at(node)

    def at(self, node: Node) -> None:
        """Talk to it where it is now."""
        self.node = node
        self.agent = guests.GuestAgent(node.directory / "sockets" / f"{self.name}.agent")

    def write_all_the_time(self, volume: Volume) -> None:
        device = self.device(volume)
        self.agent.check("echo -1 > /acked")
        self.agent.check(WRITER.format(blocks=BLOCKS, block=BLOCK, device=device))
        until(lambda: self.acknowledged() >= 0, f"{self.name} writes")

    def write(self, volume: Volume, seed: str) -> None:
        """Write its first block once."""
        self.agent.check(
            f"yes {seed} | head -c {BLOCK} | dd of={self.device(volume)} bs={BLOCK}"
            " iflag=fullblock oflag=direct conv=notrunc,fsync status=none"
        )

    def device(self, volume: Volume) -> str:
        def found() -> str:
            for line in self.agent.check(guests.LIST_DISKS):
                name, _, serial = line.partition(" ")
                if serial.strip() == volume.id[:20]:
                    return f"/dev/{name}"
            return ""

        return until(found, f"{self.name} sees {volume.id}")

    def acknowledged(self) -> int:
        """The last block of which the guest knows that it is on the storage."""
        while not (lines := self.agent.check("cat /acked")):
            time.sleep(0.01)  # it is just being written
        return int(lines[0])

    def writes_on(self) -> int:
        """Wait until it has written more; the last block."""
        before = self.acknowledged()
        try:
            return until(lambda: (now := self.acknowledged()) > before + 5 and now, "it writes on")
        except Untrue as e:
            raise Untrue(f"{e}; in the guest: {self.agent.run(SAYS)}") from None


class Watch:
    """Looks all the time for a guest that runs on two hosts; from ``with`` to its end."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._connections: dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.looks = 0
        self.twice: list[str] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            first = {node.name: self._running(node) for node in self._nodes}
            again = {node.name: self._running(node) for node in self._nodes}
            # One that ran here before and after it was seen there ran on both at once.
            for guest in {guest for names in first.values() for guest in names}:
                at = [name for name in first if guest in first[name] & again[name]]
                if len(at) > 1:
                    self.twice.append(f"{guest} runs on {' and '.join(at)}")
            self.looks += 1

    def _running(self, node: Node) -> frozenset[str]:
        """The guests that run there, by libvirt's word; none where libvirtd is away."""
        import libvirt

        try:
            if node.name not in self._connections:
                self._connections[node.name] = libvirt.open(node.libvirt_uri)
            flag = libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING
            domains = self._connections[node.name].listAllDomains(flag)
        except libvirt.libvirtError:
            self._connections.pop(node.name, None)
            return frozenset()
        return frozenset(domain.name() for domain in domains)


def states(node: Node, name: str) -> str:
    """How a guest is there by libvirt itself: ``running``, ``paused``, …; ''."""
    import libvirt

    connection = libvirt.open(node.libvirt_uri)
    try:
        domain = connection.lookupByName(name)
        return {1: "running", 3: "paused", 5: "stopped"}.get(domain.state()[0], "other")
    except libvirt.libvirtError:
        return ""
    finally:
        connection.close()
