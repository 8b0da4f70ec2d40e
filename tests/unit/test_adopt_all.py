"""adopt --all and release --all, on a toy host: each disk for itself, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moorline import wiring
from moorline.backends.connection_info import given_mounts
from moorline.backends.mounter import Mounter
from moorline.backends.quobyte import Quobyte
from moorline.errors import NotFound, Refused, Unavailable
from moorline.model import GuestId, Level, VolumeId
from moorline.ports.care_results import AdoptionOfAll, DiskOutcome
from moorline.testing.faults import Fault, Killed
from moorline.testing.toy_host import ToyShare
from tests.support.care_rig import FILES, Scene, disk, prepared

HAND = "/hand/q"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = prepared(tmp_path, monkeypatch)
    scene.host.mount("quobyte@reg/vol", HAND, "fuse.quobyte", ToyShare(files=FILES | {"c"}))
    return scene


def configure(scene: Scene, **places: Path) -> None:
    """What an operator does with the lines that he was told, and a restart."""
    scene.options = {k: {"reg/vol": v} for k, v in places.items()}
    scene.backends["quobyte"] = Mounter(scene.host, Quobyte(), scene.base, **scene.options)


@pytest.fixture
def given(scene: Scene) -> None:
    configure(scene, given=Path(HAND))


def plug(scene: Scene, *disks: Any, guest: str = "g1") -> None:
    scene.inventory.all[guest] = list(disks)
    toy = scene.world.guests[GuestId(guest)]
    toy.running = any(each.running for each in disks)
    toy.live, toy.defined, toy.foreign = {}, {}, set()
    for each in disks:
        for half, has in ((toy.live, each.running), (toy.defined, each.defined)):
            if each.mark and has:
                half[VolumeId(each.mark)] = each.path
        if not each.mark:
            toy.foreign.add(each.path)


def adopt(scene: Scene, guest: str | None = None, **how: Any) -> AdoptionOfAll:
    return scene.moorline.maintenance.adopt_all(guest, **how)


def outcomes(disks: Any) -> dict[str, str]:
    return {each.device or each.volume: each.outcome for each in disks}


def only(found: AdoptionOfAll) -> DiskOutcome:
    (one,) = found.disks
    return one


# --- the mount table


def test_disks_on_a_share_are_adopted_and_released(scene: Scene, given: None) -> None:
    plug(
        scene,
        disk(f"{HAND}/a", mark="vol-a", device="vda", running=True),
        disk("/img/root.qcow2", device="vdb"),
    )
    plug(scene, disk(f"{HAND}/b", serial="vol-b"), guest="g2")
    before = dict(scene.inventory.all), list(scene.host.table)
    dry = adopt(scene, dry_run=True)
    assert outcomes(dry.disks) == {"vda": "due", "vdb": "left", "vdc": "due"}
    assert [each.steps for each in dry.disks] == [["adopt"], [], ["mark", "adopt"]]
    assert (dict(scene.inventory.all), list(scene.host.table)) == before
    assert scene.records.all() == []

    done = adopt(scene)
    assert outcomes(done.disks) == {"vda": "adopted", "vdb": "left", "vdc": "adopted"}
    assert [(row.key.guest, row.key.volume) for row in scene.records.all()] == [
        ("g1", "vol-a"),
        ("g2", "vol-b"),
    ]
    assert outcomes(adopt(scene).disks) == {"vda": "kept", "vdb": "left", "vdc": "kept"}
    plug(scene, disk(f"{HAND}/b", mark="vol-b"), guest="g2")
    assert scene.found() == []

    would = scene.moorline.maintenance.release_all(dry_run=True)
    assert [each.outcome for each in would] == ["due", "due"]
    assert len(scene.records.all()) == 2
    released = scene.moorline.maintenance.release_all()
    assert [(each.volume, each.outcome) for each in released] == [
        ("vol-a", "released"),
        ("vol-b", "released"),
    ]
    assert scene.records.all() == []
    assert list(scene.host.table) == before[1]
    assert list(scene.moorline.maintenance.release_all()) == []


def test_what_must_be_configured_first_is_told_at_once_and_left(scene: Scene) -> None:
    plug(scene, disk(f"{HAND}/a", mark="vol-a"), disk(f"{HAND}/b", device="vdd", mark="vol-b"))
    found = adopt(scene)
    assert outcomes(found.disks) == {"vdc": "unset", "vdd": "unset"}
    assert found.settings == [f"quobyte_mounted = reg/vol={HAND}"]
    assert scene.records.all() == []
    configure(scene, given=Path(HAND))
    again = adopt(scene)
    assert outcomes(again.disks) == {"vdc": "adopted", "vdd": "adopted"}
    assert again.settings == []


@pytest.mark.parametrize("at", ["/hand/a$b", "/hand/$HOME", "/hand/a b", "/hand/%x"])
def test_the_line_is_read_as_it_is_meant(scene: Scene, tmp_path: Path, at: str) -> None:
    scene.host.mount("quobyte@reg/vol", at, "fuse.quobyte", ToyShare(files=FILES))
    plug(scene, disk(f"{at}/a"))
    (line,) = adopt(scene).settings
    file = tmp_path / "moorline.conf"
    file.write_text(f"[libvirt]\n{line}\n")
    values = wiring.settings((file,), state_dir=tmp_path, hypervisor="test:///default").values
    mounted = values["quobyte_mounted"]
    assert given_mounts("quobyte_mounted", mounted) == {"reg/vol": Path(at)}


def test_what_nova_goes_on_plugging_comes_with_a_mount_that_is_to_be_ours(scene: Scene) -> None:
    id = "01234567-89ab-cdef-0123-456789abcdef"
    scene.world.guests[GuestId(id)] = scene.world.guests.pop(GuestId("g1"))
    plug(scene, disk(f"{HAND}/a", serial="vol-a", running=True, nova=True), guest=id)
    assert adopt(scene, hands_off=True).settings == [f"quobyte_mount_points = reg/vol={HAND}"]
    configure(scene, places=Path(HAND))
    assert only(adopt(scene, hands_off=True)).outcome == "adopted"
    (row,) = scene.records.all()
    assert (row.hands_off, row.want) == (True, Level.CONNECTED)
    assert only(adopt(scene, hands_off=True)).outcome == "kept"
    assert only(adopt(scene)).outcome == "kept", "whoever plugs it does so still"


def test_nova_s_disks_and_the_others_are_not_taken_for_each_other(
    scene: Scene, given: None
) -> None:
    """Unless a guest is named: Nova may be no more."""
    plug(scene, disk(f"{HAND}/a", mark="vol-a", nova=True))
    plug(scene, disk(f"{HAND}/b", mark="vol-b"), guest="g2")
    assert [each.outcome for each in adopt(scene, dry_run=True).disks] == ["left", "due"]
    hands_off = adopt(scene, hands_off=True, dry_run=True).disks[1]
    assert (hands_off.outcome, hands_off.why) == ("left", "Nova does not plug it")
    assert only(adopt(scene, "g1")).outcome == "adopted"


def test_two_mounts_of_a_share_have_no_line_for_both(scene: Scene) -> None:
    scene.host.mount("quobyte@reg/vol", "/other", "fuse.quobyte", ToyShare(files=FILES))
    plug(scene, disk(f"{HAND}/a"), disk("/other/b", device="vdd"))
    found = adopt(scene)
    assert outcomes(found.disks) == {"vdc": "unset", "vdd": "refused"}
    assert found.settings == [f"quobyte_mounted = reg/vol={HAND}"]


def test_a_disk_on_our_own_mount_is_known_by_what_else_is_there(scene: Scene) -> None:
    """The mount table tells one registry, and the mount was made for three."""
    scene.host.unmount(HAND)
    connection = scene.connection("b")
    connection["data"]["export"] = "reg,reg2,reg3/vol"
    scene.moorline.attachments.attach("g2", connection, level=Level.CONNECTED)
    mount = scene.host.table[-1]
    scene.host.unmount(mount.target)
    scene.host.mount("quobyte@reg/vol", mount.target, "fuse.quobyte", ToyShare(files=FILES))
    plug(scene, disk(f"{mount.target}/a", serial="vol-a"))
    assert only(adopt(scene)).outcome == "adopted"
    assert [row.link for row in scene.records.all()] == [mount.target] * 2


@pytest.mark.parametrize(
    ("more", "outcome", "why"),
    [
        ({"running": True}, "refused", "running guest's disk cannot"),
        ({"serial": "DATA 01"}, "refused", "has the serial DATA 01"),
        ({"path": f"{HAND}/none", "mark": "vol-z"}, "refused", "there is no file none"),
        ({"path": f"{HAND}/a", "format": "vmdk"}, "refused", "not supported"),
        ({"path": ""}, "left", "no share"),
        ({"path": "/dev/sdb"}, "left", "no share"),
    ],
)
def test_each_disk_says_why_it_is_not_adopted(
    scene: Scene, given: None, more: dict[str, Any], outcome: str, why: str
) -> None:
    plug(
        scene, disk(**{"path": f"{HAND}/a", **more}), disk(f"{HAND}/b", device="vdd", mark="vol-b")
    )
    first, second = adopt(scene).disks
    assert first.outcome == outcome
    assert why in first.why
    if not more.get("running"):
        assert second.outcome == "adopted", "the others are not stopped by it"


def test_half_a_disk_is_left_as_it_is(scene: Scene, given: None) -> None:
    """A pass would plug the other half."""
    plug(scene, disk(f"{HAND}/a", mark="vol-a", running=True, defined=False))
    one = only(adopt(scene))
    assert (one.outcome, "only in the running guest" in one.why) == ("refused", True)
    assert scene.records.all() == []


def test_a_disk_of_two_guests_is_nobody_s_to_adopt(scene: Scene, given: None) -> None:
    plug(scene, disk(f"{HAND}/a"))
    plug(scene, disk(f"{HAND}/a"), guest="g2")
    found = adopt(scene)
    assert [each.outcome for each in found.disks] == ["refused", "refused"]
    assert "is named by g2 as well" in found.disks[0].why
    plug(scene, disk(f"{HAND}/a", shared=True, serial="vol-a"))
    plug(scene, disk(f"{HAND}/a", shared=True, serial="vol-a"), guest="g2")
    assert [each.outcome for each in adopt(scene).disks] == ["adopted", "adopted"]


def test_what_is_on_its_way_out_is_not_adopted_again(scene: Scene, given: None) -> None:
    plug(scene, disk(f"{HAND}/a", mark="vol-a"))
    adopt(scene)
    scene.world.guests[GuestId("g1")].running = True
    scene.world.guests[GuestId("g1")].live[VolumeId("vol-a")] = f"{HAND}/a"
    scene.world.guests[GuestId("g1")].deaf = True
    with pytest.raises(Exception, match="let go"):
        scene.moorline.attachments.detach("g1", "vol-a", timeout=0)
    assert "on its way out" in only(adopt(scene)).why
    (one,) = scene.moorline.maintenance.release_all()
    assert (one.outcome, "on its way out" in one.why) == ("refused", True)


@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
@pytest.mark.parametrize("at", [0, 1])
def test_one_that_is_cut_short_can_be_repeated(
    scene: Scene, given: None, fault: Fault, at: int
) -> None:
    plug(scene, disk(f"{HAND}/a", serial="vol-a"), disk(f"{HAND}/b", device="vdd", serial="vol-b"))
    scene.faults.plan((at, fault))
    with pytest.raises(Killed):
        adopt(scene)
    recorded = len(scene.records.all())
    assert recorded == at + (fault is Fault.KILL_AFTER)
    again = [each.outcome for each in adopt(scene).disks]
    assert again == ["kept"] * recorded + ["adopted"] * (2 - recorded)
    assert [each.mark for each in scene.inventory.all["g1"]] == ["vol-a", "vol-b"]


def test_guests_that_cannot_be_read_are_told(scene: Scene, given: None) -> None:
    plug(scene, disk(f"{HAND}/a", mark="vol-a"))
    scene.world.guests[GuestId("g2")].unreadable = "its definition is broken"
    found = {each.guest: each for each in adopt(scene).disks}
    assert found["g1"].outcome == "adopted"
    assert (found["g2"].outcome, found["g2"].why) == ("failed", "its definition is broken")
    scene.inventory.error = Unavailable("libvirtd went away")
    assert [each.outcome for each in adopt(scene, "g1").disks] == ["unavailable"]
    scene.world.blind = True
    with pytest.raises(Unavailable):
        adopt(scene)


def test_one_guest_alone(scene: Scene, given: None) -> None:
    plug(scene, disk(f"{HAND}/a", mark="vol-a"))
    plug(scene, disk(f"{HAND}/b", mark="vol-b"), guest="g2")
    assert only(adopt(scene, "g2")).volume == "vol-b"
    adopt(scene)
    for nobody in ("", "g3"):
        with pytest.raises(NotFound):
            adopt(scene, nobody)
        with pytest.raises(NotFound):
            scene.moorline.maintenance.release_all(nobody)
    assert [each.volume for each in scene.moorline.maintenance.release_all("g2")] == ["vol-b"]
    assert [row.key.volume for row in scene.records.all()] == ["vol-a"]


# --- connections that are given


def row(scene: Scene, name: str = "a", guest: str = "", **more: Any) -> dict[str, Any]:
    """A block device mapping as Nova's database has it."""
    connection = {**scene.connection(name), "serial": f"vol-{name}"}
    return {
        "instance_uuid": guest or None,
        "volume_id": f"vol-{name}",
        "deleted": 0,
        "connection_info": json.dumps(connection),
        **more,
    }


