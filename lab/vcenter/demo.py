"""An instance lands on a VVol datastore of a vCenter stand-in, through two kills.

No vCenter is here: it is lab/vcenter (govmomi's simulator with VVOL and its rules), driven by
the real pyVmomi.
"""

from __future__ import annotations

import json
import signal
import subprocess

from lab import host
from lab.demo import chapter, claim, say, until
from lab.vcenter import GIB, Missing, VCenter
from lab.vcenter.images import stream
from lab.vcenter.prompt import moorline
from lab.vcenter.rig import MIB, Operator

DATASTORES = (
    {"Name": "vvol1", "Type": "VVOL", "Capacity": 900 * GIB, "Free": 500 * GIB},
    {
        "Name": "vmfs1",
        "Type": "VMFS",
        "Capacity": 900 * GIB,
        "Free": 800 * GIB,
        "Accessible": False,
    },
    {
        "Name": "nfs1",
        "Type": "NFS",
        "Capacity": 900 * GIB,
        "Free": 700 * GIB,
        "Maintenance": "inMaintenance",
    },
    {"Name": "nfs41", "Type": "NFS41", "Capacity": 900 * GIB, "Free": 300 * GIB},
    {"Name": "vsan1", "Type": "vsan", "Capacity": 900 * GIB, "Free": 200 * GIB},
)
ODD = 8 * MIB + 64 * 1024
"""Bytes of a disk that is no whole number of MiB."""
ATTACHED = [("box", "attached")]


class Demo:
    """A vCenter, and the commands that a user types."""

    def __init__(self, vcenter: VCenter) -> None:
        self.vcenter = vcenter
        self.here = host.LAB / "vvol"
        self.here.mkdir()
        self.command = moorline(vcenter, self.here)
        self.operator = Operator(vcenter)
        self.odd = self.here / "odd.vmdk"
        self.odd.write_bytes(stream(ODD, {0: b"a guest's data" * 1000, 3: b"more" * 1000}))

    def moorline(self, *args: str, code: int = 0) -> str:
        """Type a command, and show what it prints."""
        self._show(args)
        done = self.command(*args, code=code)
        for line in (done.stderr + done.stdout).splitlines():
            say(f"  {line}")
        return done.stdout + done.stderr

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Type a command, and do not wait for it."""
        self._show(args)
        return self.command.start(*args)

    def _show(self, args: tuple[str, ...]) -> None:
        say(f"# moorline {' '.join(args).replace(f'{self.here}/', '')}")

    def size(self, path: str) -> int:
        return self.vcenter.disks()[path]

    def seen(self) -> list[tuple[str, str]]:
        return [(row["guest"], row["seen"]) for row in self.command.json("list")]

    def of(self, machine: str) -> dict[str, int]:
        """The disks in the machine's own folder."""
        own = [path for path in self.vcenter.disks_of(machine) if path.startswith("[vvol1]")]
        return {path: self.vcenter.disks()[path] for path in own}


def main() -> None:
    try:
        vcenter = VCenter(DATASTORES)
    except Missing as e:
        raise AssertionError(str(e)) from e
    with vcenter:
        demo = Demo(vcenter)
        choose(demo)
        refuse(demo)
        launch(demo)
        volume(demo)
        remove(demo)


def choose(demo: Demo) -> None:
    chapter("Five datastores of five types: one in maintenance, one not accessible")
    demo.moorline("datastores", "--for", "20G", "--explain")
    facts = demo.command.json("datastores", "--for", "20G", "--explain")
    ours = {store["Name"] for store in DATASTORES}  # the simulator's hosts have one more each
    passed = sorted(row["name"] for row in facts if row["against"] and row["name"] in ours)
    claim("the first is VVOL, with the most free space", facts[0]["name"], "vvol1")
    claim("two are passed over", passed, ["nfs1", "vmfs1"])


def refuse(demo: Demo) -> None:
    chapter("An image that is no whole number of MiB is refused on VVOL, with the numbers")
    text = demo.moorline(
        "launch", "box", "--image", str(demo.odd), "--datastore-regex", "vvol.*", code=3
    )
    claim("it says how large it is", str(ODD) in text)
    claim("and how large it could be", str(9 * MIB) in text)
    claim("nothing is left", demo.of("box"), {})


def launch(demo: Demo) -> None:
    chapter("With --round-up it lands on VVOL; kill -9 in the midst of bringing it in")
    args = ["launch", "box", "--image", str(demo.odd), "--round-up", "--memory", "512M"]
    demo.vcenter.fault("HttpNfcLeaseComplete", DelayMs=3000)
    process = demo.start(*args)
    until(lambda: demo.vcenter.calls().get("ImportVApp"), "for the import to begin")
    until(demo.vcenter.uploads, "for the upload")
    process.kill()
    process.communicate()
    claim("killed with SIGKILL", process.returncode, -signal.SIGKILL)
    demo.vcenter.heal()
    demo.moorline(*args)
    claim("the same command made it whole", list(demo.of("box").values()), [9 * MIB])
    claim("on VVOL", all(path.startswith("[vvol1]") for path in demo.of("box")))
    demo.moorline(*args)
    claim("a third time it has nothing to do", list(demo.of("box").values()), [9 * MIB])


def volume(demo: Demo) -> None:
    chapter("A data disk is attached, extended, moved and detached; vCenter ends our session")
    disk = demo.operator.disk("vvol1", mib=8)
    url = f"vmdk://{disk.datastore}/{disk.file}"
    demo.vcenter.heal()
    demo.vcenter.fault("ReconfigVM_Task", DelayMs=1500)
    process = demo.start("attach", "box", url)
    until(lambda: demo.vcenter.calls().get("ReconfigVM_Task"), "for the disk to be plugged")
    demo.operator.log_everybody_out()
    process.communicate()
    claim("its session was ended while it plugged the disk", demo.vcenter.calls()["Login"], 2)
    claim("it logged in again and went on", (process.returncode, demo.seen()), (0, ATTACHED))
    demo.moorline("extend", "box", url, "16M")
    claim("it is larger", demo.size(disk.path), 16 * MIB)
    text = demo.moorline("extend", "box", url, str(17 * MIB + 512 * 1024), code=3)
    claim("an odd size is refused here, too", "not a whole number of MiB" in text)
    (row,) = demo.command.json("list")
    demo.moorline("relocate", "box", row["volume"], "vsan1")
    moved = [path for path, size in demo.vcenter.disks().items() if size == 16 * MIB]
    claim("it lies on vSAN now", [path.split("]")[0] for path in moved], ["[vsan1"])
    demo.moorline("detach", "box", row["volume"])
    claim("its data stays", demo.size(moved[0]), 16 * MIB)
    claim("nothing is wanted any more", json.loads(demo.command("list", "-o", "json").stdout), [])


def remove(demo: Demo) -> None:
    chapter("The instance goes, with its own disk and no other")
    others = set(demo.vcenter.disks()) - set(demo.of("box"))
    demo.moorline("remove", "box")
    claim("its disk is gone", demo.of("box"), {})
    claim("all others are there", set(demo.vcenter.disks()), others)
