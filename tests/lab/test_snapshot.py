"""External snapshots above a volume: real libvirt takes them, and commits them."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from libvirt_rig import CONFIG, until
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


def let_go(scene: Scene, domain: Any, volume: Any) -> None:
    """What is not ours any more is taken away by hand."""
    domain.destroy()
    domain.detachDeviceAlias(f"ua-{volume.id}", CONFIG)
    scene.moorline("repair")


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
    assert findings(scene)["snapshot"]["next"] == told.partition("hint: ")[2].strip()
    assert "is not taken from" in str(scene.moorline("repair", "--disks", "--boot-disks", code=5))
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
    assert found["other-disk"]["next"] == f"moorline disks {NAME}"
    before = domain.XMLDesc(2)
    told = scene.detach(NAME, volume, code=3).stderr
    scene.moorline("remove", NAME, "--any", "--force", code=3)
    refused = scene.moorline("extend", NAME, volume.id, code=3).stderr
    assert "is not extended" in refused
    assert copy in refused
    assert (domain.XMLDesc(2), domain.isActive()) == (before, 1)
    assert scene.attachments() == {volume.id: ("attached", "foreign")}
    back, leave = [shlex.split(each) for each in told.partition("hint: ")[2].split("`")[1::2]]
    assert back == ["virsh", "blockcopy", NAME, device, base, "--reuse-external", *job]
    assert leave == ["moorline", "release", NAME, volume.id]
    virsh(*back[1:])
    assert findings(scene) == {}
    assert scene.attachments() == {volume.id: ("attached", "attached")}
    domain.destroy()
    scene.detach(NAME, volume)
    assert scene.is_clean()


@pytest.mark.parametrize("released", [False, True])
def test_a_block_job_is_waited_for_and_the_disk_looked_at_again(
    scene: Scene, domain: Any, released: bool
) -> None:
    volume = scene.volume()
    scene.attach(NAME, volume)
    device = attribute(disk(domain, volume), "target", "dev")
    assert device is not None
    base, copy = (f"{scene.mount_point()}/{name}" for name in (volume.file.name, "copy"))
    if released:
        scene.moorline("release", NAME, volume.id)
    virsh("blockcopy", NAME, device, copy, "--format", "raw", "--transient-job")
    before = domain.XMLDesc(2)
    told = scene.detach(NAME, volume, "--timeout", "1", code=5).stderr
    assert f"virsh blockjob {NAME} {device}" in told
    assert domain.XMLDesc(2) == before
    with ThreadPoolExecutor(1) as pool:
        command = ["detach", NAME, volume.id, "--timeout", "30"]
        waiting = pool.submit(scene.moorline, *command, code=None)
        until(lambda: waiting.running())
        time.sleep(1)
        virsh("blockjob", NAME, device, "--pivot")
        done = waiting.result()
    assert done.returncode == (7 if released else 3), done.stderr
    assert copy in done.stderr
    assert attribute(disk(domain, volume), "source", "file") == copy
    assert halves(domain, volume) == (True, True)
    if released:
        let_go(scene, domain, volume)
    else:
        assert scene.attachments() == {volume.id: ("absent", "foreign")}
        job = ("--format", "raw", "--transient-job", "--wait", "--pivot")
        virsh("blockcopy", NAME, device, base, "--reuse-external", *job)
        domain.destroy()
        scene.detach(NAME, volume)
    assert scene.is_clean()


def test_a_guest_keeps_its_snapshot_of_a_volume_that_was_released(
    scene: Scene, domain: Any
) -> None:
    volume = scene.volume()
    scene.attach(NAME, volume)
    _, above = take_snapshot(scene, domain, volume)
    scene.moorline("release", NAME, volume.id)
    told = scene.moorline("remove", NAME, "--any", "--force", code=3).stderr
    assert f"writes to {above}" in told
    assert domain.isActive()
    assert attribute(disk(domain, volume), "source", "file") == above
    let_go(scene, domain, volume)
    assert scene.is_clean()


def test_a_snapshot_is_not_adopted_in_its_base_s_place(scene: Scene, domain: Any) -> None:
    volume = scene.volume()
    scene.attach(NAME, volume)
    _, above = take_snapshot(scene, domain, volume)
    url = f"quobyte://{scene.share.export}/above"
    for released in (False, True):
        if released:
            scene.moorline("release", NAME, volume.id)
        words = ["--volume", volume.id] if released else []
        told = scene.moorline("adopt", NAME, url, "--format", "qcow2", *words, code=3).stderr
        assert volume.id in told
        scene.moorline("adopt", "--all", code=None)
        rows = scene.moorline.json("list")
        assert [row["volume"] for row in rows] == ([] if released else [volume.id])
        assert all(volume.file.name in row["storage"] for row in rows)
    assert attribute(disk(domain, volume), "source", "file") == above
    let_go(scene, domain, volume)
    assert scene.is_clean()