def test_a_connection_that_is_given_is_recorded(scene: Scene) -> None:
    """Nova's later calls have this one: its share must be spelled the same."""
    plug(scene, disk(f"{HAND}/a", mark="vol-a"))
    given = row(scene, guest="g1")
    given["connection_info"] = given["connection_info"].replace("reg/vol", "reg2,reg/vol")
    found = adopt(scene, connections=[given])
    assert found.settings == [f"quobyte_mounted = reg,reg2/vol={HAND}"]
    scene.backends["quobyte"] = Mounter(
        scene.host, Quobyte(), scene.base, given={"reg,reg2/vol": Path(HAND)}
    )
    assert only(adopt(scene, connections=[given])).outcome == "adopted"
    (recorded,) = scene.records.all()
    assert recorded.connection.reveal()["data"]["export"] == "reg2,reg/vol"


def test_a_connection_is_found_by_its_storage_where_no_id_is(scene: Scene, given: None) -> None:
    plug(scene, disk(f"{HAND}/a"))
    assert only(adopt(scene, connections=[row(scene)])).volume == "vol-a"


def test_rows_of_other_guests_and_of_what_is_gone_do_not_count(scene: Scene, given: None) -> None:
    plug(scene, disk(f"{HAND}/a"))
    others = [
        row(scene, guest="g7"),
        row(scene, guest="g1", deleted=12),
        row(scene, guest="g1", attach_status="detached"),
        row(scene, guest="g1", connection_info=None),
    ]
    one = only(adopt(scene, connections=others, dry_run=True))
    assert (one.outcome, one.volume == "vol-a") == ("due", False)


