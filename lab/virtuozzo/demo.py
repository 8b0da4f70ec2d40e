"""Disks on two Virtuozzo Storage clusters, one with a password that changes and shows nowhere."""

from __future__ import annotations

import grp
import json
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import guest as guests
from lab import host
from lab.command import Moorline
from lab.demo import chapter, claim, say
from lab.demo_guests import KIB, DemoGuests, run_demo
from lab.virtuozzo.cluster import Cluster, Virtuozzo

FIRST, SECOND = "first:/pass word", "second, longer"


@dataclass(frozen=True)
class Volume:
    """A disk image on a cluster, as Cinder would hand it over."""

    id: str
    cluster: Cluster
    file: Path
    connection: Path

    def publish(self) -> None:
        """Write the connection with the cluster's servers and password as they are now."""
        connection = {**self.cluster.connection(self.file.name), "serial": self.id}
        self.connection.write_text(json.dumps(connection))


class Demo(DemoGuests):
    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.virtuozzo = Virtuozzo(host.LAB)
        self.vault = self.virtuozzo.cluster("vault", password=FIRST)
        self.open = self.virtuozzo.cluster("open", servers=())
        self.state = host.LAB / "state"
        self._moorline = Moorline(self.state)
        self._config = host.LAB / "moorline.conf"
        qemu = pwd.getpwuid(host.qemu_user())
        self._config.write_text(
            "[libvirt]\n"
            f"vzstorage_mount_user = {qemu.pw_name}\n"
            f"vzstorage_mount_group = {grp.getgrgid(qemu.pw_gid).gr_name}\n"
        )
        self.printed = ""

    def volume(self, cluster: Cluster, number: int) -> Volume:
        # Unlike in the first 20 bytes: no more of a serial fits into a virtio disk.
        id = f"{number}f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b"
        file = cluster.disk(f"volume-{id}")
        volume = Volume(id, cluster, file, host.LAB / f"volume-{number}.json")
        volume.publish()
        return volume

    def moorline(self, *args: str) -> None:
        """Type a command, and show what it prints."""
        say(f"# moorline {' '.join(args)}")
        done = self._moorline(*args, "--config-file", str(self._config))
        self.printed += done.stdout + done.stderr
        for line in done.stdout.splitlines():
            say(f"  {line}")

    def attach(self, guest: guests.Guest, volume: Volume) -> None:
        self.moorline("attach", guest.name, "--connection", str(volume.connection))

    def link(self, volume: Volume) -> str:
        rows = self._moorline.json("list", "--config-file", str(self._config))
        (row,) = (row for row in rows if row["volume"] == volume.id)
        self.printed += str(row)
        return str(row["link"])

    def rows(self) -> list[Any]:
        return list(self._moorline.json("list", "--config-file", str(self._config)))

    # -- what is true: told by the mount table, libvirt, the guest and the file

    def mounts(self, cluster: Cluster) -> int:
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        ends = [line.partition(" - ")[2].split()[:2] for line in table]
        return ends.count(["fuse.vstorage", f"vstorage://{cluster.name}"])

    def calls(self, *command: str) -> int:
        return [call[: len(command)] for call in self.virtuozzo.calls()].count([*command])

    def check_attached(self, guest: guests.Guest, volume: Volume) -> None:
        both = [self.disk(guest, volume, inactive=inactive) for inactive in (False, True)]
        there = [disk is not None for disk in both]
        claim(f"libvirt: {guest.name} has it, running and after a reboot", there, [True, True])
        assert both[0] is not None
        driver, label = both[0].find("driver"), both[0].find("source/seclabel")
        assert driver is not None
        how = (driver.get("type"), driver.get("cache"))
        claim("libvirt: raw, writeback", how, ("raw", "writeback"))
        fixed = label is not None and label.attrib == {"model": "dac", "relabel": "no"}
        claim("libvirt: must not change the file's owner", fixed)
        claim(f"the guest: {guest.name} sees it", bool(guest.wait_for(volume.id)))

    def source(self, guest: guests.Guest, volume: Volume) -> str:
        disk = self.disk(guest, volume, inactive=True)
        assert disk is not None
        source = disk.find("source")
        assert source is not None
        return str(source.get("file"))


