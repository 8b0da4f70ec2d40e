"""Attaching what is attached already, by another connection: the one that works is not lost."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from scene import Scene, Volume, attribute, disk

from lab.guest import Guest, pattern


def as_qcow2(scene: Scene, volume: Volume) -> str:
    info = json.loads(volume.connection.read_text())
    info["data"]["format"] = "qcow2"
    return str(scene.write("qcow2.json", info))


def test_a_refused_connection_is_not_what_is_kept(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    guest.write(volume.id, "before")
    again = ("attach", guest.name, "--connection", as_qcow2(scene, volume))
    assert "keeps the connection that it had" in scene.moorline(*again, code=3).stderr
    assert scene.moorline.json("sweep") == []
    assert scene.attachments() == {volume.id: ("attached", "attached")}
    guest.write(volume.id, "after")
    assert volume.bytes() == pattern("after")
    scene.attach(guest.name, volume)
    scene.detach(guest.name, volume)
    assert scene.is_clean()


@pytest.mark.parametrize("args", [(), ("--dry-run",)])
def test_a_raw_disk_is_not_taken_for_the_image_that_its_guest_wrote_into_it(
    scene: Scene, stopped: Any, args: tuple[str, ...]
) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    stopped.create()
    # As the guest could: what its raw disk begins with is its own affair.
    subprocess.run(["qemu-img", "create", "-qf", "qcow2", volume.file, "1M"], check=True)
    again = ("attach", stopped.name(), "--connection", as_qcow2(scene, volume), *args)
    refused = scene.moorline(*again, code=3)
    assert "the guest's disk of this volume is raw, not qcow2" in refused.stderr
    for inactive in (False, True):
        plugged = disk(stopped, volume, inactive=inactive)
        assert attribute(plugged, "driver", "type") == "raw"
    stopped.destroy()
    refused = scene.moorline(*again, code=3)
    assert "the guest's disk of this volume is raw, not qcow2" in refused.stderr
    scene.detach(stopped.name(), volume)
    assert scene.is_clean()


def test_what_a_suspended_guest_was_asked_for_is_not_told_as_attached(
    scene: Scene, guest: Guest
) -> None:
    """It lets the disk go when it goes on, and libvirt does not tell that it was asked."""
    volume = scene.volume()
    scene.attach(guest.name, volume)
    guest.domain.suspend()
    try:
        kept = scene.detach(guest.name, volume, "--timeout", "3", code=5).stderr
        assert f"{guest.name} is paused, and lets no disk go until it goes on" in kept
        assert f"virsh resume {guest.name}" in kept
        said = scene.attach(guest.name, volume, "--timeout", "3", code=5).stderr
    finally:
        guest.domain.resume()
    assert "not yet gone" in said
    assert scene.attachments()[volume.id][0] == "absent"
    scene.attach(guest.name, volume)
    guest.write(volume.id, "after")
    assert volume.bytes() == pattern("after")
    scene.detach(guest.name, volume)
    assert scene.is_clean()
