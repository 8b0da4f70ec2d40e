"""A guest gets an image of a real Ceph cluster, through a kill and a cluster that hangs.

Ceph, libvirt, QEMU and its librbd are real, on loopback.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

from lab import guest as guests
from lab import host, leftovers
from lab.agent import Agent
from lab.ceph.cluster import POOL, USER, Ceph
from lab.command import Moorline
from lab.demo import chapter, claim, say, until
from lab.guest import Guest, pattern

SIZE = 16 << 20


class Demo:
    """A host with two guests and a cluster, and the commands that a user types."""

    def __init__(self, libvirt: Any, ceph: Ceph) -> None:
        self.libvirt = libvirt
        self.ceph = ceph
        path = {"PATH": f"{ceph.commands}:{os.environ['PATH']}"}
        self.command = Moorline(host.LAB / "state", environment=path)
        names = ["web01", "web02"]
        self.web01, self.web02 = guests.boot(libvirt, names, host.images(), host.SOCKETS)

    def connection(self, volume: str, **more: Any) -> Path:
        file = host.LAB / f"{volume}.json"
        file.write_text(json.dumps(self.ceph.connection(f"{POOL}/{volume}", **more)))
        return file

    def moorline(self, *args: str, code: int = 0) -> str:
        """Type a command, show what it prints, and return what it says of errors."""
        say(f"# moorline {' '.join(args)}")
        done = self.command(*args, code=code)
        for line in (done.stdout + done.stderr).splitlines():
            say(f"  {line}")
        return done.stderr

    def seen(self) -> dict[str, str]:
        return {row["volume"]: row["seen"] for row in self.command.json("list")}

    def secrets(self) -> list[str]:
        return [each.usageID() for each in self.libvirt.listAllSecrets()]

    def watchers(self, volume: str) -> int:
        return len(self.ceph.watchers(f"{POOL}/{volume}"))

    def check_data(self, guest: Guest, volume: str, text: str) -> None:
        guest.write(volume, text)
        stored = self.ceph.content(f"{POOL}/{volume}")
        claim(f"the cluster has what {guest.name} wrote", stored == pattern(text))


def main() -> None:
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("qemu:///system")
    before = leftovers.look(connection)
    chapter("A cluster begins (a monitor, a store in memory, cephx), and two guests boot")
    with Ceph() as ceph:
        claim(
            "the cluster answers",
            json.loads(ceph.admin("ceph", "fsid", "-f", "json"))["fsid"],
            ceph.fsid,
        )
        demo = Demo(connection, ceph)
        tell(demo)
        for guest in (demo.web01, demo.web02):
            guests.remove(guest)
    chapter("The guests and the cluster go, and nothing is left")
    claim("no mount, process or domain is left", leftovers.after(connection, before), [])
    connection.close()


def tell(demo: Demo) -> None:
    for volume in ("data", "more"):
        demo.ceph.image(volume, SIZE)
    attach_it(demo)
    nobody_else_gets_it(demo)
    kill_the_agent(demo)
    hang_the_cluster(demo)
    read_a_snapshot(demo)


def attach_it(demo: Demo) -> None:
    chapter("attach: QEMU opens the image, and nothing is mapped on the host")
    demo.moorline("attach", "web01", "--connection", str(demo.connection("data")))
    demo.check_data(demo.web01, "data", "written by web01")
    claim("the cluster has one who watches it", demo.watchers("data"), 1)
    claim("libvirt has one secret for it, in memory", len(demo.secrets()), 1)
    told = demo.web01.domain.XMLDesc(1) + host.command_lines()
    claim("its key is in no XML and in no argument", demo.ceph.key in told, False)


def nobody_else_gets_it(demo: Demo) -> None:
    chapter("Who else has it, is told by the cluster, wherever that is")
    other = str(demo.connection("data", volume_id="data-again"))
    refused = demo.moorline("attach", "web02", "--connection", other, code=3)
    claim("the other guest of this host is refused it", "web01" in refused)
    with demo.ceph.opened(f"{POOL}/more"):
        say("Somebody opens the other image, as another host would.")
        until(lambda: demo.watchers("more"), "it is watched")
        words = ("attach", "web02", "--connection", str(demo.connection("more")), "--timeout", "1")
        waits = demo.moorline(*words, code=5)
        claim("it is not attached", "somebody else has" in waits)
        claim("and web02 has no disk", demo.web02.disks(), {})


def kill_the_agent(demo: Demo) -> None:
    chapter("The agent is killed while it attaches it; another one goes on")
    demo.ceph.stop("ceph-mon")
    agent = Agent(demo.command, host.LAB / "agent.log")
    attach = demo.command.start("attach", "web02", "--connection", str(demo.connection("more")))
    until(asking, "the cluster is asked")
    agent.kill()
    _, err = attach.communicate(timeout=120)
    claim("killed with SIGKILL while the monitor hung; the command exits 6", attach.returncode, 6)
    say("  " + next(line for line in err.splitlines() if line.startswith("moorline:")))
    claim("web02 answers, and has no disk", demo.web02.disks(), {})
    demo.ceph.resume("ceph-mon")
    say("Another agent is started, and nobody repeats the command:")
    agent = Agent(demo.command, host.LAB / "agent.log")
    until(lambda: demo.seen().get("more") == "attached", "the agent attaches it", 120)
    demo.check_data(demo.web02, "more", "written by web02")
    agent.stop()


def hang_the_cluster(demo: Demo) -> None:
    chapter("The cluster hangs under a guest that writes")
    demo.ceph.stop()
    writing = threading.Thread(target=demo.web01.write, args=("data", "after all"))
    writing.start()
    claim("list does not ask it", demo.seen(), {"data": "attached", "more": "attached"})
    demo.ceph.resume()
    writing.join()
    stored = demo.ceph.content(f"{POOL}/data")
    claim("it answers, and the cluster has what was written", stored == pattern("after all"))
    for guest, volume in (("web01", "data"), ("web02", "more")):
        demo.moorline("detach", guest, volume)
        until(lambda of=volume: not demo.watchers(of), "nobody watches it")  # type: ignore[misc]
    claim("no secret is left", demo.secrets(), [])


def read_a_snapshot(demo: Demo) -> None:
    chapter("A snapshot is read, by the key of the host")
    demo.ceph.admin("rbd", "snap", "create", f"{POOL}/data@monday")
    keyring = host.LAB / f"ceph.client.{USER}.keyring"
    keyring.write_text(f"[client.{USER}]\n\tkey = {demo.ceph.key}\n")
    settings = host.LAB / "moorline.conf"
    settings.write_text(f"[libvirt]\nrbd_user = {USER}\nrbd_keyrings = {host.LAB}\n")
    url, how = f"rbd://127.0.0.5/{POOL}/data@monday", ("--config-file", str(settings))
    refused = demo.moorline("attach", "web01", url, "--volume", "monday", *how, code=3)
    claim("nobody may write to it", "--read-only" in refused)
    demo.moorline("attach", "web01", url, "--volume", "monday", "--read-only", *how)
    demo.web01.wait_for("monday")
    read = demo.web01.digest("monday")
    claim("web01 reads what was written", read, guests.digest(pattern("after all")))
    demo.moorline("detach", "web01", "monday", *how)
    claim("nothing is wanted any more", demo.command.json("list"), [])


def asking() -> bool:
    """Whether a command asks the cluster just now."""
    done = subprocess.run(["pgrep", "-x", "rbd"], check=False, stdout=subprocess.DEVNULL)
    return done.returncode == 0
