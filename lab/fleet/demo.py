"""Three hosts as one: a guest moves while it writes, a host is drained, a host dies and comes back.

Each host has mounts, processes, network, /dev and libvirt of its own; etcd has three members with
TLS; two controllers stand by for each other.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from lab import host, leftovers
from lab.demo import chapter, claim, say, until
from lab.fleet.node import Node
from lab.fleet.site import Fleet, Watch, Writer, states

FENCE = Path(__file__).with_name("fence_node.py")
LONG = 240.0
"""Seconds: etcd elects, a controller is found silent, and guests boot, all on a busy machine."""


class Demo:
    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.host1, self.host2, self.host3 = fleet.nodes
        share = fleet.quobyte.volume("fast")
        self.volumes = {
            name: fleet.volume(share, n + 1) for n, name in enumerate(("web01", "db01"))
        }

    # -- what a user types

    def moorline(self, *words: str, **more: Any) -> str:
        """Type a command, and show what it prints."""
        say(f"# moorline fleet {' '.join(words)}")
        printed = self.fleet.order(*words, **more)
        for line in printed.rstrip().splitlines():
            say(f"| {line}")
        return printed

    # -- the story

    def tell(self) -> None:
        self.boot()
        self.migrate()
        self.migrate_while_leaders_die()
        self.drain()
        self.evacuate()
        self.come_back()
        self.leave()

    def boot(self) -> None:
        chapter("Three hosts join; two guests boot, and get volumes wherever they are")
        self.web01, self.db01 = self.fleet.boot(web01=self.host1, db01=self.host2)
        self.moorline("hosts")
        for guest in (self.web01, self.db01):
            volume = self.volumes[guest.name]
            self.moorline("attach", guest.name, "--connection", str(volume.connection))
            guest.write_all_the_time(volume)
        other = str(self.volumes["web01"].connection)
        refused = self.fleet.order("attach", "db01", "--connection", other, code=3)
        claim("a volume that web01 has is not given to db01", refused, "")

    def migrate(self) -> None:
        chapter("A guest moves to another host while it writes")
        before = self.web01.writes_on()
        began = time.monotonic()
        self.moorline("migrate", "web01", "host3")
        say(f"{time.monotonic() - began:.1f} s, from the command to its end")
        self.check_moved(self.web01, self.host1, self.host3, before)

    def migrate_while_leaders_die(self) -> None:
        chapter("Another moves; etcd's leader and the leading controller die in the midst")
        before = self.db01.writes_on()
        words = ("fleet", "migrate", "db01", "host1", "--directory", str(self.fleet.admin))
        say("# moorline fleet migrate db01 host1 &")
        order = self.fleet.command.start(*words, "--timeout", str(LONG))
        until(lambda: states(self.host1, "db01"), "a copy is on its way", LONG)
        leading = self.fleet.leading_controller()
        self.fleet.kill_controller(leading)
        leader = self.fleet.etcd.leader()
        self.fleet.etcd.kill(leader)
        say(f"killed: the controller {leading}, and etcd's leader")
        out, err = order.communicate(timeout=LONG)
        say(f"| {out.strip() or err.strip()}")
        claim("the command ends well", order.returncode, 0)
        self.check_moved(self.db01, self.host2, self.host1, before)
        self.fleet.etcd.restart(leader)
        self.fleet.etcd.wait()
        self.fleet.start_controller(leading)

    def drain(self) -> None:
        chapter("A host is emptied before maintenance")
        before = self.web01.writes_on()
        self.moorline("cordon", "host1")
        self.moorline("drain", "host3", deadline=LONG)
        self.check_moved(self.web01, self.host3, self.host2, before)
        self.moorline("uncordon", "host3")
        self.moorline("uncordon", "host1")
        self.moorline("hosts")

    def evacuate(self) -> None:
        chapter("A host is cut off; it is fenced, and its guest runs elsewhere")
        self.written = self.web01.writes_on()
        self.host2.cut_off()
        say("host2 hears nobody, and nobody hears it; its guest writes on")
        claim("web01 runs there still", states(self.host2, "web01"), "running")
        options = self.fleet.directory / "fence.options"
        options.touch(0o600)
        options.write_text(f"plug={self.host2.directory}\n")
        began = time.monotonic()
        fence = ("--fence-agent", str(FENCE), "--fence-options", str(options))
        self.moorline("evacuate", "host2", *fence, "--timeout", str(LONG), deadline=LONG + 60)
        say(f"{time.monotonic() - began:.0f} s, of which 30 are spent listening whether it lives")
        home = self.fleet.node(self.fleet.where("web01"))
        claim("host2 is off", self.host2.has_power, False)
        until(lambda: states(home, "web01") == "running", "it runs elsewhere", LONG)
        self.web01.at(home)
        self.web01.agent.ready(LONG)
        volume = self.volumes["web01"]
        claim("all that web01 wrote on host2 is there", volume.wrong(self.written), [])
        self.web01.write_all_the_time(volume)
        say(f"web01 booted on {home.name}, and writes")

    def come_back(self) -> None:
        chapter("The dead host comes back, and finds that it lost its guest")
        self.host2.power_on()
        self.fleet.start_agent(self.host2)
        until(lambda: not self.fleet.host("host2")["fenced"], "it is let in again", LONG)
        until(lambda: states(self.host2, "web01") == "", "it has no copy of web01", LONG)
        claim(
            "it is cordoned until a person has looked at it", self.fleet.host("host2")["cordoned"]
        )
        self.web01.writes_on()
        claim("web01 writes on, where it is", True)
        self.moorline("uncordon", "host2")
        self.moorline("guests")

    def leave(self) -> None:
        chapter("The volumes and the guests go, and nothing is left")
        for guest in (self.web01, self.db01):
            volume = self.volumes[guest.name]
            last = guest.acknowledged()
            claim(f"what {guest.name} wrote is in its file", volume.wrong(last), [])
            self.moorline("detach", guest.name, volume.id)
        for node in self.fleet.nodes:
            mounted = node.run("cat", "/proc/self/mountinfo")
            claim(f"nothing is mounted on {node.name}", "fuse.quobyte" in mounted, False)

    def check_moved(self, guest: Writer, source: Node, destination: Node, before: int) -> None:
        name, volume = guest.name, self.volumes[guest.name]
        claim(f"{name} is on {destination.name}", self.fleet.where(name), destination.name)
        claim(f"{source.name} is without it", states(source, name), "")
        guest.at(destination)
        last = guest.writes_on()
        say(f"it wrote blocks {before} to {last} meanwhile")
        claim("and all are in its file, each once and as written", volume.wrong(last), [])


def main() -> None:
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("qemu:///system")
    before = leftovers.look(connection)
    with tempfile.TemporaryDirectory(dir=host.LAB, prefix="fleet-") as directory:
        Path(directory).chmod(0o755)
        with Fleet(Path(directory), 3, ("c1", "c2")) as fleet:
            try:
                with Watch(fleet.nodes) as watch:
                    Demo(fleet).tell()
            except BaseException:
                say(fleet.logs())
                raise
            claim(f"in {watch.looks} looks no guest ever ran on two hosts", watch.twice, [])
    claim("no mount, process or domain is left", leftovers.after(connection, before), [])
    connection.close()
