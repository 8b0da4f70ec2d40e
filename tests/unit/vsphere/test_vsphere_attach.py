"""Disks of machines: where they go, what is refused, what is left, what goes wrong midway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.vcenter import VCenter
from lab.vcenter.rig import MIB, Makes, Operator, logon
from moorline.errors import Busy, Failed, NotFound, NotOurs, Refused
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest
from moorline.hypervisors.vsphere.virtual_machine import MARK, UNITS, Controller, Machine
from moorline.model import (
    DatastoreDisk,
    DiskOptions,
    DiskState,
    GuestId,
    ImageFile,
    ShadowDisk,
    VolumeId,
)

V1, V2 = VolumeId("v1"), VolumeId("3f2a9c1e-5b7d-4e21-9a68-0c1d2e3f4a5b")
PLAIN = DiskOptions()
WEB, DB = VCenter.guests


def marks(operator: Operator, name: str = WEB) -> list[tuple[str, str]]:
    return [(key, value) for key, value in operator.options(name) if key.startswith(MARK)]


# --- marks -----------------------------------------------------------------------


def test_the_mark_is_written_and_cleared_in_the_same_call(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk()
    vm.attach(web, V1, source, PLAIN)
    [(key, value)] = marks(operator)
    assert key == f"{MARK}v1"
    assert value.endswith(f" {source.path}")
    vm.detach(web, V1)
    vm.detach(web, V1)
    assert marks(operator) == []
    assert lab.calls()["ReconfigVM_Task"] == 2


def test_marks_do_not_pile_up(operator: Operator, vm: VSphere, web: GuestId) -> None:
    before, source = operator.options(WEB), operator.disk()
    for _ in range(3):
        vm.attach(web, V1, source, PLAIN)
        vm.detach(web, V1)
    assert operator.options(WEB) == before


def test_detaching_keeps_the_file(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk()
    vm.attach(web, V1, source, PLAIN)
    vm.detach(web, V1)
    assert f"volumes/{source.file.rpartition('/')[2]}" in lab.files("vvol1")
    assert lab.disks()[source.path] == 8 * MIB


def test_a_disk_that_somebody_removed_is_none_and_can_come_back(
    operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source, other = operator.disk(), operator.disk()
    vm.attach(web, V1, source, PLAIN)
    operator.unplug(WEB, source.path)
    assert vm.disks(web) == {}
    vm.attach(web, V1, other, PLAIN)  # the old mark gives way
    assert vm.disks(web)[V1].source == other.path
    assert len(marks(operator)) == 1


def test_a_mark_without_a_disk_is_cleared(operator: Operator, vm: VSphere, web: GuestId) -> None:
    source = operator.disk()
    vm.attach(web, V1, source, PLAIN)
    operator.unplug(WEB, source.path)
    vm.detach(web, V1)
    assert marks(operator) == []


def test_a_guest_is_known_by_its_uuid_in_capitals(
    operator: Operator, vm: VSphere, web: GuestId
) -> None:
    assert vm.find(web.upper()) == (web, WEB)
    vm.attach(GuestId(web.upper()), V1, operator.disk(), PLAIN)
    assert vm.disks(GuestId(web.upper())) == vm.disks(web) != {}


def test_the_mark_follows_a_disk_that_somebody_moved(
    operator: Operator, vm: VSphere, web: GuestId
) -> None:
    vm.attach(web, V1, operator.disk(), PLAIN)
    moved = vm.relocate(web, V1, "nfs1")
    assert vm.disks(web)[V1].source == moved.path
    assert moved.datastore == "nfs1"
    vm.detach(web, V1)
    assert vm.disks(web) == {}


def test_a_volume_from_another_file_is_not_ours(
    operator: Operator, vm: VSphere, web: GuestId
) -> None:
    vm.attach(web, V1, operator.disk(), PLAIN)
    with pytest.raises(NotOurs, match="from"):
        vm.attach(web, V1, operator.disk(), PLAIN)


def test_one_file_under_two_marks_is_refused(operator: Operator, vm: VSphere, web: GuestId) -> None:
    source = operator.disk()
    vm.attach(web, V1, source, PLAIN)
    with pytest.raises(NotOurs, match="another mark"):
        vm.attach(web, V2, source, PLAIN)
    with pytest.raises(NotOurs):
        vm.check(web, source, PLAIN)


# --- places ----------------------------------------------------------------------


def test_a_second_controller_is_added_when_the_first_is_full(
    operator: Operator, vm: VSphere, db: GuestId
) -> None:
    volumes = [VolumeId(f"many-{n}") for n in range(len(UNITS) + 2)]
    for volume in volumes:
        vm.attach(db, volume, operator.disk(mib=1), PLAIN)
    disks = vm.disks(db)
    places = [disk.device for disk in disks.values()]
    assert set(disks) == set(volumes)
    assert len(set(places)) == len(places)
    assert {place.partition(":")[0] for place in places} == {"scsi0", "scsi1"}
    assert "7" not in {place.partition(":")[2] for place in places}
    first = next(v for v in volumes if disks[v].device.startswith("scsi0"))
    vm.detach(db, first)  # its place is taken again before the second controller's
    vm.attach(db, first, operator.disk(mib=1), PLAIN)
    assert vm.disks(db)[first].device == disks[first].device


def test_a_full_machine_is_refused() -> None:
    full = tuple(Controller(1000 + n, n, object, ()) for n in range(4))
    machine = Machine(None, GuestId("x"), "web01", True, "", (), full, {})
    with pytest.raises(Refused, match="web01 has no free place"):
        machine.free_place()


# --- refusals --------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    ["", "disk", "/disk.vmdk", "../disk.vmdk", "a/../../disk.vmdk", "a//disk.vmdk", "a\n/d.vmdk"],
)
def test_paths_that_lead_elsewhere_are_refused(vm: VSphere, web: GuestId, file: str) -> None:
    with pytest.raises(Refused, match="path of a disk"):
        vm.attach(web, V1, DatastoreDisk("vvol1", file), PLAIN)


@pytest.mark.parametrize("datastore", ["", "a]", "[b", "vvol1] x [b"])
def test_datastores_that_are_none_are_refused(vm: VSphere, web: GuestId, datastore: str) -> None:
    with pytest.raises(Refused):
        vm.check(web, DatastoreDisk(datastore, "a/disk.vmdk"), PLAIN)


@pytest.mark.parametrize(
    "options", [DiskOptions(bus="virtio"), DiskOptions(target="vdb"), DiskOptions(readonly=True)]
)
def test_options_that_vsphere_has_not_are_refused(
    operator: Operator, vm: VSphere, web: GuestId, options: DiskOptions
) -> None:
    with pytest.raises(Refused):
        vm.check(web, operator.disk(), options)


def test_a_file_of_the_host_is_refused(vm: VSphere, web: GuestId) -> None:
    with pytest.raises(Refused, match="datastores"):
        vm.check(web, ImageFile(Path("/disk.vmdk"), "raw"), PLAIN)


def test_a_disk_that_is_not_there_is_refused(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    folder = operator.folder("vvol1", "volumes")
    for absent, why in (
        (DatastoreDisk("vvol1", f"{folder}/absent.vmdk"), "vCenter says"),
        (DatastoreDisk("nfs1", "a/absent.vmdk"), "vCenter says"),
        (DatastoreDisk("vvol1", "a/absent.vmdk"), "no folder a on datastore vvol1"),
        (DatastoreDisk("absent", "a/b.vmdk"), "no datastore absent"),
    ):
        with pytest.raises(Refused, match=why):
            vm.check(web, absent, PLAIN)
        with pytest.raises(Refused):
            vm.attach(web, V1, absent, PLAIN)
    assert "ReconfigVM_Task" not in lab.calls()


def test_a_disk_that_vcenter_has_locked_is_busy(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    lab.fault("ReconfigVM_Task", Fault="FileLocked")
    with pytest.raises(Busy):
        vm.attach(web, V1, operator.disk(), PLAIN)
    assert vm.disks(web) == {}


def test_a_shared_disk_is_of_two_running_machines(
    operator: Operator, vm: VSphere, web: GuestId, db: GuestId
) -> None:
    source, shared = operator.disk(), DiskOptions(shared=True)
    vm.attach(web, V1, source, shared)
    with pytest.raises(Refused, match=f"is a disk of {WEB} already"):
        vm.attach(db, V1, source, PLAIN)
    vm.attach(db, V1, source, shared)
    assert vm.disks(web)[V1].source == vm.disks(db)[V1].source == source.path


# --- names -----------------------------------------------------------------------


# --- sizes -----------------------------------------------------------------------


def test_a_volume_grows_in_whole_mebibytes_on_vvol(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk()
    vm.attach(web, V1, source, PLAIN)
    with pytest.raises(Refused, match=str(10 * MIB)):
        vm.extend(web, V1, 9 * MIB + 1024)
    assert "ReconfigVM_Task" in lab.calls()
    assert lab.disks()[source.path] == 8 * MIB
    assert vm.extend(web, V1, 9 * MIB + 1024, round_up=True) == 10 * MIB
    assert lab.disks()[source.path] == 10 * MIB
    assert vm.disks(web)[V1].state is DiskState.WHOLE
    calls = lab.calls()["ReconfigVM_Task"]
    assert vm.extend(web, V1, 10 * MIB) == 10 * MIB
    assert lab.calls()["ReconfigVM_Task"] == calls, "it was that large already"


def test_a_volume_does_not_shrink(operator: Operator, vm: VSphere, web: GuestId) -> None:
    vm.attach(web, V1, operator.disk(), PLAIN)
    with pytest.raises(Refused, match="shrink"):
        vm.extend(web, V1, 4 * MIB)


def test_elsewhere_a_kibibyte_is_enough(operator: Operator, vm: VSphere, web: GuestId) -> None:
    vm.attach(web, V1, operator.disk("vmfs1"), PLAIN)
    assert vm.extend(web, V1, 9 * MIB + 1024) == 9 * MIB + 1024
    with pytest.raises(Refused, match="KiB"):
        vm.extend(web, V1, 9 * MIB + 1025)


def test_an_odd_disk_moves_to_vvol_only_if_it_may_grow(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk("vmfs1")
    vm.attach(web, V1, source, PLAIN)
    vm.extend(web, V1, 9 * MIB + 1024)
    with pytest.raises(Refused, match="MiB"):
        vm.relocate(web, V1, "vvol1")
    assert lab.disks()[source.path] == 9 * MIB + 1024
    assert "RelocateVM_Task" not in lab.calls()
    moved = vm.relocate(web, V1, "vvol1", round_up=True)
    assert lab.disks()[moved.path] == 10 * MIB
    assert source.path not in lab.disks()
    assert vm.relocate(web, V1, "vvol1") == moved
    assert lab.calls()["RelocateVM_Task"] == 1


@pytest.mark.parametrize(
    ("datastore", "change", "why"),
    [
        ("vvol-maint", {}, r"\(VVOL\): is in maintenance"),
        ("vvol-lost", {}, r"\(VVOL\): is not accessible"),
        ("cifs", {}, r"\(CIFS\): its type is not one"),
        ("nfs1", {"Free": 4 * MIB}, r"\(NFS\): has 0.0 GiB free"),
    ],
)
def test_a_target_that_will_not_do_is_refused_before_anything_is_asked(
    lab: VCenter,
    operator: Operator,
    vm: VSphere,
    web: GuestId,
    datastore: str,
    change: dict[str, int],
    why: str,
) -> None:
    source = operator.disk("vmfs1", mib=9)
    vm.attach(web, V1, source, PLAIN)
    if change:
        lab.datastore(datastore, Capacity=500 << 30, **change)
    with pytest.raises(Refused, match=f"volume v1 is not moved to {datastore} {why}"):
        vm.relocate(web, V1, datastore, round_up=True)
    assert not {"RelocateVM_Task", "ExtendVirtualDisk_Task"} & {*lab.calls()}
    assert vm.disks(web)[V1].source == source.path
    lab.datastore("nfs1", Capacity=500 << 30, Free=300 << 30)


def test_a_move_that_moved_nothing_is_told_as_that(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk("vmfs1")
    vm.attach(web, V1, source, PLAIN)
    lab.fault("RelocateVM_Task", Idle=True)
    with pytest.raises(Failed) as told:
        vm.relocate(web, V1, "nfs1")
    said = "volume v1 is not moved to nfs1: vCenter says that it is done, and the disk is"
    assert told.value.message == f"{said} {source.path}"
    assert vm.relocate(web, V1, "nfs1").datastore == "nfs1"


def test_what_is_not_attached_is_not_found(vm: VSphere, web: GuestId) -> None:
    with pytest.raises(NotFound):
        vm.extend(web, V1, MIB)
    with pytest.raises(NotFound):
        vm.relocate(web, V1, "nfs1")


def test_a_datastore_that_is_full(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    vm.attach(web, V1, operator.disk("nfs41"), PLAIN)
    with pytest.raises(Failed, match="vCenter says"):
        vm.extend(web, V1, 300 << 30)


# --- Cinder's volumes ------------------------------------------------------------


@pytest.fixture
def shadow(lab: VCenter) -> Iterator[ShadowDisk]:
    """A volume as Cinder's driver makes one: a machine, never powered on, with one disk."""
    session = Session(logon(lab))
    made = Makes(session)
    yield made.hold(MachineRequest(name="volume-1", empty=8 * MIB, memory=64, datastores="vvol1"))
    made.remove("volume-1")
    session.close()


def test_a_volume_of_cinders(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId, shadow: ShadowDisk
) -> None:
    vm.check(web, shadow, PLAIN)
    vm.attach(web, V1, shadow, PLAIN)
    calls = lab.calls()["ReconfigVM_Task"]
    vm.attach(web, V1, shadow, PLAIN)
    assert lab.calls()["ReconfigVM_Task"] == calls
    folder = lab.folder("vvol1", "volume-1")
    assert vm.disks(web)[V1].source.startswith(f"[vvol1] {folder}/")
    vm.detach(web, V1)
    assert vm.disks(web) == {}
    assert [d for d in lab.disks() if f"{folder}/" in d], "it is Cinder's to delete"


def test_a_machine_that_holds_more_than_a_volume_is_refused(
    operator: Operator, vm: VSphere, web: GuestId
) -> None:
    running = ShadowDisk(operator.machines[DB]._moId)
    with pytest.raises(Refused, match="only holds"):
        vm.attach(web, V1, running, PLAIN)
    with pytest.raises(NotFound):
        vm.check(web, ShadowDisk("vm-99999"), PLAIN)
