"""Files become vSCSI disks of two LPARs through a NovaLink stand-in, through a kill and a rebuild.

No PowerVM hardware is here: NovaLink is lab/novalink, driven by the real pypowervm. NFS and GPFS
are FUSE mounts that the operator made; lab/mounttable.py gives them their types.
"""

from __future__ import annotations

import os
import signal
import subprocess

from lab import host
from lab.demo import chapter, claim, say, until
from lab.novalink import NovaLink
from lab.novalink.partition import Shares, Volume, moorline, shares
from lab.novalink.rig import mapped


class Demo:
    """One NovaLink partition, and the commands that a user types on it."""

    def __init__(self, novalink: NovaLink, name: str, at: Shares) -> None:
        self.novalink = novalink
        here = host.LAB / name
        here.mkdir()
        self._moorline = moorline(novalink, here, at)

    def moorline(self, *args: str, code: int = 0) -> str:
        """Type a command, and show what it prints."""
        say(f"# moorline {' '.join(args)}")
        done = self._moorline(*args, code=code)
        for line in (done.stderr + done.stdout).splitlines():
            say(f"  {line}")
        return done.stderr

    def attach(self, lpar: str, volume: Volume, code: int = 0) -> str:
        return self.moorline("attach", lpar, *_named(volume), code=code)

    def killed_attach(self, lpar: str, volume: Volume) -> None:
        """Kill the command after the mapping was made and before it knows."""
        mappings, posts = len(mapped(self.novalink)), self.posts()
        self.novalink.faults.set(slow_reply=2)
        args = ["attach", lpar, *_named(volume)]
        process = self._moorline.start(*args)
        say(f"# moorline {' '.join(args)}")
        try:
            until(lambda: len(mapped(self.novalink)) > mappings, "for the mapping")
        finally:
            process.kill()
            process.communicate()
            self.novalink.faults.set(slow_reply=0)
        until(
            lambda: self.posts() > posts, "for NovaLink to count the request, once it has answered"
        )
        claim("killed with SIGKILL before NovaLink answered", process.returncode, -signal.SIGKILL)

    def seen(self) -> dict[str, str]:
        rows = self._moorline.json("list")
        return {row["volume"]: row["seen"] for row in rows}

    def posts(self) -> int:
        return self.novalink.service.updates()


def _named(volume: Volume) -> list[str]:
    return ["--connection", str(volume.connection)]


def main() -> None:
    with shares(host.LAB) as at:
        one = at.on_nfs("3f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a51")
        two = at.on_gpfs("3f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a52")
        three = at.on_nfs(
            "1b04d7f2-2c8e-4f60-8f13-7a90be12cd53"
        )  # the first in order, the last to come
        with NovaLink(["web01", "db01"]) as novalink:
            demo = Demo(novalink, "novalink", at)
            attach_two(demo, one, two)
            refusals(demo, one, at)
            kill(demo, three)
            rebuild(demo)
            grow(demo, two)
            detach(demo, one, two, three)
        refused_systems(one, at)
    say("Both shares could be unmounted: nothing of ours holds them.")


def attach_two(demo: Demo, one: Volume, two: Volume) -> None:
    chapter("A file on NFS becomes a disk of web01, one on GPFS a disk of db01")
    say(f"Cinder says: {one.connection.read_text()}")
    say(f"Cinder says: {two.connection.read_text()}")
    demo.attach("web01", one)
    demo.attach("db01", two)
    found = mapped(demo.novalink)
    claim(
        "NovaLink maps both, each marked with its volume", [m[1] for m in found], [one.id, two.id]
    )
    say("The same again is success, and changes nothing:")
    posts = demo.posts()
    demo.attach("web01", one)
    claim("nothing was posted", demo.posts(), posts)


def refusals(demo: Demo, one: Volume, at: Shares) -> None:
    chapter("What must not be is refused before anything changes")
    posts = demo.posts()
    demo.attach("db01", one, code=3)
    container = at.on_nfs("copy-on-write", format="qcow2")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(container.file), "1M"]
    subprocess.run(command, check=True)
    demo.attach("db01", container, code=3)
    absent = at.on_nfs("absent")
    absent.file.unlink()
    demo.attach("db01", absent, code=3)
    fresh = at.on_gpfs("fresh")
    demo.novalink.system.alter("db01", rmc="inactive")
    demo.attach("db01", fresh, code=3)
    demo.novalink.system.alter("db01", rmc="active")
    claim("nothing was posted", demo.posts(), posts)


def kill(demo: Demo, three: Volume) -> None:
    chapter("kill -9 between the change and its record")
    demo.killed_attach("web01", three)
    claim("the next command finds the disk by its mark", demo.seen()[three.id], "attached")
    posts = demo.posts()
    demo.attach("web01", three)
    claim("attaching again posts nothing", demo.posts(), posts)
    places = [m[2:] for m in mapped(demo.novalink) if m[1] == three.id]
    claim("it is mapped once", len(places), 1)


def rebuild(demo: Demo) -> None:
    chapter("web01 is deleted and rebuilt: its disks come back to their slots and LUNs")
    before = sorted(mapped(demo.novalink))
    demo.novalink.system.unplug("web01")
    claim("its mappings are gone", len(mapped(demo.novalink)), 1)
    demo.moorline("sweep")
    claim("all are back where they were", sorted(mapped(demo.novalink)), before)


def grow(demo: Demo, two: Volume) -> None:
    chapter("The file on GPFS grows, and db01 sees it")
    os.truncate(two.file, 3 << 20)
    posts = demo.posts()
    demo.moorline("extend", "db01", two.id)
    claim("by a rescan: no mapping was touched", demo.posts(), posts)


def detach(demo: Demo, one: Volume, two: Volume, three: Volume) -> None:
    chapter("Detach")
    for lpar, volume in (("web01", one), ("db01", two), ("web01", three)):
        demo.moorline("detach", lpar, volume.id)
    claim("NovaLink maps nothing any more", mapped(demo.novalink), [])
    claim("nothing is wanted any more", demo.seen(), {})
    posts = demo.posts()
    demo.moorline("detach", "web01", one.id)
    claim("a second detach does nothing", demo.posts(), posts)


def refused_systems(one: Volume, at: Shares) -> None:
    chapter("A traditional VIOS and an HMC are refused")
    with NovaLink(["web01"], mode="traditional") as novalink:
        demo = Demo(novalink, "traditional", at)
        told = demo.attach("web01", one, code=3)
        claim("it says why", "does not host virtual I/O (traditional VIOS)" in told)
        claim("nothing was posted", demo.posts(), 0)
    with NovaLink(["web01"], mode="hmc") as novalink:
        demo = Demo(novalink, "hmc", at)
        told = demo.attach("web01", one, code=3)
        claim("it says why", "is an HMC, not NovaLink" in told)
