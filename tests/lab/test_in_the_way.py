"""What is in the way at a disk is told: no space on its share, or a block job."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import LibvirtRig, until
from scene import Scene, attribute, disk, small_guest

from lab import guest as guests
from lab.command import Moorline
from moorline.testing.contracts.hypervisor import VOLUME

PAUSED_BY_AN_ERROR = [3, 5]
NAME = "copied"


@pytest.fixture
def small_share(libvirt_rig: LibvirtRig) -> Iterator[Path]:
    """A file system with less room than the files on it say, where QEMU gets to."""
    at = Path(libvirt_rig.new_source().path).parent / "small"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", at], check=True)
    yield at
    subprocess.run(["umount", "--lazy", at], check=True)
    at.rmdir()


def test_a_guest_that_is_paused_for_want_of_space(
    moorline: Moorline, guest: guests.Guest, small_share: Path
) -> None:
    image = small_share / "disk.raw"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    moorline("attach", guest.name, str(image), "--format", "raw", "--volume", VOLUME)
    device = Path(guest.wait_for(VOLUME)).name
    moorline("doctor", code=0)
    guest.agent.check(f"(dd if=/dev/zero of=/dev/{device} bs=64k count=64) >/dev/null 2>&1 &")
    until(lambda: guest.domain.state() == PAUSED_BY_AN_ERROR)
    try:
        (finding,) = moorline.json("doctor", code=10)["findings"]
        assert (finding["check"], finding["subject"]) == ("paused-guest", guest.name)
        assert f"no space left for its disk {device_of(moorline)}, {image}" in finding["what"]
        assert finding["what"].endswith(f", on {small_share}")
        assert finding["next"] == f"virsh resume {guest.name}"
        (told,) = moorline.json("explain", VOLUME)
        assert told["next"] == finding["next"]
    finally:
        subprocess.run(["mount", "-o", "remount,size=32m", small_share], check=True)
        guest.domain.resume()
    moorline("doctor", code=0)
    moorline("detach", guest.name, VOLUME)


def device_of(moorline: Moorline) -> str:
    return str(moorline.json("show", VOLUME)[0]["device"])


@pytest.fixture
def domain(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    with small_guest(libvirt_conn, NAME, running=True) as domain:
        yield domain


def test_a_block_job_that_keeps_a_disk_leads_to_virsh(scene: Scene, domain: Any) -> None:
    volume = scene.volume()
    scene.attach(NAME, volume)
    device = attribute(disk(domain, volume), "target", "dev")
    copy = f"{scene.mount_point()}/copy"
    job = ("--dest", copy, "--format", "raw", "--transient-job")
    subprocess.run(["virsh", "blockcopy", NAME, str(device), *job], check=True)
    try:
        kept = scene.detach(NAME, volume, "--timeout", "2", code=5)
        assert f"virsh blockjob {NAME} {device}" in kept.stderr
        assert "--abort" in kept.stderr
    finally:
        subprocess.run(["virsh", "blockjob", NAME, str(device), "--abort"], check=True)
    domain.destroy()  # nobody in it lets go of a disk
    scene.detach(NAME, volume)
