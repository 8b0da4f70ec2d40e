"""External snapshots above a volume: real libvirt takes them, and commits them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from scene import Scene, attribute, disk, findings, halves, small_guest

NAME = "snapped"


@pytest.fixture
def domain(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    """A guest that holds its disks open: it has no system."""
    with small_guest(libvirt_conn, NAME, running=True) as domain:
        yield domain


def virsh(*words: str) -> None:
    done = subprocess.run(["virsh", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def take_snapshot(scene: Scene, domain: Any, volume: Any) -> tuple[str, str]:
    """The disk's device and the file above the volume."""
    device = attribute(disk(domain, volume), "target", "dev")
    above = f"{scene.mount_point()}/above"
    assert device is not None
    spec = f"{device},file={above}"
    virsh("snapshot-create-as", NAME, "s", "--disk-only", "--no-metadata", "--diskspec", spec)
    return device, above


def test_a_snapshot_is_kept_started_with_and_committed(scene: Scene, domain: Any) -> None:
    volume = scene.volume()
    scene.attach(NAME, volume)
    device, above = take_snapshot(scene, domain, volume)
    before = domain.XMLDesc(2)

    def refused() -> str:
        assert scene.attachments() == {volume.id: ("attached", "snapshot")}
        found = findings(scene)
        assert list(found) == ["snapshot"]
        told = scene.detach(NAME, volume, code=3).stderr
        assert f"writes to {above}" in told
        assert found["snapshot"]["next"] in told
        scene.moorline("remove", NAME, "--any", "--force", code=3)
        scene.moorline("sweep")
        assert domain.XMLDesc(2) == before
        return found["snapshot"]["next"]

    refused()
    assert halves(domain, volume) == (True, True)
    domain.destroy()
    refused()
    scene.moorline("start", NAME)
    command = shlex.split(refused())
    assert attribute(disk(domain, volume), "source", "file") == above
    base = str(scene.mount_point() / volume.file.name)
    words = ["virsh", "blockcommit", NAME, device, "--base", base, "--active", "--pivot", "--wait"]
    assert command == words
    virsh(*command[1:])
    assert findings(scene) == {}
    assert scene.attachments() == {volume.id: ("attached", "attached")}
    assert attribute(disk(domain, volume), "source", "file") == base
    domain.destroy()
    scene.detach(NAME, volume)
    assert scene.is_clean()


def test_a_snapshot_is_kept_of_a_volume_that_was_released(scene: Scene, domain: Any) -> None:
    volume = scene.volume()
    scene.attach(NAME, volume)
    _, above = take_snapshot(scene, domain, volume)
    before = domain.XMLDesc(2)
    scene.moorline("release", NAME, volume.id)
    told = scene.detach(NAME, volume, code=3).stderr
    assert f"writes to {above}" in told
    scene.moorline("repair", "--disks", "--boot-disks")
    assert domain.XMLDesc(2) == before
    command = shlex.split(told.partition("hint: ")[2])
    assert command[:2] == ["virsh", "blockcommit"]
    virsh(*command[1:])
    domain.destroy()
    scene.detach(NAME, volume)
    assert halves(domain, volume) == (False, False)
    scene.moorline("repair")
    assert scene.is_clean()


def test_a_copy_that_was_pivoted_to_is_another_file(scene: Scene, domain: Any) -> None:
    volume = scene.volume()
    scene.attach(NAME, volume)
    device = attribute(disk(domain, volume), "target", "dev")
    assert device is not None
    base, copy = (f"{scene.mount_point()}/{name}" for name in (volume.file.name, "copy"))
    job = ("--format", "raw", "--transient-job", "--wait", "--pivot")
    virsh("blockcopy", NAME, device, copy, *job)
    found = findings(scene)
    assert list(found) == ["other-disk"]
    assert copy in found["other-disk"]["what"]
    assert found["other-disk"]["next"] == f"virsh domblklist --details {NAME}"
    virsh("blockcopy", NAME, device, base, "--reuse-external", *job)
    assert findings(scene) == {}
    domain.destroy()
    scene.detach(NAME, volume)
    assert scene.is_clean()
