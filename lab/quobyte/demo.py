"""Quobyte volumes become disks of two guests, through two kills, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab import guest as guests
from lab import host
from lab.agent import Agent
from lab.command import Moorline
from lab.demo import chapter, claim, say, until
from lab.demo_guests import KIB, DemoGuests, run_demo
from lab.quobyte.cluster import Quobyte, QuobyteVolume


@dataclass(frozen=True)
class Volume:
    """A disk image on a share, as Cinder would hand it over."""

    id: str
    share: QuobyteVolume
    file: Path
    connection: Path


class Demo(DemoGuests):
    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.libvirt = connection
        self.quobyte = Quobyte(host.LAB)
        self.fast = self.quobyte.volume("fast")
        self.slow = self.quobyte.volume("slow")
        self.lone = self.quobyte.volume("lone")
        # A state directory that the command makes itself, as on a user's machine.
        self._moorline = Moorline(host.LAB / "state")
        self.json = self._moorline.json
        self.log = host.LAB / "agent.log"

    def volume(self, share: QuobyteVolume, number: int) -> Volume:
        # Unlike in the first 20 bytes: no more of a serial fits into a virtio disk.
        id = f"{number}f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b"
        name = f"volume-{id}"
        file = share.disk(name)
        connection = host.LAB / f"volume-{number}.json"
        connection.write_text(json.dumps({**share.connection(name), "serial": id}))
        return Volume(id, share, file, connection)

    # -- what a user types

    def moorline(self, *args: str) -> None:
        """Type a command, and show what it prints."""
        say(f"# moorline {' '.join(args)}")
        for line in self._moorline(*args).stdout.splitlines():
            say(f"  {line}")

    def agent(self) -> Agent:
        """Start the agent, and leave it running."""
        say("# moorline agent &")
        return Agent(self._moorline, self.log)

    def attach(self, guest: guests.Guest, volume: Volume) -> None:
        self.moorline("attach", guest.name, "--connection", str(volume.connection))

    def begin_attach(self, guest: guests.Guest, volume: Volume) -> subprocess.Popen[str]:
        """Type the command, and do not wait for its end."""
        args = ("attach", guest.name, "--connection", str(volume.connection))
        say(f"# moorline {' '.join(args)} &")
        return self._moorline.start(*args)

    def killed_attach(
        self, guest: guests.Guest, volume: Volume, when: Callable[[], object], what: str
    ) -> None:
        """Start to attach; kill the command, and only it, as soon as *when* is true."""
        process = self.begin_attach(guest, volume)
        try:
            until(lambda: when() or process.poll() is not None, what)
        finally:
            process.kill()
            _, err = process.communicate()
        # On a busy machine it takes longer than a second, and tells what it is at.
        said = [line for line in err.splitlines() if not line.startswith("… ")]
        claim(f"killed with SIGKILL {what}", (process.returncode, said), (-signal.SIGKILL, []))

    # -- what is true: told by the mount table, libvirt, the guest and the file

    def mounts(self, share: QuobyteVolume) -> int:
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        ends = [line.partition(" - ")[2].split()[:2] for line in table]
        return ends.count(["fuse.quobyte", f"quobyte@reg1/{share.name}"])

    def check_attached(self, guest: guests.Guest, volume: Volume) -> None:
        live = self.disk(guest, volume, inactive=False)
        saved = self.disk(guest, volume, inactive=True)
        both = (live is not None, saved is not None)
        claim(f"libvirt: {guest.name} has it, running and after a reboot", both, (True, True))
        assert live is not None
        driver = live.find("driver")
        assert driver is not None
        how = (driver.get("type"), driver.get("cache"), driver.get("io"))
        claim("libvirt: raw, cache none, native I/O", how, ("raw", "none", "native"))
        claim("libvirt: its serial is the volume's id", live.findtext("serial"), volume.id)
        device = guest.wait_for(volume.id)
        alike = [s for s in guest.disks().values() if volume.id.startswith(s)]
        claim(f"the guest: {guest.name} sees it once, as {device}", len(alike), 1)

    def check_detached(self, guest: guests.Guest, volume: Volume) -> None:
        places = [self.disk(guest, volume, inactive=inactive) for inactive in (False, True)]
        claim(f"libvirt: {guest.name} has it no more", places, [None, None])
        claim(f"the guest: {guest.name} sees it no more", guest.device(volume.id), None)


def main() -> None:
    run_demo(Demo, tell)


def tell(demo: Demo) -> None:
    one, two, three, four = (
        demo.volume(demo.fast, 1),
        demo.volume(demo.slow, 2),
        demo.volume(demo.fast, 3),
        demo.volume(demo.lone, 4),
    )
    attach_one(demo, one)
    kill_while_mounting(demo, two)
    kill_while_attaching(demo, three)
    kill_the_agent(demo, four)
    chapter("Detach: a share is unmounted when its last user goes")
    demo.moorline("detach", "web01", one.id)
    demo.check_detached(demo.web01, one)
    claim("web02 still uses the share, so it stays mounted", demo.mounts(demo.fast), 1)
    demo.check_data(demo.web02, three, "undisturbed")
    demo.moorline("detach", "web02", three.id)
    demo.check_detached(demo.web02, three)
    claim("its last user is gone, and so is the mount", demo.mounts(demo.fast), 0)
    demo.moorline("detach", "web01", two.id)
    demo.check_detached(demo.web01, two)
    claim("the other share is unmounted as well", demo.mounts(demo.slow), 0)
    claim("nothing is wanted any more", demo.json("list"), [])
    data = one.file.read_bytes()[64 * KIB : 65 * KIB]
    claim("the data stays where it was written", data, guests.pattern("first", KIB))


def attach_one(demo: Demo, one: Volume) -> None:
    chapter("A Quobyte volume becomes a disk of web01")
    demo.attach(demo.web01, one)
    claim("the share is mounted: fuse.quobyte, once", demo.mounts(demo.fast), 1)
    demo.check_attached(demo.web01, one)
    demo.check_data(demo.web01, one, "first")
    calls = len(demo.quobyte.calls())
    say("The same again is success, and does nothing:")
    demo.attach(demo.web01, one)
    claim("the client was not called again", len(demo.quobyte.calls()), calls)


def kill_while_mounting(demo: Demo, two: Volume) -> None:
    chapter("kill -9 while the client mounts another share")
    two.share.command(slow=2)

    def mounting() -> bool:
        return any(two.share.export in call["argv"] for call in demo.quobyte.calls())

    demo.killed_attach(demo.web01, two, mounting, "while mount.quobyte ran")
    claim("the share is not mounted", demo.mounts(demo.slow), 0)
    (row,) = (row for row in demo.json("list") if row["volume"] == two.id)
    claim("the attachment is kept", row["wanted"], "attached")
    claim("and seen not to be so yet", row["seen"] != "attached")
    say("The next command finds out what became of it, and goes on from there:")
    demo.attach(demo.web01, two)
    claim("the share is mounted once, not twice", demo.mounts(demo.slow), 1)
    demo.check_attached(demo.web01, two)
    demo.check_data(demo.web01, two, "second")


def kill_while_attaching(demo: Demo, three: Volume) -> None:
    chapter("kill -9 while libvirt plugs a disk of the first share into web02")
    qemu = int(Path("/run/libvirt/qemu/web02.pid").read_text())
    os.kill(qemu, signal.SIGSTOP)  # so that libvirt is surely in the middle of it

    def plugging() -> bool:  # libvirt gives the file to QEMU's user, and waits for QEMU
        return three.file.stat().st_uid == host.qemu_user()

    try:
        demo.killed_attach(demo.web02, three, plugging, "while libvirt attached")
    finally:
        os.kill(qemu, signal.SIGCONT)
    say("The next command looks, and does what is missing:")
    demo.attach(demo.web02, three)
    claim("two guests share one mount", demo.mounts(demo.fast), 1)
    demo.check_attached(demo.web02, three)
    demo.check_data(demo.web02, three, "third")
    demo.moorline("list")


def kill_the_agent(demo: Demo, four: Volume) -> None:
    chapter("An agent keeps it all true; it is killed as well")
    agent = demo.agent()
    say("The commands find it, and go through it:")
    demo.moorline("list")
    four.share.command(slow=2)

    def mounting() -> bool:
        return any(four.share.export in call["argv"] for call in demo.quobyte.calls())

    asked = demo.begin_attach(demo.web02, four)
    until(mounting, "the client mounts")
    agent.kill()
    _, err = asked.communicate(timeout=30)
    claim("killed with SIGKILL while mount.quobyte ran; the command exits 6", asked.returncode, 6)
    say(f"  {err.splitlines()[0]}")
    four.share.command()
    say("Another agent is started, and nobody repeats the command:")
    agent = demo.agent()

    def there() -> bool:
        return ("attached", "attached") in [
            (row["wanted"], row["seen"]) for row in demo.json("list") if row["volume"] == four.id
        ]

    until(there, "the agent attaches what was wanted", 30)
    claim("the share is mounted once", demo.mounts(demo.lone), 1)
    demo.check_attached(demo.web02, four)
    demo.check_data(demo.web02, four, "fourth")
    pull_by_hand(demo, four)
    demo.moorline("detach", "web02", four.id)
    demo.check_detached(demo.web02, four)
    claim("its share is unmounted", demo.mounts(demo.lone), 0)
    agent.stop()
    claim("told to stop, the agent ends well, and what it kept stays", demo.mounts(demo.fast), 1)


def pull_by_hand(demo: Demo, volume: Volume) -> None:
    live = demo.disk(demo.web02, volume, inactive=False)
    assert live is not None
    say("Somebody pulls the disk out of the running guest by hand; the agent notices:")

    def plugged_in() -> int:
        told = demo.json("events", "--volume", volume.id)
        return [(entry["step"], entry["outcome"]) for entry in told].count(("attach", "done"))

    before = plugged_in()
    demo.web02.domain.detachDeviceFlags(ET.tostring(live, encoding="unicode"), 1)  # AFFECT_LIVE
    until(lambda: plugged_in() > before, "the agent plugs it in again")
    demo.check_attached(demo.web02, volume)
    demo.check_data(demo.web02, volume, "again")
