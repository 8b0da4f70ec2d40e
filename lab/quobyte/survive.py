"""Guests outlive the death of their share's client, and a share that hangs, without an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from lab import host, processes
from lab.command import Moorline
from lab.demo import chapter, claim, say, until
from lab.demo_guests import DemoGuests, run_demo
from lab.guest import Guest
from lab.quobyte.cluster import Quobyte
from lab.writer import Writer

TRIED = (9_000, 11_003)
"""Each libvirt with which disks are given their file anew, as virConnectGetLibVersion tells it."""
CONNECTIONS = Path("/sys/fs/fuse/connections")
PAUSED_BY_ERROR, RUNS = [3, 5], 1
SURE = "--i-know-that-the-storage-writes-nothing-more"


@dataclass(frozen=True)
class Volume:
    id: str
    file: Path


class Demo(DemoGuests):
    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.share = Quobyte(host.LAB).volume("vol")
        self.settings = f"""[libvirt]
disk_on_error = quobyte=stop
quobyte_share_writes_through = {self.share.export}
"""
        settings = host.LAB / "moorline.conf"
        settings.write_text(self.settings)
        self._moorline = Moorline(host.LAB / "state", after=("--config-file", str(settings)))
        self.json = self._moorline.json

    def moorline(self, *args: str, code: int = 0) -> str:
        """Type a command, and show what it prints."""
        say(f"# moorline {' '.join(args)}")
        done = self._moorline(*args, code=code)
        shown = [line for line in done.stderr.splitlines() if not line.startswith("… ")]
        for line in (*done.stdout.splitlines(), *shown):
            say(f"  {line}")
        return done.stdout + done.stderr

    def attach(self, guest: Guest, number: int) -> Writer:
        """A disk whose errors pause its guest, and on which the guest writes from now on."""
        id = f"{number}f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b"
        volume = Volume(id, self.share.disk(f"volume-{id}"))
        info = {**self.share.connection(f"volume-{id}"), "serial": id}
        connection = host.LAB / f"volume-{number}.json"
        connection.write_text(json.dumps(info))
        self.moorline("attach", guest.name, "--connection", str(connection))
        writer = Writer(guest, volume)
        writer.start()
        return writer

    def client(self) -> int:
        """The process that serves the share's mount."""
        found = processes.running("mount.quobyte", self.share.export)
        claim("one process serves the share", len(found), 1)
        return found[0]

    def mount_point(self) -> str:
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        (line,) = (line for line in table if " fuse.quobyte " in line)
        return line.split()[4]

    def die(self, guest: Guest) -> None:
        """The client crashes; the guest writes meanwhile, and is paused by that."""
        os.kill(self.client(), signal.SIGKILL)
        say("# kill -9 of the share's client")
        until(lambda: guest.domain.state() == PAUSED_BY_ERROR, "the guest is paused")
        claim(f"{guest.name} is paused, and was told of no error", guest.domain.state()[0], 3)

    def goes_on(self, writer: Writer) -> None:
        name = writer.guest.name
        claim(f"{name} runs", writer.guest.domain.state()[0], RUNS)
        before = writer.written()
        until(lambda: writer.written() > before, f"{name} writes")
        claim(f"{name} writes again, and has seen no error", writer.errors(), [])


def main() -> None:
    run_demo(Demo, tell)


def tell(demo: Demo) -> None:
    chapter("Guests write all the time to disks whose errors pause them")
    say("# cat moorline.conf")
    for line in demo.settings.splitlines():
        say(f"  {line}")
    one, two = demo.attach(demo.web01, 1), demo.attach(demo.web02, 2)
    for writer in (one, two):
        until(writer.written, "the guest writes")
    if libvirt.getVersion() // 1000 in TRIED:
        dies(demo, one, two)
        hangs(demo, one, two)
        is_written_by_another(demo, one)
    else:
        is_refused(demo, one, two)
    chapter("The disks go")
    for writer in (one, two):
        if writer.guest.domain.isActive():
            claim(f"{writer.guest.name}: every block that was stored is there", writer.lost(), [])
        demo.moorline("detach", writer.guest.name, writer.volume.id)
    claim("nothing is wanted any more", demo.json("list"), [])


def dies(demo: Demo, one: Writer, two: Writer) -> None:
    chapter("The share's client dies")
    xml = one.guest.domain.XMLDesc()
    demo.die(one.guest)
    until(lambda: two.guest.domain.state() == PAUSED_BY_ERROR, "the other is paused as well")
    demo.moorline("doctor", code=10)
    say("One command, or an agent by itself, mounts it anew and gives the disks back:")
    demo.moorline("sweep")
    for writer in (one, two):
        demo.goes_on(writer)
    claim("libvirt: the guest is as it was", one.guest.domain.XMLDesc() == xml)


def hangs(demo: Demo, one: Writer, two: Writer) -> None:
    chapter("The share's client hangs: a person decides")
    with fuse_control():
        client, at = demo.client(), demo.mount_point()
        os.kill(client, signal.SIGSTOP)
        say("# kill -STOP of the share's client")
        demo.moorline("abort", at, "--renew", "--dry-run")
        refused = demo.moorline("abort", at, "--renew", code=3)
        claim("it asks for a person's word for the storage", SURE in refused)
        demo.moorline("abort", at, "--renew", SURE, "the lab's storage is a directory")
    claim("another client serves it now", demo.client() != client)
    for writer in (one, two):
        demo.goes_on(writer)


def is_written_by_another(demo: Demo, one: Writer) -> None:
    chapter("The client dies, and somebody else writes to the file meanwhile")
    demo.die(one.guest)
    demo.share.command(fail={"code": 1})
    demo.moorline("sweep", code=5)
    demo.share.command()
    subprocess.run(["sleep", "2.5"], check=True)
    with one.volume.file.open("r+b") as file:
        file.write(b"of another host")
    demo.moorline("sweep", code=5)
    told = demo.moorline("doctor", code=10)
    claim("the doctor tells why web01 stays paused", "was changed" in told)
    claim("web01 is paused still", one.guest.domain.state() == PAUSED_BY_ERROR)
    stop(one.guest)
    with one.volume.file.open("rb") as file:
        claim("what the other wrote is there", file.read(15), b"of another host")


def is_refused(demo: Demo, one: Writer, two: Writer) -> None:
    chapter("The share's client dies, under a libvirt with which renewal was not tried")
    demo.die(one.guest)
    demo.moorline("sweep", code=5)
    told = demo.moorline("doctor", code=10)
    claim("the doctor tells that, by name", "that was tried with" in told)
    for writer in (one, two):
        claim(f"{writer.guest.name} stays paused", writer.guest.domain.state() == PAUSED_BY_ERROR)
        stop(writer.guest)


def stop(guest: Guest) -> None:
    say(f"# virsh destroy {guest.name}")
    guest.domain.destroy()


@contextmanager
def fuse_control() -> Iterator[None]:
    """The kernel's control of FUSE connections, as systemd mounts it."""
    if CONNECTIONS.is_mount():
        yield
        return
    subprocess.run(["mount", "-t", "fusectl", "fusectl", CONNECTIONS], check=True)
    try:
        yield
    finally:
        host.umount(CONNECTIONS)
