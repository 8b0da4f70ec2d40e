"""A guest boots from a Veritas HyperScale volume and gets another, through two kills.

HyperScale is lab/clients/hscli on loop devices, called by the real os-brick. libvirt, QEMU, the
boot loader, the kernel and the root file system on the volume are real.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from lab import bootable, host
from lab.command import Moorline
from lab.demo import chapter, claim, say, until
from lab.guest import Guest, GuestAgent
from lab.hyperscale import HyperScale, HyperScaleVolume

NAME = "web01"
TEXT = "written-by-the-guest"


class Demo:
    """A host with HyperScale, and the commands that a user types."""

    def __init__(self, libvirt: Any) -> None:
        self.libvirt = libvirt
        self.storage = HyperScale(host.LAB)
        self.command = Moorline(host.LAB / "state")

    def volume(self, size: int) -> tuple[HyperScaleVolume, Path]:
        volume = self.storage.volume(size)
        connection = host.LAB / f"{volume.id[:8]}.json"
        connection.write_text(json.dumps(volume.connection()))
        return volume, connection

    def moorline(self, *args: str) -> None:
        """Type a command, and show what it prints."""
        say(f"# moorline {' '.join(args)}")
        for line in self.command(*args, deadline=120).stdout.splitlines():
            say(f"  {line}")

    def killed(self, when: Any, what: str, *args: str) -> None:
        """Type a command, and kill it as soon as *when* is true."""
        say(f"# moorline {' '.join(args)}")
        process = self.command.start(*args)
        try:
            until(lambda: when() or process.poll() is not None, what)
        finally:
            process.kill()
            process.communicate()
        claim(f"killed with SIGKILL {what}", process.returncode, -signal.SIGKILL)

    def domain(self) -> Any:
        return self.libvirt.lookupByName(NAME)

    def guest(self) -> Guest:
        agent = GuestAgent(host.SOCKETS / f"{NAME}.agent")
        agent.ready()
        return Guest(self.domain(), agent)

    def is_defined(self) -> bool:
        return NAME in [domain.name() for domain in self.libvirt.listAllDomains()]


def main() -> None:
    import libvirt

    connection = libvirt.open("qemu:///system")
    try:
        tell(Demo(connection))
    finally:
        connection.close()


def tell(demo: Demo) -> None:
    root, boot = demo.volume(bootable.SIZE)
    bootable.copy_to(root.file)
    template = host.LAB / "template.xml"
    template.write_text(bootable.template(NAME, host.images(), host.SOCKETS))
    launch = ("launch", NAME, "--boot", str(boot), "--template", str(template))
    launched(demo, root, launch)
    data, more = demo.volume(16 << 20)
    attached(demo, data, more)
    detached(demo, root, data)


def launched(demo: Demo, root: HyperScaleVolume, launch: tuple[str, ...]) -> None:
    chapter("A guest boots from a HyperScale volume; kill -9 while it is connected")
    root.command(slow=1)
    demo.killed(demo.is_defined, "while hscli connects the volume", *launch)
    root.command()
    demo.moorline(*launch)
    guest = demo.guest()
    (mounted,) = guest.agent.check("mount | grep ' on / '")
    claim(
        "its root file system is on the volume", mounted.split()[:5:2], ["/dev/vda2", "/", "ext4"]
    )
    guest.agent.check("echo kept > /kept; sync")
    guest.agent.close()
    claim("the volume is connected", root.loop is not None)


def attached(demo: Demo, data: HyperScaleVolume, connection: Path) -> None:
    chapter("A data volume; kill -9 of the command while it is attached")
    data.command(slow=1)
    before = len(demo.storage.calls())
    demo.killed(
        lambda: len(demo.storage.calls()) > before,
        "in the midst of it",
        *("attach", NAME, "--connection", str(connection)),
    )
    data.command()
    demo.moorline("attach", NAME, "--connection", str(connection))
    guest = demo.guest()
    guest.write(data.id, TEXT)
    guest.agent.close()
    with data.file.open("rb") as file:
        claim("what the guest wrote is on it", file.read(len(TEXT)).decode(), TEXT)


def detached(demo: Demo, root: HyperScaleVolume, data: HyperScaleVolume) -> None:
    chapter("Detached; rebooted; removed: the volumes stay")
    demo.moorline("detach", NAME, data.id)
    claim("its device is gone", data.loop, None)
    demo.domain().destroy()
    demo.moorline("start", NAME)
    guest = demo.guest()
    claim("what it wrote is there after the reboot", guest.agent.check("cat /kept"), ["kept"])
    guest.agent.close()
    demo.moorline("remove", NAME, "--force")
    claim("the guest is gone", demo.is_defined(), False)
    claim("no device is left", (root.loop, data.loop), (None, None))
    claim("both volumes are there", (root.file.exists(), data.file.exists()), (True, True))
    claim("nothing is wished any more", json.loads(demo.command("list", "-o", "json").stdout), [])
