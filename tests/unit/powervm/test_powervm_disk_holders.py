"""Who has a file: LPARs, Virtual I/O Servers, and what is left of those that are gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pypowervm
import pytest
from lxml import etree
from pypowervm import const

from lab.novalink import NovaLink as Lab
from lab.novalink.model import FILEIO, Disk, Mapping, System, partition_uuid
from lab.novalink.rig import DB, WEB, image, mapped, powervm
from moorline.errors import Refused
from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.hypervisors.powervm.mappings import read
from moorline.hypervisors.powervm.remembered_slots import MemorySlots
from moorline.model import DiskOptions, DiskState, Guest, ImageFile, VolumeId

V1 = VolumeId("11111111-0000-4000-8000-000000000001")
PLAIN = DiskOptions()
CAPTURES = Path(pypowervm.__file__).parent / "tests" / "data"
"""Replies of real systems, which pypowervm has for its own tests."""


def users(vm: PowerVM, path: Path | str) -> list[Guest]:
    """Who has the file; every guest bears an id of its own."""
    guests = vm.survey()
    assert len({guest.id for guest in guests}) == len(guests)
    return [guest for guest in guests if str(path) in guest.paths]


def test_a_virtual_io_server_is_a_guest_by_its_own_name(vm: PowerVM) -> None:
    (holder,) = users(vm, f"{FILEIO}/vios1")
    assert (holder.id, holder.name, holder.running) == (partition_uuid(2), "vios1", True)
    assert holder.disks == {}


def test_those_that_are_gone_are_told_apart(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    lab.system.delete("web01")
    (left,) = users(vm, disk.path)
    assert (left.name, left.running) == ("LPAR 10, which is gone", False)
    server, other = users(vm, f"{FILEIO}/dvd.iso")
    assert (server.name, other.name) == ("vios1", "LPAR 77, which is gone")
    assert DB in {guest.id for guest in vm.survey()}


def test_an_id_that_is_used_again_is_not_the_partition_that_is_gone(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    gone = lab.system.partition("web01")
    lab.system.delete("web01")
    lab.system.add(replace(gone, uuid=partition_uuid(300), name="new"))
    (holder,) = users(vm, disk.path)
    assert (holder.name, holder.running) == ("LPAR 10, which is gone", False)


@pytest.mark.parametrize(
    ("number", "who"),
    [(102, "LPAR 102"), (65535, "an LPAR"), (0, "an LPAR")],
)
def test_a_client_with_an_adapter_that_is_not_listed_counts_as_running(
    lab: Lab, vm: PowerVM, number: int, who: str
) -> None:
    held = Mapping("", number, 16, 1018, Disk("/srv/held", "", "u", "1"), "lun2")
    lab.system.mappings[partition_uuid(1)] += (held,)
    lab.system.touch()
    (holder,) = users(vm, "/srv/held")
    assert (holder.name, holder.running) == (f"{who}, which is not listed", True)


def test_an_lpar_that_is_not_named_is_known_by_its_adapter(lab: Lab, vm: PowerVM) -> None:
    held = Mapping("", 10, 16, 1018, Disk("/srv/held", "", "u", "1"), "lun2")
    lab.system.mappings[partition_uuid(1)] += (held,)
    lab.system.touch()
    (holder,) = users(vm, "/srv/held")
    assert (holder.id, holder.name) == (WEB, "web01")


@pytest.mark.parametrize("tags", [True, False], ids=["tags", "no tags"])
def test_what_a_deleted_partition_leaves_of_ours_can_be_taken_away(
    tags: bool, disk: ImageFile
) -> None:
    with Lab(system=System(tags=tags)) as lab:
        slots = MemorySlots()
        vm = powervm(lab, slots=slots)
        vm.attach(WEB, V1, disk, PLAIN)
        lab.system.delete("web01")
        assert vm.disks(WEB)[V1].state is DiskState.PARTIAL
        vm.detach(WEB, V1)
        assert mapped(lab) == []
        assert (vm.disks(WEB), users(vm, disk.path)) == ({}, [])
        assert slots.of(WEB) == {}
        vm.close()


def test_what_is_left_of_another_is_not_taken_away(
    lab: Lab, vm: PowerVM, disk: ImageFile, tmp_path: Path
) -> None:
    """Neither another's mapping of the volume, nor one of ours in another place."""
    powervm(lab).attach(DB, V1, disk, PLAIN)
    lab.system.delete("db01")
    vm.attach(WEB, V1, ImageFile(image(tmp_path, "ours"), "raw"), PLAIN)
    assert vm.disks(WEB)[V1].source == str(tmp_path / "ours")
    vm.detach(WEB, V1)
    assert [tag for _, tag, _, _ in mapped(lab)] == [V1]
    with pytest.raises(Refused, match="mapped to LPAR 11 already, whose adapter is gone"):
        vm.attach(WEB, V1, disk, PLAIN)
    assert len(users(vm, disk.path)) == 1


def test_a_guest_that_lost_its_adapter_gets_another(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    """The mapping still names it, and has a target device; the guest sees no disk."""
    vm.attach(WEB, V1, disk, PLAIN)
    lab.system.lose_adapters("web01")
    assert vm.disks(WEB)[V1].state is DiskState.PARTIAL
    vm.attach(WEB, V1, disk, PLAIN)
    assert vm.disks(WEB)[V1].state is DiskState.WHOLE
    (mapping,) = lab.system.made()
    assert mapping.adapter


def test_a_bus_without_its_client_half_is_not_used(
    lab: Lab, vm: PowerVM, disk: ImageFile, tmp_path: Path
) -> None:
    vm.attach(WEB, VolumeId("v2"), ImageFile(image(tmp_path, "f2"), "raw"), PLAIN)
    lab.system.lose_adapters("web01")
    vm.attach(WEB, V1, disk, PLAIN)
    old, new = lab.system.made()
    assert (old.adapter, new.adapter) == (False, True)
    assert old.server_slot != new.server_slot


@pytest.mark.parametrize(
    "name",
    sorted(f.name for f in CAPTURES.iterdir() if b"<VirtualSCSIMapping " in f.read_bytes()),
)
def test_replies_of_real_systems_can_be_read(name: str) -> None:
    text = (CAPTURES / name).read_text()
    body = text[text.index("BODY{") + 5 : text.rindex("END OF SECTION")]
    tree = etree.fromstring(body.strip().encode())
    servers = [
        element
        for element in tree.iter(f"{{{const.UOM_NS}}}VirtualIOServer")
        if element.find(f"{{{const.UOM_NS}}}VirtualSCSIMappings") is not None
    ]
    assert servers
    for element in servers:
        found = read(SimpleNamespace(element=SimpleNamespace(element=element)))
        assert all(m.paired for m in found if m.client and m.path)
        assert all(m.client_id and m.server_slot for m in found)
