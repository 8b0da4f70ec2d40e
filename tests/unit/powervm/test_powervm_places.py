"""Slots and LUNs that stay, and servers that keep no tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.novalink import NovaLink as Lab
from lab.novalink.model import System
from lab.novalink.rig import WEB, image, mapped, powervm
from moorline.errors import (
    NotOurs,
)
from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.hypervisors.powervm.remembered_slots import MemorySlots, Slot
from moorline.model import DiskOptions, DiskState, ImageFile, VolumeId

V1, V2 = VolumeId("11111111-0000-4000-8000-000000000001"), VolumeId("v2")
PLAIN = DiskOptions()


@pytest.mark.parametrize("udids", ["uuid", "path"])
@pytest.mark.parametrize("luas", ["vios", "short"])
def test_d1_places_are_recorded_and_rescans_work_in_every_style(
    udids: str, luas: str, disk: ImageFile
) -> None:
    slots = MemorySlots()
    with Lab(system=System(udids=udids, luas=luas)) as lab:  # type: ignore[arg-type]
        vm = powervm(lab, slots=slots)
        vm.attach(WEB, V1, disk, PLAIN)
        lua = "0x8100000000000000" if luas == "vios" else "lun1"
        assert slots.of(WEB) == {V1: Slot(str(disk.path), 2, lua, 10)}
        with disk.path.open("r+b") as file:
            file.truncate(512 << 20)
        vm.extend(WEB, V1, 512 << 20)
        found = lab.system.made()[0].disk
        assert found is not None
        assert found.capacity == "0.5"
        vm.close()


def test_a_volume_comes_back_to_its_place(lab: Lab, vm: PowerVM, tmp_path: Path) -> None:
    files = [ImageFile(image(tmp_path, f"f{n}"), "raw") for n in range(3)]
    for n, file in enumerate(files):
        vm.attach(WEB, VolumeId(f"v{n}"), file, PLAIN)
    before = mapped(lab)
    vm.detach(WEB, VolumeId("v0"))
    vm.detach(WEB, VolumeId("v1"))
    vm.attach(WEB, VolumeId("v1"), files[1], PLAIN)
    vm.attach(WEB, VolumeId("v0"), files[0], PLAIN)
    assert sorted(mapped(lab)) == sorted(before)


def test_a_rebuilt_partition_has_its_disks_where_they_were(
    lab: Lab, vm: PowerVM, tmp_path: Path
) -> None:
    files = [ImageFile(image(tmp_path, f"f{n}"), "raw") for n in range(3)]
    for n, file in enumerate(files):
        vm.attach(WEB, VolumeId(f"v{n}"), file, PLAIN)
    before = mapped(lab)
    lab.system.unplug("web01")
    for n in (2, 0, 1):
        vm.attach(WEB, VolumeId(f"v{n}"), files[n], PLAIN)
    assert sorted(mapped(lab)) == sorted(before)


def test_a_place_that_somebody_took_is_not_fought_for(
    lab: Lab, vm: PowerVM, tmp_path: Path, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    vm.detach(WEB, V1)
    other = powervm(lab)
    other.attach(WEB, V2, ImageFile(image(tmp_path, "f2"), "raw"), PLAIN)
    vm.attach(WEB, V1, disk, PLAIN)
    luas = {tag: lua for _, tag, _, lua in mapped(lab)}
    assert luas == {V2: "0x8100000000000000", V1: "0x8200000000000000"}
    other.close()


def test_d5_the_bus_is_chosen_by_the_slot(lab: Lab, tmp_path: Path, disk: ImageFile) -> None:
    """pypowervm's builder would take the bus on slot 2 and write slot 7 over one half of it."""
    slots = MemorySlots()
    lua = "0x8200000000000000"
    slots.put(WEB, V2, Slot("", 7, lua))
    slots.put(WEB, VolumeId("v3"), Slot("", 7, "0x8300000000000000"))
    vm = powervm(lab, slots=slots)
    vm.attach(WEB, V1, disk, PLAIN)
    vm.attach(WEB, V2, ImageFile(image(tmp_path, "f2"), "raw"), PLAIN)
    vm.attach(WEB, VolumeId("v3"), ImageFile(image(tmp_path, "f3"), "raw"), PLAIN)
    assert {tag: (slot, lua) for _, tag, slot, lua in mapped(lab)} == {
        V1: (2, "0x8100000000000000"),
        V2: (7, lua),
        "v3": (7, "0x8300000000000000"),
    }
    vm.close()


def test_the_place_of_a_guest_that_is_gone_is_forgotten(
    lab: Lab, tmp_path: Path, disk: ImageFile
) -> None:
    slots = MemorySlots()
    vm = powervm(lab, slots=slots)
    vm.attach(WEB, V1, disk, PLAIN)
    vm.detach(WEB, V1)
    assert slots.of(WEB) == {V1: Slot("", 2, "0x8100000000000000", 10)}
    lab.system.delete("web01")
    vm.detach(WEB, V1)
    assert slots.of(WEB) == {}
    vm.close()


def test_without_tags_the_name_that_we_asked_for_is_the_mark(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    lab.system.tags = False
    vm.attach(WEB, V1, disk, PLAIN)
    vm.attach(WEB, V1, disk, PLAIN)
    assert lab.service.updates() == 1
    assert vm.disks(WEB)[V1].state is DiskState.WHOLE
    vm.detach(WEB, V1)
    assert mapped(lab) == []
    # From here on the name proves nothing: what comes now is another's.
    powervm(lab).attach(WEB, V1, disk, PLAIN)
    assert vm.disks(WEB) == {}


def test_a_tag_of_somebody_else_beats_the_name(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    other = powervm(lab)
    other.attach(WEB, VolumeId("theirs"), disk, PLAIN)
    with pytest.raises(NotOurs):
        vm.attach(WEB, V1, disk, PLAIN)
    vm.detach(WEB, V1)
    assert [tag for _, tag, _, _ in mapped(lab)] == ["theirs"]
    other.close()