def test_a_row_whose_volume_the_guest_does_not_have_is_told(scene: Scene, given: None) -> None:
    plug(scene, disk(f"{HAND}/a", mark="vol-a"))
    found = adopt(scene, connections=[row(scene, guest="g1"), row(scene, "b", guest="g1")])
    assert outcomes(found.disks) == {"vdc": "adopted", "vol-b": "left"}


def test_two_connections_that_differ_are_none(scene: Scene, given: None) -> None:
    plug(scene, disk(f"{HAND}/a", mark="vol-a"))
    other = row(scene)
    other["connection_info"] = other["connection_info"].replace("reg/vol", "reg/vol2")
    one = only(adopt(scene, connections=[row(scene), other]))
    assert (one.outcome, "they differ" in one.why) == ("refused", True)
    assert only(adopt(scene, connections=[row(scene), row(scene)])).outcome == "adopted"


def test_a_connection_of_another_share_is_refused(scene: Scene, given: None) -> None:
    plug(scene, disk(f"{HAND}/a", mark="vol-a"))
    other = row(scene)
    other["connection_info"] = other["connection_info"].replace("reg/vol", "reg/vol2")
    one = only(adopt(scene, connections=[other]))
    assert (one.outcome, "the connection names reg/vol2" in one.why) == ("refused", True)
    assert scene.records.all() == []


