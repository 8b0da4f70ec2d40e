"""Files become vSCSI disks of two LPARs through a NovaLink stand-in, through a kill and a rebuild.

No PowerVM hardware is here: NovaLink is lab/novalink, driven by the real pypowervm.
"""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import host
from lab.command import Moorline
from lab.demo import chapter, claim, say, until
from lab.novalink import NovaLink
from lab.novalink.rig import image, mapped

SHARES = host.LAB / "shares"


@dataclass(frozen=True)
class Volume:
    """A raw image on a share that the operator mounted."""

    id: str
    file: Path


class Demo:
    """One NovaLink partition, and the commands that a user types on it."""

    def __init__(self, novalink: NovaLink, name: str) -> None:
        self.novalink = novalink
        here = host.LAB / name
        here.mkdir()
        password = here / "password"
        password.touch(mode=0o600)
        password.write_text(novalink.password)
        self._config = here / "moorline.conf"
        self._config.write_text(
            "[libvirt]\n"
            f"connection_uri = powervm://localhost:{novalink.port}\n"
            "[powervm]\n"
            f"novalink_user = {novalink.user}\n"
            f"novalink_password_file = {password}\n"
            f"novalink_ca = {novalink.ca}\n"
        )
        self._moorline = Moorline(here / "state")

    def arguments(self, *args: str) -> list[str]:
        return [*args, "--config-file", str(self._config)]

    def moorline(self, *args: str, code: int = 0) -> str:
        """Type a command, and show what it prints."""
        say(f"# moorline {' '.join(args)}")
        done = self._moorline(*self.arguments(*args), code=code)
        for line in (done.stdout + done.stderr).splitlines():
            say(f"  {line}")
        return done.stderr

    def attach(self, lpar: str, volume: Volume, *more: str, code: int = 0) -> str:
        return self.moorline("attach", lpar, *self._named(volume), *more, code=code)

    def killed_attach(self, lpar: str, volume: Volume) -> None:
        """Kill the command after the mapping was made and before it knows."""
        mappings = len(mapped(self.novalink))
        self.novalink.faults.set(slow_reply=2)
        args = ["attach", lpar, *self._named(volume)]
        process = self._moorline.start(*self.arguments(*args))
        say(f"# moorline {' '.join(args)}")
        try:
            until(lambda: len(mapped(self.novalink)) > mappings, "for the mapping")
        finally:
            process.kill()
            process.communicate()
            self.novalink.faults.set(slow_reply=0)
        claim("killed with SIGKILL before NovaLink answered", process.returncode, -signal.SIGKILL)

    def seen(self) -> dict[str, str]:
        rows = self._moorline.json(*self.arguments("list"))
        return {row["volume"]: row["seen"] for row in rows}

    def posts(self) -> int:
        return self.novalink.service.updates()

    def _named(self, volume: Volume) -> list[str]:
        return [str(volume.file), "--format", "raw", "--volume", volume.id]


def share(name: str) -> Path:
    """A file system that somebody mounted, as NFS and GPFS are on a NovaLink partition."""
    at = SHARES / name
    at.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", f"server:/{name}", str(at)], check=True)
    return at


def main() -> None:
    nfs, gpfs = share("nfs"), share("gpfs")
    one = Volume("3f2a9c1e-0001", image(nfs, "volume-1"))
    two = Volume("3f2a9c1e-0002", image(gpfs, "volume-2"))
    three = Volume("1b04d7f2-0003", image(nfs, "volume-3"))  # the first in order, the last to come
    with NovaLink(["web01", "db01"]) as novalink:
        demo = Demo(novalink, "novalink")
        attach_two(demo, one, two)
        refusals(demo, one, nfs)
        kill(demo, three)
        rebuild(demo)
        detach(demo, one, two, three)
    refused_systems(one)
    for at in (nfs, gpfs):
        subprocess.run(["umount", str(at)], check=True)  # nothing of ours holds them


def attach_two(demo: Demo, one: Volume, two: Volume) -> None:
    chapter("A file on NFS becomes a disk of web01, one on GPFS a disk of db01")
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


def refusals(demo: Demo, one: Volume, nfs: Path) -> None:
    chapter("What must not be is refused before anything changes")
    posts = demo.posts()
    demo.attach("db01", one, code=3)
    fresh = str(image(nfs, "fresh"))
    demo.moorline("attach", "db01", str(nfs / "absent"), "--format", "raw", code=3)
    qcow2 = nfs / "copy-on-write"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(qcow2), "1M"], check=True)
    demo.moorline("attach", "db01", str(qcow2), "--format", "qcow2", code=3)
    demo.novalink.system.alter("db01", rmc="inactive")
    demo.moorline("attach", "db01", fresh, "--format", "raw", code=3)
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


def detach(demo: Demo, one: Volume, two: Volume, three: Volume) -> None:
    chapter("Detach")
    for lpar, volume in (("web01", one), ("db01", two), ("web01", three)):
        demo.moorline("detach", lpar, volume.id)
    claim("NovaLink maps nothing any more", mapped(demo.novalink), [])
    claim("nothing is wished any more", demo.seen(), {})
    posts = demo.posts()
    demo.moorline("detach", "web01", one.id)
    claim("a second detach does nothing", demo.posts(), posts)


def refused_systems(one: Volume) -> None:
    chapter("A traditional VIOS and an HMC are refused")
    with NovaLink(["web01"], mode="traditional") as novalink:
        demo = Demo(novalink, "traditional")
        told = demo.attach("web01", one, code=3)
        claim("it says why", "does not host virtual I/O (traditional VIOS)" in told)
        claim("nothing was posted", demo.posts(), 0)
    with NovaLink(["web01"], mode="hmc") as novalink:
        demo = Demo(novalink, "hmc")
        told = demo.attach("web01", one, code=3)
        claim("it says why", "is an HMC, not NovaLink" in told)
