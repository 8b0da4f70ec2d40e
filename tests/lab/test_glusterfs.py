"""GlusterFS without stand-ins: glusterd, a brick, the FUSE client, a guest.

Unlike the stand-ins' it has a client that lives on while its server is away, and locks that all
mounts of a volume see.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from libvirt_rig import until
from scene import MountLine, mount_table

from lab import host
from lab.command import Moorline
from lab.glusterfs.cluster import GlusterVolume, Missing
from lab.guest import Guest, pattern
from tests.support.missing import missing

SIZE = 2 << 20


class Scene:
    """A volume of GlusterFS, a state directory, and witnesses of what becomes of them."""

    def __init__(self, moorline: Moorline, gluster: GlusterVolume) -> None:
        self.moorline = replace(moorline, environment={"PATH": host.real_path()})
        self.gluster = gluster
        assert moorline.state is not None
        self._state = moorline.state

    def disk(self) -> str:
        """A new image's id, which is also its name."""
        id = str(uuid.uuid4())
        self.gluster.disk(id, SIZE)
        return id

    def attach(self, guest: Guest, id: str, *more: str, code: int = 0) -> str:
        data = {"name": id, "format": "raw", "volume_id": id}
        data["export"] = self.gluster.export()
        file = self._state.parent / f"{id}.json"
        file.write_text(json.dumps({"driver_volume_type": "glusterfs", "data": data}))
        said = self.moorline("attach", guest.name, "--connection", str(file), *more, code=code)
        return said.stderr

    def detach(self, guest: Guest, id: str) -> None:
        self.moorline("detach", guest.name, id)

    def seen(self) -> dict[str, str]:
        return {row["volume"]: row["seen"] for row in self.moorline.json("list")}

    def findings(self) -> dict[str, dict[str, str]]:
        told = self.moorline.json("doctor", code=None)
        return {each["check"]: each for each in told["findings"]}

    def mounts(self) -> list[MountLine]:
        return [line for line in mount_table() if line.fstype == "fuse.glusterfs"]

    def is_clean(self) -> bool:
        points = self._state / "mnt"
        return not self.seen() and not self.mounts() and not list(points.iterdir())


@pytest.fixture
def gluster(lab: Path, leftovers_check: None) -> Iterator[GlusterVolume]:
    try:
        volume = GlusterVolume()
    except Missing as e:
        missing(str(e))
    with volume:
        yield volume


@pytest.fixture
def scene(moorline: Moorline, gluster: GlusterVolume) -> Scene:
    return Scene(moorline, gluster)


def first_bytes(scene: Scene, id: str) -> bytes:
    return (scene.gluster.files / id).read_bytes()[:65536]


def test_a_guest_writes_to_the_brick(scene: Scene, guest: Guest, second_guest: Guest) -> None:
    one, other = scene.disk(), scene.disk()
    scene.attach(guest, one)
    scene.attach(second_guest, other)
    (mount,) = scene.mounts()
    assert mount.source == scene.gluster.export()
    guest.write(one, "over the wire")
    assert first_bytes(scene, one) == pattern("over the wire")
    again = f"glusterfs://127.0.0.3/{scene.gluster.name}/{one}"
    refused = scene.moorline("attach", second_guest.name, again, "--format", "raw", code=3)
    assert f"{guest.name} has" in refused.stderr
    assert len(scene.mounts()) == 1
    scene.detach(guest, one)
    scene.detach(second_guest, other)
    assert scene.is_clean()
    until(lambda: not scene.gluster.clients())


def test_a_server_that_goes_away_and_comes_back(
    scene: Scene, guest: Guest, second_guest: Guest
) -> None:
    """Its client lives and fails meanwhile: nothing is done to it, no guest is to be stopped."""
    one, other = scene.disk(), scene.disk()
    scene.attach(guest, one)
    guest.write(one, "before")
    served, mounted = scene.gluster.clients(), scene.mounts()
    scene.gluster.kill_brick()
    device = guest.wait_for(one)
    # What it was told is written may be in its client yet, until it asks for more.
    write = f"dd if=/dev/zero of={device} bs=4k count=1 conv=fsync"
    assert guest.agent.run(write).code != 0
    until(lambda: scene.seen() == {one: "broken"})
    finding = scene.findings()["failing-share"]
    assert f"its client, glusterfs ({served[0]}), still runs" in finding["what"]
    assert finding["next"].startswith("findmnt ")
    waits = scene.attach(second_guest, other, "--timeout", "1", code=5)
    assert "it may answer again by itself" in waits
    scene.gluster.start()
    scene.attach(second_guest, other)
    assert scene.seen() == {one: "attached", other: "attached"}
    assert (scene.gluster.clients(), scene.mounts()) == (served, mounted)
    # Its client opens what was open once more, and then the guest can write again: by QEMU's page
    # cache it never could.
    until(lambda: guest.agent.run(write).code == 0)
    guest.write(one, "after")
    assert first_bytes(scene, one) == pattern("after")
    assert scene.findings() == {}
    scene.detach(guest, one)
    scene.detach(second_guest, other)
    assert scene.is_clean()


def test_a_server_that_does_not_answer(scene: Scene, guest: Guest, second_guest: Guest) -> None:
    one, other = scene.disk(), scene.disk()
    scene.attach(guest, one)
    scene.gluster.stop_brick()
    try:
        until(lambda: scene.seen() == {one: "hung"})  # the kernel may know a moment more
        waits = scene.attach(second_guest, other, "--timeout", "1", code=5)
        assert "does not answer" in waits
    finally:
        scene.gluster.continue_brick()
    scene.attach(second_guest, other)
    guest.write(one, "after")
    assert first_bytes(scene, one) == pattern("after")
    scene.detach(guest, one)
    scene.detach(second_guest, other)
    assert scene.is_clean()


def test_a_client_that_was_killed(scene: Scene, guest: Guest, second_guest: Guest) -> None:
    one, other = scene.disk(), scene.disk()
    scene.attach(guest, one)
    scene.gluster.kill_client()
    until(lambda: scene.seen() == {one: "broken"})  # the kernel may remember the file a second more
    assert "its client has ended" in scene.findings()["dead-share"]["what"]
    scene.attach(second_guest, other)
    second_guest.write(other, "on the new mount")
    assert first_bytes(scene, other) == pattern("on the new mount")
    scene.detach(guest, one)
    scene.attach(guest, one)
    guest.write(one, "anew")
    assert first_bytes(scene, one) == pattern("anew")
    assert len(scene.mounts()) == len(scene.gluster.clients()) == 1
    scene.detach(guest, one)
    scene.detach(second_guest, other)
    assert scene.is_clean()