@pytest.mark.parametrize("bad", [{"volume_id": "x"}, *({"connection_info": c} for c in "{71")])
def test_a_malformed_row_is_refused_before_anything_is_done(
    scene: Scene, given: None, bad: dict[str, Any]
) -> None:
    plug(scene, disk(f"{HAND}/a", mark="vol-a"))
    with pytest.raises(Refused, match="connection 2 cannot be used"):
        adopt(scene, connections=[row(scene), bad])
    assert scene.records.all() == []


@pytest.mark.parametrize(
    "shape",
    [
        lambda c: {"ID": "x", "Volume ID": "vol-a", "Instance ID": "g1", "Properties": c},
        lambda c: {
            "instance": "g1",
            "status": "attached",
            "volume_id": "vol-a",
            "connection_info": c,
        },
        lambda c: {
            "instance_uuid": "g1",
            "attach_status": "attached",
            "deleted": False,
            "connection_info": json.dumps(c),
        },
        lambda c: {**c, "instance": "g1", "serial": "vol-a"},
    ],
    ids=[
        "openstack volume attachment show",
        "Cinder's API",
        "Cinder's database",
        "Nova's connection_info",
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_the_shapes_in_which_connections_come(
    scene: Scene, given: None, shape: Any, flat: bool
) -> None:
    plug(scene, disk(f"{HAND}/a"))
    connection = scene.connection()
    if flat:
        connection = {**connection.pop("data"), **connection}
    assert only(adopt(scene, connections=[shape(connection)])).outcome == "adopted"
    assert [r.key.volume for r in scene.records.all()] == ["vol-a"]
