"""Machines made to order: on which datastore, from which image, and what is refused."""

from __future__ import annotations

import hashlib
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from boxes import DISK, GRAINS, left, order, saved

from lab.vcenter import VCenter
from lab.vcenter.images import ova, stream, with_grain
from lab.vcenter.rig import MIB, Makes, Operator
from moorline.errors import NotFound, NotOurs, Refused
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.hypervisors.vsphere.provision.images import Image
from moorline.hypervisors.vsphere.provision.machine_state import Stage
from moorline.model import DiskOptions, GuestId, VolumeId

ODD = stream(8 * MIB + 65536, {**GRAINS, 128: b"end"})


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return saved(tmp_path, DISK)


# --- where it lands --------------------------------------------------------------


def test_an_image_lands_on_vvol_and_runs(lab: VCenter, makes: Makes, image: Image) -> None:
    told: list[int] = []
    made = makes.launch(order(image), told.append)
    assert made.name == "box"
    assert makes.look("box").stage is Stage.ON
    [upload] = lab.uploads().values()
    assert upload == {"Bytes": len(DISK), "Sha256": hashlib.sha256(DISK).hexdigest()}
    assert told[-1] == 100
    assert told == sorted(told)
    [disk] = lab.disks_of("box")
    assert disk.startswith("[vvol1] ")
    assert lab.disks()[disk] == 8 * MIB


def test_an_empty_disk_needs_no_upload(lab: VCenter, makes: Makes) -> None:
    makes.launch(order(None, empty=20 << 30))
    assert makes.look("box").stage is Stage.ON
    assert lab.uploads() == {}
    assert (20 << 30) in lab.disks().values()


def test_an_ova_is_taken(lab: VCenter, makes: Makes, tmp_path: Path) -> None:
    makes.launch(order(saved(tmp_path, ova(DISK, capacity=8 * MIB), "box.ova")))
    assert [u["Bytes"] for u in lab.uploads().values()] == [len(DISK)]


def test_an_odd_image_goes_elsewhere_than_vvol(lab: VCenter, makes: Makes, tmp_path: Path) -> None:
    odd = saved(tmp_path, ODD)
    makes.launch(order(odd))
    assert any(d.startswith("[vmfs1] box/") for d in lab.disks())


def test_an_odd_image_on_vvol_is_refused_with_the_numbers_or_rounded_up(
    lab: VCenter, makes: Makes, tmp_path: Path
) -> None:
    odd = saved(tmp_path, ODD)
    with pytest.raises(Refused, match=rf"{8 * MIB + 65536} bytes.*{9 * MIB} bytes"):
        makes.launch(order(odd, datastores="vvol.*"))
    assert makes.look("box").stage is Stage.ABSENT
    assert "ImportVApp" not in lab.calls()
    makes.launch(order(odd, datastores="vvol.*", round_up=True))
    [disk] = lab.disks_of("box")
    assert disk.startswith("[vvol1] ")
    assert lab.disks()[disk] == 9 * MIB
    grown = b"".join(odd.pieces(9 * MIB))
    assert [u["Sha256"] for u in lab.uploads().values()] == [hashlib.sha256(grown).hexdigest()]


def test_a_policy_decides(lab: VCenter, makes: Makes, image: Image) -> None:
    policy = "VVol No Requirements Policy"
    choice = makes.choose(order(image, policy=policy))
    assert choice.best().datastore.name == "vvol1"
    assert sum("does not meet" in line for line in choice.explain()) == 5
    with pytest.raises(NotFound) as told:
        makes.launch(order(image, policy="VVol No Requirement Policy"))
    assert policy in told.value.hint
    makes.launch(order(image, policy=policy))
    assert makes.look("box").stage is Stage.ON


def test_the_choice_explains_itself(makes: Makes, image: Image) -> None:
    lines = makes.choose(order(image)).explain()
    assert lines[0].startswith("vvol1 (VVOL): is taken")
    told = "\n".join(lines)
    assert "vvol-maint (VVOL): is in maintenance" in told
    assert "vvol-lost (VVOL): is not accessible" in told
    assert "cifs (CIFS): its type" in told
    assert "vmfs-local (VMFS): could be taken" in told


def test_a_datastore_that_fills_up_is_passed_over(lab: VCenter, makes: Makes, image: Image) -> None:
    lab.datastore("vvol1", Capacity=1 << 40, Free=4 * MIB)
    assert makes.choose(order(image)).best().datastore.name == "vmfs1"
    lab.datastore("vvol1", Capacity=1 << 40, Free=800 << 30)


def test_pools_folders_and_clusters_by_name(makes: Makes, image: Image) -> None:
    made = order(image, folder="vm", resource_pool="Resources", cluster=VCenter.cluster)
    makes.launch(made)
    for option, word, there in (
        ("folder", "folder", "vm"),
        ("resource_pool", "resource pool", "Resources"),
        ("cluster", "cluster", VCenter.cluster),
    ):
        with pytest.raises(NotFound, match=f"there is no {word} no in localhost") as told:
            makes.launch(order(image, **{"name": "box2", option: "no"}))
        assert there in told.value.hint


