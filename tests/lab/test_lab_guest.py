"""The guest and the host that it runs on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from lab import guest as guests
from lab import host, standin
from lab.quobyte.cluster import QuobyteVolume

VOLUME = "3f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b"


def disk_xml(file: Path, bus: str, serial: str = VOLUME) -> str:
    disk = ET.Element("disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw", cache="none", io="native")
    ET.SubElement(disk, "source", file=str(file))
    ET.SubElement(disk, "target", dev={"virtio": "vdb", "scsi": "sdb"}[bus], bus=bus)
    ET.SubElement(disk, "serial").text = serial
    ET.SubElement(disk, "alias", name=f"ua-{serial}")
    return ET.tostring(disk, encoding="unicode")


def detach(guest: guests.Guest, gone: Callable[[], bool]) -> None:
    guest.domain.detachDeviceAlias(f"ua-{VOLUME}", 3)
    end = time.monotonic() + 10
    while not gone() and time.monotonic() < end:
        time.sleep(0.05)
    assert gone()


def no_disks(guest: guests.Guest) -> Callable[[], bool]:
    return lambda: "<disk" not in guest.domain.XMLDesc(0) and not guest.disks()


@pytest.fixture
def mounted(share: QuobyteVolume, lab: Path) -> Any:
    at = lab / "at"
    at.mkdir(exist_ok=True)
    subprocess.run(["mount.quobyte", share.export, at], check=True)
    yield at
    host.umount(at)


def test_the_guest_runs_commands(guest: guests.Guest) -> None:
    assert guest.agent.run("echo one; echo two >&2; exit 3") == (3, ["one", "two"])
    assert guest.agent.check("uname -s") == ["Linux"]
    assert guest.agent.run("true") == (0, [])


def test_a_command_that_takes_too_long_does_not_spoil_the_next(guest: guests.Guest) -> None:
    with pytest.raises(guests.Silent):
        guest.agent.run("sleep 0.6; echo late", deadline=0.2)
    assert guest.agent.check("echo next") == ["next"]


@pytest.mark.parametrize("bus", ["virtio", "scsi"])
def test_a_disk_on_the_share_is_the_guests_disk(
    guest: guests.Guest, share: QuobyteVolume, mounted: Path, bus: str
) -> None:
    behind = share.disk("disk.raw")
    guest.domain.attachDeviceFlags(disk_xml(mounted / "disk.raw", bus), 3)
    assert guest.wait_for(VOLUME).startswith({"virtio": "/dev/vd", "scsi": "/dev/sd"}[bus])
    guest.write(VOLUME, "moorline", offset=4096, length=1 << 20)
    assert behind.read_bytes()[4096 : 4096 + (1 << 20)] == guests.pattern("moorline", 1 << 20)
    with behind.open("r+b") as file:
        file.seek(8192)
        file.write(guests.pattern("from behind"))
    assert guest.digest(VOLUME, offset=8192) == guests.digest(guests.pattern("from behind"))
    detach(guest, no_disks(guest))


def test_the_definition_has_room_for_ten_more_disks(guest: guests.Guest) -> None:
    domain = ET.fromstring(guest.domain.XMLDesc(0))
    ports = domain.findall("devices/controller[@model='pcie-root-port']")
    assert len(ports) - 2 >= 10


def test_guests_outlive_libvirtd(
    guest: guests.Guest, share: QuobyteVolume, mounted: Path, tmp_path: Path
) -> None:
    import libvirt

    share.disk("disk.raw")
    guest.domain.attachDeviceFlags(disk_xml(mounted / "disk.raw", "virtio"), 3)
    host.kill_libvirtd()
    assert guest.wait_for(VOLUME)
    host.start_libvirtd()
    connection = libvirt.open("qemu:///system")
    guest.domain = connection.lookupByName(guest.name)
    assert guest.domain.isActive()
    detach(guest, no_disks(guest))


def test_a_mount_made_late_below_a_private_parent_is_not_the_guests(
    guest: guests.Guest, share: QuobyteVolume, lab: Path
) -> None:
    import libvirt

    base = lab / "concealed"
    at = base / "at"
    at.mkdir(parents=True)
    host.conceal(base)
    share.disk("disk.raw")
    try:
        subprocess.run(["mount.quobyte", share.export, at], check=True)
        assert (at / "disk.raw").exists()
        with pytest.raises(libvirt.libvirtError, match="No such file"):
            guest.domain.attachDeviceFlags(disk_xml(at / "disk.raw", "virtio"), 3)
        standin.umount(str(at))
    finally:
        standin.umount(str(base))


def test_systemd_is_out_of_sight(lab: Path) -> None:
    assert not Path("/run/systemd").exists()
    state = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True)
    assert state.stdout.strip() in ("offline", "unknown", "")


def test_the_root_mount_is_shared_as_systemd_makes_it(lab: Path) -> None:
    table = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    (root,) = (line for line in table if line[4] == "/")
    shared = any(field.startswith("shared:") for field in root[6 : root.index("-")])
    assert shared == (os.environ[host.INSIDE] == "shared")


def test_fuse_connections_can_be_aborted(share: QuobyteVolume, mounted: Path) -> None:
    minor = os.minor(mounted.stat().st_dev)
    Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")
    with pytest.raises(OSError, match="not connected"):
        mounted.stat()
