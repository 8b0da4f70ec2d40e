"""Attach, detach and refusals, with the real pypowervm and the stand-in NovaLink.

In these tests, d1 to d9 are defects of nova-powervm that this driver must not have.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.novalink import NovaLink as Lab
from lab.novalink.model import partition_uuid
from lab.novalink.rig import DB, WEB, image, mapped, powervm
from moorline.errors import (
    NotFound,
    NotOurs,
    Refused,
    Uncertain,
)
from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.model import BlockDevice, DiskOptions, DiskState, GuestId, ImageFile, VolumeId

V1, V2 = VolumeId("11111111-0000-4000-8000-000000000001"), VolumeId("v2")
PLAIN = DiskOptions()


def paths(vm: PowerVM) -> frozenset[str]:
    """The files that web01 uses."""
    (web01,) = (guest for guest in vm.survey() if guest.id == WEB)
    assert web01.running
    return web01.paths


def test_a_file_becomes_a_disk_and_goes_again(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    assert vm.find("web01") == vm.find(WEB.lower()) == (WEB, "web01")
    assert paths(vm) == frozenset()
    vm.attach(WEB, V1, disk, PLAIN)
    seen = vm.disks(WEB)[V1]
    assert (seen.state, seen.source) == (DiskState.WHOLE, str(disk.path))
    assert seen.device == "C2-L8100000000000000"
    assert vm.disks(GuestId(WEB.lower())) == vm.disks(WEB)
    assert paths(vm) == {str(disk.path)}
    assert mapped(lab) == [(WEB, V1, 2, "0x8100000000000000")]
    vm.detach(WEB, V1)
    assert vm.disks(WEB) == {}
    assert mapped(lab) == []


def test_attaching_twice_posts_once_and_detaching_twice_does_nothing(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    vm.attach(WEB, V1, disk, PLAIN)
    assert lab.service.updates() == 1
    vm.detach(WEB, V1)
    vm.detach(WEB, V1)
    assert lab.service.updates() == 2


def test_only_the_management_partition_is_ever_changed(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    vm.detach(WEB, V1)
    posts = {path.partition("?")[0] for method, path, _ in lab.trace if method == "POST"}
    assert posts == {f"/rest/api/uom/VirtualIOServer/{partition_uuid(1)}"}


def test_disks_share_a_bus_until_it_is_full(lab: Lab, vm: PowerVM, tmp_path: Path) -> None:
    for n in range(34):
        vm.attach(WEB, VolumeId(f"v{n}"), ImageFile(image(tmp_path, f"f{n}"), "raw"), PLAIN)
    slots = [slot for _, _, slot, _ in mapped(lab)]
    assert [slots.count(slot) for slot in sorted(set(slots))] == [32, 2]
    assert len(vm.disks(WEB)) == 34


def test_foreign_mappings_are_paths_but_not_our_disks(
    lab: Lab, vm: PowerVM, tmp_path: Path, disk: ImageFile
) -> None:
    lab.system.tags = False
    powervm(lab).attach(WEB, V1, disk, PLAIN)  # made by another, with another's record
    assert vm.disks(WEB) == {}
    assert paths(vm) == {str(disk.path)}
    with pytest.raises(NotOurs):
        vm.attach(WEB, V2, disk, PLAIN)
    vm.detach(WEB, V1)
    vm.detach(WEB, V2)
    assert len(mapped(lab)) == 1


def test_a_disk_that_is_there_twice_is_never_whole(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    (mapping,) = lab.system.made()
    twin = replace(mapping, lua="0x8200000000000000")
    lab.system.mappings[partition_uuid(1)] += (twin,)
    lab.system.touch()
    assert vm.disks(WEB)[V1].state is DiskState.PARTIAL
    with pytest.raises(Uncertain, match="2 mappings"):
        vm.attach(WEB, V1, disk, PLAIN)
    vm.detach(WEB, V1)
    assert mapped(lab) == []


def test_a_volume_that_comes_from_another_file_is_left_alone(
    lab: Lab, vm: PowerVM, tmp_path: Path, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    with pytest.raises(NotOurs, match="volume-1, not from"):
        vm.attach(WEB, V1, ImageFile(image(tmp_path, "other"), "raw"), PLAIN)
    assert lab.service.updates() == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (DiskOptions(bus="virtio"), "no bus virtio"),
        (DiskOptions(target="vdb"), "by hand"),
        (DiskOptions(readonly=True), "read-only"),
    ],
)
def test_what_powervm_cannot_do_is_refused(
    lab: Lab, vm: PowerVM, disk: ImageFile, options: DiskOptions, why: str
) -> None:
    for command in (
        lambda: vm.check(WEB, disk, options),
        lambda: vm.attach(WEB, V1, disk, options),
    ):
        with pytest.raises(Refused, match=why):
            command()
    assert lab.trace == []


def test_d4_a_format_other_than_raw_is_refused(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    with pytest.raises(Refused, match="qcow2"):
        vm.attach(WEB, V1, ImageFile(disk.path, "qcow2"), PLAIN)
    with pytest.raises(Refused, match="block devices"):
        vm.attach(WEB, V1, BlockDevice(disk.path), PLAIN)
    assert lab.trace == []


@pytest.mark.parametrize("path", ["volume-1", "/mnt/volume\n1"])
def test_a_path_that_cannot_be_told_is_refused(lab: Lab, vm: PowerVM, path: str) -> None:
    with pytest.raises(Refused, match="not a path"):
        vm.attach(WEB, V1, ImageFile(Path(path), "raw"), PLAIN)
    assert lab.trace == []


@pytest.mark.parametrize(
    ("change", "why"),
    [({"rmc": "inactive"}, "RMC"), ({"dlpar": False}, "DLPAR")],
)
def test_a_partition_that_cannot_be_changed_is_refused_with_the_reason(
    lab: Lab, vm: PowerVM, disk: ImageFile, change: dict[str, object], why: str
) -> None:
    lab.system.alter("web01", **change)
    with pytest.raises(Refused, match=why):
        vm.check(WEB, disk, PLAIN)
    with pytest.raises(Refused, match=why):
        vm.attach(WEB, V1, disk, PLAIN)
    assert lab.service.updates() == 0
    lab.system.alter("web01", state="not activated")
    vm.attach(WEB, V1, disk, PLAIN)
    assert len(mapped(lab)) == 1


def test_what_is_attached_already_needs_no_rmc(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    lab.system.alter("web01", rmc="inactive")
    vm.attach(WEB, V1, disk, PLAIN)


def test_d2_a_file_is_looked_at_where_we_run_and_within_a_deadline(
    lab: Lab, vm: PowerVM, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="on the NovaLink partition"):
        vm.attach(WEB, V1, ImageFile(tmp_path / "absent", "raw"), PLAIN)

    def hangs(path: Path) -> None:
        raise Uncertain(f"{path} did not answer within its deadline")

    other = powervm(lab, look=hangs)
    with pytest.raises(Uncertain, match="deadline"):
        other.attach(WEB, V1, ImageFile(tmp_path / "absent", "raw"), PLAIN)
    # A share that hangs holds up nobody: the server was not even locked.
    assert not [path for _, path, _ in lab.trace if "ViosSCSIMapping" in path]
    other.close()


def test_d6_a_file_of_another_partition_is_refused_unless_shared(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    with pytest.raises(Refused, match="mapped to LPAR 10"):
        vm.check(DB, disk, PLAIN)
    with pytest.raises(Refused, match="mapped to LPAR 10"):
        vm.attach(DB, V1, disk, PLAIN)
    assert lab.service.updates() == 1
    vm.attach(DB, V1, disk, DiskOptions(shared=True))
    vm.detach(WEB, V1)
    assert [(client, tag) for client, tag, _, _ in mapped(lab)] == [(DB, V1)]


def test_a_traditional_vios_is_refused_and_never_changed(disk: ImageFile) -> None:
    with Lab(mode="traditional") as lab:
        vm = powervm(lab)
        assert vm.find("web01").id == WEB
        for command in (
            lambda: vm.check(WEB, disk, PLAIN),
            lambda: vm.attach(WEB, V1, disk, PLAIN),
        ):
            with pytest.raises(Refused) as refused:
                command()
            assert (
                "management partition novalink (id 1) does not host virtual I/O"
                " (traditional VIOS)" in str(refused.value)
            )
            assert str(disk.path) in str(refused.value)
        assert vm.disks(WEB) == {}
        vm.detach(WEB, V1)
        assert not [call for call in lab.trace if call[0] == "POST"]
        vm.close()


def test_an_hmc_is_refused() -> None:
    with Lab(mode="hmc") as lab:
        vm = powervm(lab)
        with pytest.raises(Refused, match="localhost is an HMC, not NovaLink"):
            vm.find("web01")
        vm.close()


@pytest.mark.parametrize(
    "name", ["", "nobody", "x')||('", "a/b", partition_uuid(9), "WEB01", "a\0b", "\udcff"]
)
def test_a_guest_that_is_not_there(vm: PowerVM, name: str) -> None:
    with pytest.raises(NotFound):
        vm.find(name)


def test_d9_a_uuid_is_never_bent_into_another(vm: PowerVM) -> None:
    """PowerVM clears the first bit of a UUID: two of Nova's could mean one LPAR."""
    nova = "8" + WEB[1:]
    with pytest.raises(NotFound, match="first bit"):
        vm.find(nova)
    assert vm.disks(GuestId(nova)) == {}
