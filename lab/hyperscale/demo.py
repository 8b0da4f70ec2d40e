"""A guest boots from a Veritas HyperScale volume and gets another, through three kills.

HyperScale is lab/commands/hscli on loop devices, called by the real os-brick. libvirt, QEMU, the
boot loader, the kernel and the root file system on the volume are real.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab import bootable, host, leftovers
from lab.agent import Agent
from lab.command import Moorline
from lab.demo import chapter, claim, say, until
from lab.guest import Guest, GuestAgent
from lab.hyperscale.installation import HyperScale, HyperScaleVolume

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

    def begin(self, *args: str) -> subprocess.Popen[str]:
        """Type a command, and do not wait for its end."""
        say(f"# moorline {' '.join(args)} &")
        return self.command.start(*args)

    def agent(self) -> Agent:
        """Start the agent, and leave it running."""
        say("# moorline agent &")
        return Agent(self.command, host.LAB / "agent.log")

    def asked(self, operation: str, volume: HyperScaleVolume) -> bool:
        """Whether hscli was ever asked for *operation* on *volume*."""
        question = {"operation": operation, "volume_guid": volume.name}
        return question in [call["message"] for call in self.storage.calls()]

    # -- what is true: told by libvirt, the guest, and the kernel's loop devices

    def domain(self) -> Any:
        return self.libvirt.lookupByName(NAME)

    def definition(self) -> ET.Element:
        return ET.fromstring(self.domain().XMLDesc(2))  # VIR_DOMAIN_XML_INACTIVE

    def disks(self) -> list[str]:
        """The devices that are disks of the guest, running and defined."""
        both = [ET.fromstring(self.domain().XMLDesc(0)), self.definition()]
        found = [source.get("dev", "") for xml in both for source in xml.iterfind(".//disk/source")]
        return sorted(found)

    def guest(self) -> Guest:
        agent = GuestAgent(host.SOCKETS / f"{NAME}.agent")
        agent.ready()
        return Guest(self.domain(), agent)

    def is_defined(self) -> bool:
        return NAME in [domain.name() for domain in self.libvirt.listAllDomains()]


def main() -> None:
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("qemu:///system")
    before = leftovers.look(connection)
    tell(Demo(connection))
    claim("no mount, process or domain is left", leftovers.after(connection, before), [])
    connection.close()


def tell(demo: Demo) -> None:
    root, boot = demo.volume(bootable.SIZE)
    bootable.copy_to(root.file)
    template = host.LAB / "template.xml"
    template.write_text(bootable.template(NAME, host.images(), host.SOCKETS))
    data, more = demo.volume(16 << 20)
    launch_it(demo, root, ("launch", NAME, "--boot", str(boot), "--template", str(template)))
    agent = kill_the_agent(demo, data, more)
    detach_it(demo, data, agent)
    reboot_it(demo, root)
    remove_it(demo, root, data)


def launch_it(demo: Demo, root: HyperScaleVolume, launch: tuple[str, ...]) -> None:
    chapter("launch: a guest that boots from a HyperScale volume; kill -9 on the way")
    root.command(slow=2)
    killed(
        demo.begin(*launch),
        lambda: demo.asked("connect_volume", root),
        "while hscli connected the volume",
    )
    claim("the guest is defined, and does not run", demo.domain().isActive(), 0)
    claim("it has no disk yet", demo.disks(), [])
    root.command()
    say("The same command looks, and goes on from there:")
    demo.moorline(*launch)
    claim("libvirt has the device as its disk", demo.disks(), [str(root.device)] * 2)
    claim("and no kernel of the host's", demo.definition().find("os/kernel"), None)
    guest = demo.guest()
    (mounted,) = guest.agent.check("mount | grep ' on / '")
    seen = mounted.split()[:5:2]
    claim("the guest: its root file system is on it", seen, ["/dev/vda2", "/", "ext4"])
    guest.agent.check("echo kept > /kept; sync")
    guest.agent.close()


def kill_the_agent(demo: Demo, data: HyperScaleVolume, connection: Path) -> Agent:
    chapter("A data volume; the agent is killed while it connects it")
    agent = demo.agent()
    data.command(slow=2)
    attach = demo.begin("attach", NAME, "--connection", str(connection))
    until(lambda: demo.asked("connect_volume", data), "hscli is asked")
    agent.kill()
    _, err = attach.communicate(timeout=60)
    claim("killed with SIGKILL while hscli ran; the command exits 6", attach.returncode, 6)
    say("  " + next(line for line in err.splitlines() if line.startswith("moorline:")))
    data.command()
    say("Another agent is started, and nobody repeats the command:")
    agent = demo.agent()
    until(lambda: demo.disks().count(str(data.device)) == 2, "the agent attaches it", 60)
    guest = demo.guest()
    guest.wait_for(data.id)
    guest.write(data.id, TEXT)
    guest.agent.close()
    claim("what the guest wrote is on it", begins(data), TEXT)
    return agent


def detach_it(demo: Demo, data: HyperScaleVolume, agent: Agent) -> None:
    chapter("Detach; the agent is killed while it disconnects the volume")
    data.command(disconnect_volume={"slow": 2})
    detach = demo.begin("detach", NAME, data.id)
    until(lambda: demo.asked("disconnect_volume", data), "hscli is asked")
    agent.kill()
    detach.communicate(timeout=60)
    claim("killed with SIGKILL while hscli ran; the command exits 6", detach.returncode, 6)
    data.command()
    agent = demo.agent()
    until(lambda: len(demo.command.json("list")) == 1, "the agent goes on", 60)
    claim("its device is gone", (data.loop, data.device.exists()), (None, False))
    claim("the guest keeps the other", len(set(demo.disks())), 1)
    agent.stop()


def reboot_it(demo: Demo, root: HyperScaleVolume) -> None:
    chapter("The guest is off, its volume disconnected by hand; start")
    demo.domain().destroy()
    message = {"operation": "disconnect_volume", "volume_guid": root.name}
    subprocess.run(["hscli", json.dumps(message)], check=True, stdout=subprocess.DEVNULL)
    claim("its device is gone", root.loop, None)
    demo.moorline("start", NAME)
    guest = demo.guest()
    claim("the guest: what it wrote is there", guest.agent.check("cat /kept"), ["kept"])
    guest.agent.close()


def remove_it(demo: Demo, root: HyperScaleVolume, data: HyperScaleVolume) -> None:
    chapter("remove: the guest goes, the volumes stay")
    demo.moorline("remove", NAME, "--force")
    claim("the guest is gone", demo.is_defined(), False)
    claim("no device is left", (root.loop, data.loop), (None, None))
    claim("nothing is wanted any more", demo.command.json("list"), [])
    claim("the data stays where it was written", begins(data), TEXT)


def killed(process: subprocess.Popen[str], when: Callable[[], bool], what: str) -> None:
    """Kill the command, and only it, as soon as *when* is true."""
    try:
        until(lambda: when() or process.poll() is not None, what)
    finally:
        process.kill()
        process.communicate()
    claim(f"killed with SIGKILL {what}", process.returncode, -signal.SIGKILL)


def begins(volume: HyperScaleVolume) -> str:
    """The beginning of the volume's content, behind the back of everything."""
    with volume.file.open("rb") as file:
        return file.read(len(TEXT)).decode()