def main() -> None:
    run_demo(Demo, tell)


def tell(demo: Demo) -> None:
    one, two = demo.volume(demo.vault, 1), demo.volume(demo.open, 2)
    three = demo.volume(demo.vault, 3)
    attach_with_password(demo, one)
    attach_without(demo, two)
    rotate(demo, one, three)
    chapter("Detach: a cluster is unmounted when its last user goes")
    demo.moorline("detach", "web01", one.id)
    claim("web02 still uses the cluster, so it stays mounted", demo.mounts(demo.vault), 1)
    demo.check_data(demo.web02, three, "undisturbed")
    demo.moorline("detach", "web02", three.id)
    claim("its last user is gone, and so is the mount", demo.mounts(demo.vault), 0)
    attach_anew(demo, one)
    check_secrecy(demo)
    chapter("The rest goes")
    demo.moorline("detach", "web01", one.id)
    demo.moorline("detach", "web02", two.id)
    claim("the other cluster is unmounted as well", demo.mounts(demo.open), 0)
    claim("nothing is wanted any more", demo.rows(), [])


def attach_with_password(demo: Demo, one: Volume) -> None:
    chapter("A disk on a cluster with a password and a list of metadata servers")
    demo.attach(demo.web01, one)
    claim("the cluster is mounted: fuse.vstorage, once", demo.mounts(demo.vault), 1)
    listed = (host.VSTORAGE / "clusters/vault/bs.list").read_text()
    claim("the node has the list of its metadata servers", listed, "mds1.lab\nmds2.lab\n")
    authenticated = demo.calls("vstorage", "-c", "vault", "auth-node")
    claim("and was authenticated once", authenticated, 1)
    demo.check_attached(demo.web01, one)
    demo.check_data(demo.web01, one, "first")


def attach_without(demo: Demo, two: Volume) -> None:
    chapter("A disk on another cluster, found by DNS, without a password")
    demo.attach(demo.web02, two)
    claim("it is mounted, too", (demo.mounts(demo.vault), demo.mounts(demo.open)), (1, 1))
    claim("nobody was authenticated for it", demo.calls("vstorage", "-c", "open"), 0)
    demo.check_attached(demo.web02, two)
    demo.check_data(demo.web02, two, "second")


def rotate(demo: Demo, one: Volume, three: Volume) -> None:
    chapter("The password changes, and the metadata servers are told in another order")
    link, source = demo.link(one), demo.source(demo.web01, one)
    demo.vault.rotate(SECOND)
    demo.vault.servers = demo.vault.servers[::-1]
    for volume in (one, three):
        volume.publish()
    demo.attach(demo.web01, one)
    claim("the disk's path is what it was", demo.source(demo.web01, one), source)
    demo.attach(demo.web02, three)
    claim("a new disk of the cluster shares the link", demo.link(three), link)
    claim("there is still one mount", demo.mounts(demo.vault), 1)
    demo.check_data(demo.web02, three, "third")


def attach_anew(demo: Demo, one: Volume) -> None:
    chapter("Mounted again: the node's old authentication is worth nothing any more")
    demo.attach(demo.web01, one)
    authenticated = demo.calls("vstorage", "-c", "vault", "auth-node")
    claim("it was authenticated with the new password", authenticated, 2)
    demo.check_attached(demo.web01, one)
    data = demo.web01.digest(one.id, offset=64 * KIB, length=256 * KIB)
    claim("the data is there", data, guests.digest(guests.pattern("first", 256 * KIB)))


def check_secrecy(demo: Demo) -> None:
    chapter("The passwords are nowhere")
    files = [path for path in demo.state.rglob("*") if path.is_file()]
    files += [path for path in Path("/var/log/libvirt").rglob("*") if path.is_file()]
    places = {
        "command lines": json.dumps(demo.virtuozzo.calls()).encode(),
        "what moorline printed": demo.printed.encode(),
        "moorline's files": b"".join(path.read_bytes() for path in files),
        "names of its files": "".join(map(str, files)).encode(),
    }
    for place, content in places.items():
        found = [password for password in (FIRST, SECOND) if password.encode() in content]
        claim(f"not in {place} ({len(content)} bytes)", found, [])
