"""A small host under random fire: an agent, its clients, and what gets in their way.

Every client has attachments of its own, so it knows what it was promised: the last
answer that it got, or, if a call failed, what the agent lists afterwards.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from libvirt_rig import CONFIG, small_xml, until
from scene import daemons, mount_table, start_paused

from lab import host
from lab.quobyte.cluster import QuobyteVolume
from moorline.errors import MoorlineError
from moorline.local_api.client import Client

log = logging.getLogger("soak")


class Pair(NamedTuple):
    """A volume and the guest that it is for."""

    guest: str
    volume: str
    share: QuobyteVolume

    def connection(self) -> dict[str, Any]:
        return self.share.connection(self.volume, volume_id=self.volume)


@contextmanager
def libvirt_now() -> Iterator[Any]:
    """A connection that no earlier libvirtd can have taken with it."""
    import libvirt

    connection = libvirt.open("qemu:///system")
    try:
        yield connection
    finally:
        with suppress(libvirt.libvirtError):
            connection.close()


class Agent:
    """The agent's process, killed and started again at will."""

    def __init__(self, state: Path, config: Path) -> None:
        self.socket = state / "agent.sock"
        program = Path(sys.executable).with_name("moorline")
        self._words = [program, "agent", "--config-file", config, "--state-dir", state]
        self._output = state.with_name("agent.log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process
        self._process.terminate()
        return self._process.wait(40)

    def log(self) -> str:
        return self._output.read_text()


@dataclass
class Caller:
    """A client. *promised*: what may be wanted of each pair, as far as it was told."""

    client: Client
    pairs: list[Pair]
    chance: random.Random
    promised: dict[Pair, set[bool]] = field(default_factory=dict)
    answered: int = 0
    failed: int = 0

    def go_on(self, stop: threading.Event) -> None:
        """Attachment at random, and remember what came of it."""
        while not stop.is_set():
            self.attachment(self.chance.choice(self.pairs), self.chance.random() < 0.6)
            stop.wait(self.chance.uniform(0, 0.1))

    def attachment(self, pair: Pair, wanted: bool) -> None:
        """Attachment once. What stands after an error is asked of the agent, if there is one."""
        before = self.promised.get(pair, {False})
        timeout = self.chance.choice((0.0, 1.0, 5.0))
        try:
            if wanted:
                self.client.attachments.attach(pair.guest, pair.connection(), timeout=timeout)
            else:
                self.client.attachments.detach(pair.guest, pair.volume, timeout=timeout)
            self.promised[pair] = {wanted}
            self.answered += 1
        except MoorlineError:
            self.failed += 1
            self.promised[pair] = before | {wanted}
            with suppress(MoorlineError):
                self.promised[pair] = {pair in attached(self.client, [pair])}


def attached(client: Client, pairs: list[Pair]) -> set[Pair]:
    """Those of *pairs* that are wanted, as the agent lists them."""
    wanted = {view.volume for view in client.attachments.list() if view.wanted == "attached"}
    return {pair for pair in pairs if pair.volume in wanted}


class Fire:
    """What goes wrong, at random."""

    def __init__(self, agent: Agent, farm: Farm, chance: random.Random) -> None:
        self._agent = agent
        self._farm = farm
        self._chance = chance
        self.did: dict[str, int] = {}

    def go_on(self, stop: threading.Event) -> None:
        kinds: list[Callable[[], None]] = [
            self.kill_agent,
            self.kill_agent,
            self.kill_daemon,
            self.kill_daemon,
            self.kill_libvirtd,
            self.unmount,
            self.pull_disk,
            self.start_or_stop_guest,
        ]
        while not stop.wait(self._chance.uniform(0.2, 1.2)):
            kind = self._chance.choice(kinds)
            self.did[kind.__name__] = self.did.get(kind.__name__, 0) + 1
            kind()

    def kill_agent(self) -> None:
        self._agent.kill()
        time.sleep(self._chance.uniform(0, 0.5))
        self._agent.start()

    def kill_daemon(self) -> None:
        for pid in daemons(self._chance.choice(self._farm.shares)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_libvirtd(self) -> None:
        host.kill_libvirtd()
        time.sleep(self._chance.uniform(0, 0.5))
        host.start_libvirtd()

    def unmount(self) -> None:
        """By hand; where a guest runs on it, that is busy."""
        for line in self._farm.mounts(self._chance.choice(self._farm.shares)):
            subprocess.run(["umount", line], check=False, capture_output=True)

    def pull_disk(self) -> None:
        import libvirt

        pair = self._chance.choice(self._farm.pairs)
        with suppress(libvirt.libvirtError), libvirt_now() as connection:
            domain = connection.lookupByName(pair.guest)
            domain.detachDeviceAlias(f"ua-{pair.volume}", CONFIG)

    def start_or_stop_guest(self) -> None:
        """One that has no system: while it runs it lets no disk go, and no dead mount."""
        import libvirt

        with suppress(libvirt.libvirtError), libvirt_now() as connection:
            domain = connection.lookupByName(self._chance.choice(self._farm.small))
            if domain.isActive():
                domain.destroy()
            else:
                start_paused(domain)


class Farm:
    """The guests and shares, and what is so of them, whatever the agent says."""

    def __init__(self, shares: list[QuobyteVolume], booted: list[str], small: int, each: int):
        self.shares = shares
        self.small = [f"soak{n}" for n in range(small)]
        self.guests = [*booted, *self.small]
        self.pairs = []
        for n, guest in enumerate(self.guests * each):
            share, volume = shares[n % len(shares)], str(uuid.uuid4())
            share.disk(volume, 1 << 20)
            self.pairs.append(Pair(guest, volume, share))

    def define(self) -> None:
        with libvirt_now() as connection:
            for name in self.small:
                xml = ET.fromstring(small_xml("q35", 6, "virtio-scsi"))
                xml.find("name").text = name  # type: ignore[union-attr]
                connection.defineXML(ET.tostring(xml, encoding="unicode"))

    def stop_guests(self) -> None:
        """Nothing is pulled from under a guest, so what runs on a dead mount must stop."""
        with libvirt_now() as connection:
            for domain in connection.listAllDomains():
                if domain.isActive() and domain.name() in self.guests:
                    domain.destroy()

    def start_guests(self) -> None:
        """A guest whose disk is not there does not start."""
        with libvirt_now() as connection:
            for name in self.guests:
                start_paused(connection.lookupByName(name))

    def undefine(self) -> None:
        with libvirt_now() as connection:
            for domain in connection.listAllDomains():
                if domain.name() in self.small:
                    domain.undefine()

    def mounts(self, share: QuobyteVolume) -> list[str]:
        return [m.target for m in mount_table() if m.source.rpartition("/")[2] == share.name]

    def amiss(self, wanted: set[Pair]) -> list[str]:
        """How disks and mounts differ from *wanted*."""
        needed = {pair.share for pair in wanted}
        found = [
            f"{share.name} is mounted {len(self.mounts(share))} times"
            for share in self.shares
            if len(self.mounts(share)) != (share in needed)
        ]
        with libvirt_now() as connection:
            for name in self.guests:
                domain = connection.lookupByName(name)
                volumes = {pair.volume for pair in wanted if pair.guest == name}
                for flags in (0, 2):  # live, VIR_DOMAIN_XML_INACTIVE
                    if (disks := _disks(domain.XMLDesc(flags))) != volumes:
                        found.append(f"{name} has {len(disks)} disks, not {len(volumes)}")
        return found


def _disks(xml: str) -> set[str]:
    aliases = ET.fromstring(xml).iterfind("devices/disk/alias")
    names = [alias.get("name", "") for alias in aliases]
    return {name.removeprefix("ua-") for name in names if name.startswith("ua-")}


def answers(client: Client) -> bool:
    try:
        client.about()
    except MoorlineError:
        return False
    return True


def under_fire(callers: list[Caller], fire: Fire, seconds: float) -> None:
    """Let everybody go on for so long; what a thread raises is raised."""
    stop, errors = threading.Event(), []

    def run(go_on: Callable[[threading.Event], None]) -> None:
        try:
            go_on(stop)
        except BaseException as e:
            errors.append(e)
            stop.set()
            raise

    threads = [threading.Thread(target=run, args=[each.go_on]) for each in (*callers, fire)]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def converged(client: Client, farm: Farm, wanted: set[Pair], deadline: float) -> None:
    """Wait until everything is as wanted, by the agent's word and by what can be witnessed."""

    def views() -> list[str]:
        return [
            view.seen
            for view in client.attachments.list()
            if view.seen != view.wanted or view.trouble
        ]

    try:
        until(lambda: not views() and not farm.amiss(wanted), deadline)
    except AssertionError:
        raise AssertionError([*views(), *farm.amiss(wanted)]) from None
