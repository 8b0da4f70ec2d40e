"""Disks that somebody else plugged are taken over and given back, on a toy host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moorline.errors import Busy, Failed, NotFound, Refused
from moorline.model import DiskOptions, GuestId, Level, VolumeId
from moorline.ports.inspection import GuestDisk
from moorline.testing.faults import Fault, Killed
from moorline.testing.toy_host import ToyShare
from tests.support.care_rig import FILES, Scene, disk, prepared


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return prepared(tmp_path, monkeypatch)


# --- adopt


@pytest.fixture
def link(scene: Scene) -> str:
    """A link that is there for another volume's sake."""
    return scene.attach("b", "g2")


def plug(scene: Scene, path: str, **more: Any) -> None:
    scene.inventory.all["g1"] = [disk(path, **more)]
    guest = scene.world.guests[GuestId("g1")]
    guest.running = bool(more.get("running"))
    for half in (guest.live, guest.defined) if guest.running else (guest.defined,):
        half[VolumeId("vol-a")] = path


def test_a_marked_disk_is_adopted_as_it_is(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a", mark="vol-a", running=True, readonly=True)
    effects = scene.world.faults.count
    assert scene.moorline.maintenance.adopt("g1", scene.connection(), dry_run=True).steps == [
        "adopt"
    ]
    assert scene.found() == [], "whoever plugged it sees to it"
    adoption = scene.moorline.maintenance.adopt("g1", scene.connection(), target="vdc")
    assert (adoption.steps, adoption.view.seen) == (["adopt"], "attached")
    (row,) = scene.rows("vol-a")
    assert row.options == DiskOptions("virtio", "vdc", readonly=True)
    assert scene.moorline.maintenance.adopt("g1", scene.connection()).steps == []
    assert scene.found() == []
    assert scene.world.faults.count == effects, "neither disk nor mount was touched"


def test_what_another_state_keeps_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one detaches, the other plugs again."""
    kept = {("g1", "vol-a"): "/srv/other state"}
    scene = prepared(tmp_path, monkeypatch, lambda *its: kept.get(its, ""))
    link = scene.attach("b", "g2")
    plug(scene, f"{link}/a", mark="vol-a", running=True)
    for dry_run in (True, False):
        with pytest.raises(Refused, match="kept by the state in /srv/other state") as refused:
            scene.moorline.maintenance.adopt("g1", scene.connection(), dry_run=dry_run)
        its = "moorline release --state-dir '/srv/other state' g1 vol-a"
        assert its in refused.value.hint
    assert scene.rows("vol-a") == []
    kept.clear()
    scene.moorline.maintenance.adopt("g1", scene.connection())
    kept["g1", "vol-a"] = "/srv/other state"
    assert scene.moorline.maintenance.adopt("g1", scene.connection()).steps == []


def test_a_disk_without_a_mark_gets_it_while_the_guest_is_stopped(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a", running=True)
    with pytest.raises(Refused, match="running guest's disk cannot"):
        scene.moorline.maintenance.adopt("g1", scene.connection())
    plug(scene, f"{link}/a")
    assert scene.moorline.maintenance.adopt("g1", scene.connection()).steps == ["mark", "adopt"]
    assert scene.inventory.all["g1"][0].mark == "vol-a"


def test_what_nova_goes_on_plugging_needs_no_mark(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a", running=True, readonly=True)
    guest = "01234567-89ab-cdef-0123-456789abcdef"
    scene.inventory.all[guest] = scene.inventory.all.pop("g1")
    scene.world.guests[GuestId(guest)] = scene.world.guests.pop(GuestId("g1"))
    adoption = scene.moorline.maintenance.adopt("g1", scene.connection(), hands_off=True)
    assert (adoption.steps, adoption.view.wanted) == (["adopt"], "connected")
    # What Nova's driver asks for later is the same attachment.
    again = scene.moorline.attachments.attach(
        guest, scene.connection(), level=Level.CONNECTED, hands_off=True
    )
    assert again.steps == []
    assert scene.found() == []


def test_an_adoption_that_is_cut_short_can_be_repeated(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a")
    scene.faults.plan((0, Fault.KILL_BEFORE))
    with pytest.raises(Killed):
        scene.moorline.maintenance.adopt("g1", scene.connection())
    assert scene.inventory.all["g1"][0].mark == "vol-a"
    assert scene.rows("vol-a") == []
    assert scene.moorline.maintenance.adopt("g1", scene.connection()).steps == ["adopt"]


@pytest.mark.parametrize(
    ("more", "target", "why"),
    [
        ({"format": "qcow2"}, "", "is used as qcow2"),
        ({"mark": "another"}, "", "bears the mark of volume another"),
        ({"serial": "DATA01"}, "", "has the serial DATA01, by which the guest may know it"),
        ({}, "vdb", "is vdc, not vdb"),
        ({"path": "/elsewhere/z"}, "", "has no disk"),
        ({"path": "/elsewhere/a"}, "", "has no disk"),
    ],
)
def test_what_is_not_that_disk_is_refused(
    scene: Scene, link: str, more: dict[str, Any], target: str, why: str
) -> None:
    plug(scene, **{"path": f"{link}/a", **more})
    with pytest.raises(Refused, match=why):
        scene.moorline.maintenance.adopt("g1", scene.connection(), target=target)
    assert scene.rows("vol-a") == []


def test_on_a_mount_that_is_not_ours_the_option_is_told(scene: Scene, link: str) -> None:
    scene.host.mount("quobyte@reg/vol", "/nova/mnt/5c37", "fuse.quobyte", ToyShare(files=FILES))
    plug(scene, "/nova/mnt/5c37/a", mark="vol-a")
    with pytest.raises(Refused, match="set quobyte_mounted = reg/vol=/nova/mnt/5c37"):
        scene.moorline.maintenance.adopt("g1", scene.connection())
    (candidate,) = scene.moorline.maintenance.disks("g1")
    assert (candidate.backend, candidate.wanted) == ("quobyte", False)


def test_the_serial_is_the_volume_s_id_where_nothing_else_is(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a", serial="vol-a")
    connection = scene.connection()
    del connection["data"]["volume_id"]
    assert scene.moorline.maintenance.adopt("g1", connection).view.volume == "vol-a"


def test_what_cannot_be_looked_at_can_be_released(scene: Scene, link: str) -> None:
    scene.attach("b", "g2", Level.ATTACHED)
    scene.world.blind = True
    assert scene.moorline.maintenance.release("g2", "vol-b").view.seen == "unknown"
    assert scene.rows("vol-b") == []


def test_what_is_on_its_way_out_is_not_released(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    guest = scene.world.guests[GuestId("g1")]
    guest.deaf = True
    with pytest.raises(Failed):
        scene.moorline.attachments.detach("g1", "vol-a", timeout=0)
    with pytest.raises(Refused, match="on its way out"):
        scene.moorline.maintenance.release("g1", "vol-a")
    assert [row.want for row in scene.rows("vol-a")] == [Level.ABSENT]
    guest.deaf = False
    scene.moorline.attachments.sweep()
    scene.world.tick()
    scene.world.tick()
    scene.moorline.attachments.sweep()
    assert not scene.rows("vol-a")
    assert link not in [mount.target for mount in scene.host.table]


def test_neither_is_done_while_somebody_else_is_at_the_guest(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a")
    with scene.locks.hold("guest g1"), pytest.raises(Busy):
        scene.moorline.maintenance.adopt("g1", scene.connection())
    assert scene.inventory.all["g1"][0].mark == ""
    assert scene.rows("vol-a") == []
    with scene.locks.hold("guest g2"), pytest.raises(Busy):
        scene.moorline.maintenance.release("g2", "vol-b")
    assert scene.rows("vol-b")


@pytest.mark.parametrize("running", [True, False])
def test_what_was_marked_and_not_recorded_is_adopted_and_detached(
    scene: Scene, link: str, monkeypatch: pytest.MonkeyPatch, *, running: bool
) -> None:
    """As after a state that was lost: all of it goes, and the link stays for the other volume."""
    plug(scene, f"{link}/a", mark="vol-a", running=running)
    guest, shown = scene.world.guests[GuestId("g1")], scene.inventory.all["g1"]

    def disks(id: GuestId) -> list[GuestDisk]:
        return [each for each in shown if each.mark in guest.live.keys() | guest.defined.keys()]

    monkeypatch.setattr(scene.inventory, "disks", disks)
    scene.moorline.maintenance.adopt("g1", scene.connection())
    if running:
        with pytest.raises(Failed, match="has not let go"):
            scene.moorline.attachments.detach("g1", "vol-a", timeout=0)
        scene.world.tick()
        scene.world.tick()
    scene.moorline.attachments.detach("g1", "vol-a")
    assert (guest.live, guest.defined) == ({}, {})
    assert (scene.rows("vol-a"), scene.link()) == ([], link)
    with pytest.raises(NotFound):
        scene.moorline.attachments.detach("g1", "vol-a")
    assert scene.found() == []


def test_release_leaves_disk_and_link(scene: Scene, link: str) -> None:
    plug(scene, f"{link}/a", mark="vol-a")
    scene.moorline.maintenance.adopt("g1", scene.connection())
    assert scene.moorline.maintenance.release("g1", "vol-a", dry_run=True).steps == ["release"]
    assert scene.rows("vol-a")
    scene.moorline.maintenance.release("g1", "vol-a")
    assert scene.world.guests[GuestId("g1")].defined
    assert scene.link() == link
    with pytest.raises(NotFound):
        scene.moorline.maintenance.release("g1", "vol-a")
    told = [(e.message, e.outcome) for e in scene.moorline.maintenance.events(volume="vol-a")]
    assert told == [("adopted", "seen"), ("released", "seen")]


def test_an_image_that_no_guest_may_be_given_is_not_adopted(scene: Scene, link: str) -> None:
    """The guest has it, and whoever attached it again would be refused."""
    plug(scene, f"{link}/c")
    with pytest.raises(Refused, match="there is no file c"):
        scene.moorline.maintenance.adopt("g1", scene.connection("c"), volume="vol-a")
    assert scene.rows("vol-a") == []
    assert scene.inventory.all["g1"][0].mark == ""