# --- what is refused -------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"empty": 1},
        {"image": None},
        {"name": ""},
        {"name": "a/b"},
        {"name": "a\nb"},
        {"adapter": "ide"},
        {"cpus": 0},
        {"memory": 3},
    ],
)
def test_orders_that_cannot_be_met(image: Image, wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        order(**{"image": image, **wrong})


def test_a_machine_of_somebody_else_is_left_alone(makes: Makes, image: Image) -> None:
    name = VCenter.guests[0]
    with pytest.raises(NotOurs):
        makes.launch(order(image, name=name))
    with pytest.raises(NotOurs):
        makes.remove(name)
    with pytest.raises(NotOurs):
        makes.start(name)


def test_launching_twice_is_success(lab: VCenter, makes: Makes, image: Image) -> None:
    first = makes.launch(order(image))
    assert makes.launch(order(image)) == first
    assert lab.calls()["ImportVApp"] == 1
    with pytest.raises(Refused, match="ordered otherwise"):
        makes.launch(order(image, cpus=2))


def test_a_machine_with_volumes_is_not_removed(
    lab: VCenter, operator: Operator, makes: Makes, vm: VSphere, image: Image
) -> None:
    made = makes.launch(order(image))
    source = operator.disk()
    vm.attach(made.id, VolumeId("v1"), source, DiskOptions())
    with pytest.raises(Refused, match=r"volume v1, .*disk-\d+.vmdk"):
        makes.remove("box")
    moved = vm.relocate(made.id, VolumeId("v1"), "nfs1")
    assert moved.file.startswith("box/")
    home = vm.relocate(made.id, VolumeId("v1"), "vvol1")
    assert home.path in lab.disks_of("box"), "it lies among the machine's own files now"
    with pytest.raises(Refused, match="volume v1"):
        makes.remove("box")
    vm.detach(made.id, VolumeId("v1"))
    with pytest.raises(Refused, match=re.escape(home.path)):
        makes.remove("box")
    assert home.path in lab.disks()
    disks = operator.content.virtualDiskManager
    operator.done(disks.DeleteVirtualDisk_Task(home.path, operator.datacenter))
    assert makes.remove("box")
    assert makes.look("box").stage is Stage.ABSENT
    assert left(lab) == []
    assert not makes.remove("box")


def test_a_volume_is_held_by_a_machine_that_never_runs(
    lab: VCenter, makes: Makes, vm: VSphere, web: GuestId
) -> None:
    volume = order(None, empty=8 * MIB)
    held = makes.hold(volume)
    assert makes.hold(volume) == held
    assert makes.look("box").stage is Stage.OFF
    vm.attach(web, VolumeId("v1"), held, DiskOptions())
    with pytest.raises(Refused, match=VCenter.guests[0]):
        makes.remove("box")
    assert lab.disks_of("box")
    vm.detach(web, VolumeId("v1"))


def test_what_was_launched_is_a_guest(makes: Makes, vm: VSphere, image: Image) -> None:
    made = makes.launch(order(image))
    assert vm.find("box") == made
    assert vm.disks(GuestId(made.id)) == {}


# --- hostile images --------------------------------------------------------------

OTHER = stream(8 * MIB, {**GRAINS, 0: b"bomb"})
BOMB = with_grain(DISK, zlib.compress(bytes(64 * MIB), 9))
HOSTILE = {
    "cut short": DISK[:-4096],
    "cut in a grain": DISK[: len(DISK) // 2],
    "with a swapped grain": DISK.replace(b"\x78\x9c", b"\x00\x00", 1),
    "with an extent outside": DISK.replace(b'"disk.vmdk"', b'"/etc/pass"'),
    "too large": stream(8 * MIB, header={"capacity": 2**50}),
    "with a bomb": BOMB,
    "a package with a bomb": ova(BOMB, capacity=8 * MIB),
    "a package with another disk": ova(DISK, capacity=8 * MIB).replace(DISK, OTHER),
    "a package cut short": ova(DISK, capacity=8 * MIB)[:-8192],
    "a package that lies": ova(DISK, capacity=9 * MIB),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_image_leaves_nothing(
    lab: VCenter, makes: Makes, tmp_path: Path, what: str
) -> None:
    free = lab_free(makes)
    with pytest.raises(Refused, match="is not taken"):
        makes.launch(order(saved(tmp_path, HOSTILE[what])))
    assert makes.look("box").stage is Stage.ABSENT
    assert left(lab) == []
    assert lab_free(makes) == free
    calls = lab.calls()
    assert calls.get("HttpNfcLeaseAbort", 0) == calls.get("ImportVApp", 0)
    assert "HttpNfcLeaseComplete" not in calls


def lab_free(makes: Makes) -> dict[str, int]:
    verdicts = makes.choose(order(None, empty=MIB)).verdicts
    return {v.datastore.name: v.datastore.free for v in verdicts}
