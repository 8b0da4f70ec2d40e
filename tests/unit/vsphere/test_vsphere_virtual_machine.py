"""What is read off a machine, where the stand-in cannot show it: snapshots, moves, odd hardware."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim
from rows import Rows

from moorline.errors import Failed, Refused, Unavailable, Uncertain
from moorline.hypervisors.vsphere.device_specs import plug, unplug
from moorline.hypervisors.vsphere.hypervisor import _refuse_difference, split
from moorline.hypervisors.vsphere.inventory import Inventory
from moorline.hypervisors.vsphere.provision.placement import Places
from moorline.hypervisors.vsphere.provision.provisioner import Provisioner
from moorline.hypervisors.vsphere.virtual_machine import MARK, UNITS, Machine, mark, names, parse
from moorline.model import DatastoreDisk, DiskOptions, DiskState, VolumeId

device = vim.vm.device
V1 = VolumeId("v1")
PATH = "[vvol1] volumes/data.vmdk"
UUID = "6000C29a-0000-0000-0000-000000000001"


def disk(
    path: str, *, unit: int = 0, uuid: str | None = None, parent: str = "", at: int = 1000
) -> Any:
    backing = device.VirtualDisk.FlatVer2BackingInfo(
        fileName=path, diskMode="persistent", uuid=uuid
    )
    if parent:
        backing.parent = device.VirtualDisk.FlatVer2BackingInfo(
            fileName=parent, diskMode="persistent"
        )
    return device.VirtualDisk(
        key=2000 + unit, controllerKey=at, unitNumber=unit, backing=backing, capacityInKB=1024
    )


def scsi(bus: int = 0) -> Any:
    kind = device.ParaVirtualSCSIController
    return kind(key=1000 + bus, busNumber=bus, sharedBus="noSharing")


def machine(*devices: Any, marks: dict[str, str] | None = None) -> Machine:
    options = [
        vim.option.OptionValue(key=f"{MARK}{volume}", value=value)
        for volume, value in (marks or {}).items()
    ]
    return parse(
        vim.VirtualMachine("vm-1"),
        {
            "name": "web01",
            "config.instanceUuid": "5000",
            "runtime.powerState": vim.VirtualMachine.PowerState.poweredOn,
            "config.extraConfig": options,
            "config.hardware.device": [scsi(), *devices],
        },
    )


def test_a_disk_is_known_by_its_uuid_wherever_it_is() -> None:
    moved = disk("[nfs1] web01/data.vmdk", uuid=UUID)
    found = machine(moved, marks={V1: mark(UUID, PATH)}).disks()[V1]
    assert (found.state, found.source) == (DiskState.WHOLE, "[nfs1] web01/data.vmdk")


def test_a_disk_without_a_uuid_is_known_by_its_path() -> None:
    other = disk("[vvol1] other.vmdk", unit=1)
    found = machine(other, disk(PATH), marks={V1: mark("", PATH)})
    assert found.disks()[V1].source == PATH
    assert machine(other, marks={V1: mark("", PATH)}).disks() == {}


def test_the_uuid_counts_more_than_a_path_that_another_disk_has_now() -> None:
    here, other = disk("[nfs1] moved.vmdk", uuid=UUID), disk(PATH, unit=1, uuid="6000-2")
    found = machine(other, here, marks={V1: mark(UUID, PATH)}).device_of(V1)
    assert found is not None
    assert found.path == "[nfs1] moved.vmdk"


def test_a_snapshot_is_the_same_volume_and_must_not_be_detached() -> None:
    snapshot = disk("[vvol1] volumes/data-000001.vmdk", parent=PATH)
    found = machine(snapshot, marks={V1: mark("", PATH)})
    assert found.disks()[V1].source == PATH
    assert found.guest().paths == {PATH, "[vvol1] volumes/data-000001.vmdk"}
    with pytest.raises(Failed, match="snapshot of web01") as told:
        _refuse_difference(found, V1, found.device_of(V1))
    assert "remove the snapshots" in told.value.hint


def test_an_empty_mark_is_none() -> None:
    assert machine(disk(PATH), marks={V1: ""}).marks == {}


def test_places_are_free_where_nothing_is() -> None:
    cd = device.VirtualCdrom(key=3000, controllerKey=1000, unitNumber=1)
    cd.backing = device.VirtualCdrom.IsoBackingInfo(fileName="[nfs1] isos/boot.iso")
    found = machine(disk(PATH), cd)
    assert found.free_place()[1] == 2
    assert "[nfs1] isos/boot.iso" in found.guest().paths


def test_a_new_controller_is_of_the_type_that_the_guest_has() -> None:
    full = [disk(f"[vvol1] {unit}.vmdk", unit=unit) for unit in UNITS]
    controller, unit = machine(*full).free_place()
    assert (controller.bus, unit) == (1, 0)
    assert controller.kind is device.ParaVirtualSCSIController
    assert controller.key < 0
    bare = machine()
    assert parse(bare.ref, {**_bare(), "config.hardware.device": []}).free_place()[0].bus == 0


def test_a_change_is_for_the_configuration_that_was_seen() -> None:
    seen = {**_bare(), "config.changeVersion": "2026-11-21T00:00:00Z"}
    now = parse(vim.VirtualMachine("vm-1"), seen)
    for spec in (plug(now, V1, PATH, UUID, DiskOptions())[0], unplug(now, V1, None)):
        assert spec.changeVersion == "2026-11-21T00:00:00Z"
    assert unplug(machine(), V1, None).changeVersion is None


def test_a_shared_volume_has_several_writers() -> None:
    for shared in (True, False):
        spec = plug(machine(), V1, PATH, UUID, DiskOptions(shared=shared))[0]
        backing = spec.deviceChange[-1].device.backing
        assert backing.sharing == ("sharingMultiWriter" if shared else None)
        assert backing.diskMode == "independent_persistent"


def _bare() -> dict[str, Any]:
    return {"name": "x", "config.instanceUuid": "1", "runtime.powerState": "poweredOff"}


@pytest.mark.parametrize("path", ["", "data.vmdk", "[vvol1]", "[vvol1] ", "[] data.vmdk", "/a/b"])
def test_what_is_no_path_on_a_datastore(path: str) -> None:
    with pytest.raises(Refused):
        split(path)
    assert split(PATH) == DatastoreDisk("vvol1", "volumes/data.vmdk")


# --- machines that cannot be looked at -------------------------------------------


def test_a_machine_without_a_configuration_is_one_unknown() -> None:
    good = {**_bare(), "runtime.connectionState": "connected"}
    lost = {"name": "lost", "runtime.connectionState": "inaccessible"}
    inventory = Inventory(Rows(good, lost))  # type: ignore[arg-type]
    (machine,), (unknown,) = inventory.machines()
    assert (machine.name, unknown.name, unknown.running) == ("x", "lost", True)
    assert unknown.guest().id == "vm-1", "vCenter remembers no other"
    assert "it is inaccessible" in unknown.guest().unreadable
    with pytest.raises(Uncertain, match="lost cannot be read, and may have the disk"):
        inventory.users([], besides=None)


def test_a_name_that_several_machines_have_is_refused_with_their_ids() -> None:
    both = Inventory(Rows(_bare(), {**_bare(), "config.instanceUuid": "2"}))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="2 machines are called x") as told:
        both.find("x")
    assert told.value.hint == "give the instance UUID: 1, 2"
    assert both.find("2") == ("2", "x")


def test_which_of_two_machines_shall_go_is_not_guessed() -> None:
    both = Provisioner(Rows({"name": "x"}, {"name": "x"}))  # type: ignore[arg-type]
    for look in (both.look, both.remove, both.start):
        with pytest.raises(Refused, match="2 machines called x"):
            look("x")


def test_a_cluster_must_be_named_where_there_are_several() -> None:
    both = Places(Rows({"name": "old"}, {"name": "new"}))  # type: ignore[arg-type]
    with pytest.raises(Refused) as told:
        both.cluster("")
    assert told.value.message == "there are 2 clusters"
    assert told.value.hint == "name one: old (vm-0), new (vm-1)"
    assert both.cluster("new")._moId == "vm-1"
    assert both.cluster("vm-0")._moId == "vm-0"


def test_a_launched_machine_without_a_configuration_is_not_taken_for_somebody_elses() -> None:
    lost = {"name": "lost", "runtime.connectionState": "inaccessible"}
    with pytest.raises(Unavailable, match="it is inaccessible"):
        Provisioner(Rows(lost)).remove("lost")  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["orphaned", "invalid"])
def test_a_machine_that_no_host_has_holds_nothing(state: str) -> None:
    good = {**_bare(), "runtime.connectionState": "connected"}
    lost = {"name": "lost", "runtime.connectionState": state}
    (machine,), blind = Inventory(Rows(good, lost)).machines()  # type: ignore[arg-type]
    assert (machine.name, blind) == ("x", [])


SPELLINGS = (
    UUID,
    UUID.upper(),
    "60 00 C2 9a 00 00 00 00-00 00 00 00 00 00 00 01",  # the disk manager's
)


@pytest.mark.parametrize("told", SPELLINGS)
@pytest.mark.parametrize("kept", SPELLINGS)
def test_a_disk_is_known_however_its_uuid_is_spelled(told: str, kept: str) -> None:
    moved = disk("[nfs1] web01/data.vmdk", uuid=told)
    found = machine(moved, marks={V1: f"{kept} {PATH}"})
    assert found.disks()[V1].source == "[nfs1] web01/data.vmdk"
    assert names(uuid=kept) <= found.devices[0].names


@pytest.mark.parametrize("sharing", ["virtualSharing", "physicalSharing"])
def test_no_disk_goes_onto_a_controller_that_machines_share(sharing: str) -> None:
    shared = scsi(1)
    shared.sharedBus = sharing
    full = [disk(f"[a] {n}.vmdk", unit=n) for n in UNITS]
    controller, _ = machine(shared, *full).free_place()
    assert (controller.bus, controller.key < 0) == (2, True)
    busses = [scsi(n) for n in (1, 2, 3)]
    for each in busses:
        each.sharedBus = sharing
    with pytest.raises(Refused) as told:
        machine(*busses, *full).free_place()
    assert told.value.message == (
        "web01 has no free place: 4 SCSI controllers, 15 devices on each,"
        " and none goes onto those whose bus machines share (scsi1, scsi2, scsi3)"
    )
