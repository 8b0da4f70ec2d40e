"""One disk has one name, and is known by more than its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVmomi import vim

from lab.vcenter import VCenter
from lab.vcenter.prompt import moorline as prompt
from lab.vcenter.rig import MIB, Makes, Operator, logon, vsphere
from moorline.errors import NotOurs, Refused
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.hypervisor import VSphere, split
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest
from moorline.model import DatastoreDisk, DiskOptions, GuestId, VolumeId
from tests.support.missing import vcenter_lab

WEB, DB = VCenter.guests
V1, V2 = VolumeId("vol-1"), VolumeId("vol-2")
PLAIN = DiskOptions()
OBJECTS = pytest.mark.parametrize("datastore", ["vvol1", "vsan1"])


def alias(source: DatastoreDisk, name: str = "volumes") -> DatastoreDisk:
    return DatastoreDisk(source.datastore, f"{name}/{source.file.partition('/')[2]}")


# --- friendly names -----------------------------------------------------------------


@OBJECTS
def test_a_friendly_name_is_refused_with_the_folders_own(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId, datastore: str
) -> None:
    source = operator.disk(datastore)
    assert source != alias(source)
    for command in (
        lambda: vm.check(web, alias(source), PLAIN),
        lambda: vm.attach(web, V1, alias(source), PLAIN),
    ):
        with pytest.raises(Refused, match="second name of the folder") as told:
            command()
        assert told.value.hint == f"name the disk vmdk://{datastore}/{source.file}"
    assert "ReconfigVM_Task" not in lab.calls()
    vm.attach(web, V1, source, PLAIN)
    assert vm.disks(web)[V1].source == source.path


def test_a_friendly_name_that_reads_like_an_id_is_one_all_the_same(
    operator: Operator, vm: VSphere, web: GuestId
) -> None:
    """Nova calls its machines, and so their folders, by a UUID."""
    name = "0d8d2b9c-5f0e-4f7e-9b0a-1c1f3a2b4c5d"
    own = operator.folder("vvol1", name)
    with pytest.raises(Refused, match=f"second name of the folder {own}"):
        vm.check(web, DatastoreDisk("vvol1", f"{name}/x.vmdk"), PLAIN)


@pytest.mark.parametrize("volume", [V1, V2])
def test_what_is_plugged_under_its_friendly_name_is_not_plugged_again(
    operator: Operator, vm: VSphere, web: GuestId, volume: VolumeId
) -> None:
    source = operator.disk()
    operator.plug(WEB, alias(source))
    with pytest.raises(NotOurs, match="bears another mark, or none"):
        vm.attach(web, volume, source, PLAIN)
    with pytest.raises(NotOurs):
        vm.check(web, source, PLAIN)
    operator.unplug(WEB, alias(source).path)


@pytest.mark.parametrize("datastore", ["vvol1", "vsan1", "vmfs1"])
@pytest.mark.parametrize("on", [True, False], ids=["running", "stopped"])
def test_a_disk_of_another_machine_is_refused_with_its_name(
    operator: Operator, vm: VSphere, web: GuestId, datastore: str, on: bool
) -> None:
    """Under whatever name; vCenter's locks heed neither machine unless both run."""
    source = operator.disk(datastore)
    operator.power(DB, on=False)
    spelt = source if datastore == "vmfs1" else alias(source)
    operator.plug(DB, spelt)
    if on:
        operator.power(DB, on=True)
    try:
        for command in (vm.check, lambda *a: vm.attach(web, V1, *a[1:])):
            with pytest.raises(Refused, match=f"is a disk of {DB} already"):
                command(web, source, PLAIN)
        assert vm.disks(web) == {}
    finally:
        operator.unplug(DB, spelt.path)
        if not on:
            operator.power(DB, on=True)


@OBJECTS
def test_a_disk_that_a_running_machine_has_by_its_friendly_name_is_not_removed(
    lab: VCenter, operator: Operator, makes: Makes, datastore: str
) -> None:
    held = makes.hold(MachineRequest("box", empty=8 * MIB, memory=64, datastores=datastore))
    assert held.machine
    (path,) = makes.look("box").disks
    spelt = alias(split(path), "box")
    assert spelt.path != path
    operator.plug(WEB, spelt)
    with pytest.raises(Refused, match=f"is a disk of {WEB}, too"):
        makes.remove("box")
    assert path in lab.disks()
    operator.unplug(WEB, spelt.path)
    assert makes.remove("box")
    assert path not in lab.disks()


def test_a_disk_that_another_has_by_its_friendly_name_is_not_relocated(
    operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk()
    vm.attach(web, V1, source, DiskOptions(shared=True))
    operator.power(DB, on=False)
    operator.plug(DB, alias(source))
    with pytest.raises(Refused, match=f"is a disk of {DB}, too"):
        vm.relocate(web, V1, "vsan1")
    operator.unplug(DB, alias(source).path)
    operator.power(DB, on=True)


def test_there_are_no_folders_at_the_top_but_those_of_objects(operator: Operator) -> None:
    for datastore in ("vvol1", "vsan1"):
        with pytest.raises(vim.fault.CannotCreateFile):
            operator.content.fileManager.MakeDirectory(
                f"[{datastore}] plain", operator.datacenter, True
            )


# --- several datacenters --------------------------------------------------------------


@pytest.fixture(scope="module")
def wide() -> Iterator[VCenter]:
    """All that an inventory can have."""
    with vcenter_lab(datacenters=2, standalone=1, pools=1, vapps=1, vms=1) as lab:
        yield lab


@pytest.fixture
def here(wide: VCenter) -> Operator:
    return Operator(wide)


@pytest.fixture
def there(wide: VCenter) -> Operator:
    return Operator(wide, datacenter=1)


@pytest.fixture
def both(wide: VCenter) -> Iterator[VSphere]:
    vm = vsphere(wide)
    yield vm
    for guest in vm.survey():
        for volume in guest.disks:
            vm.detach(guest.id, volume)
    vm.close()


def in_datacenter(source: DatastoreDisk, name: str) -> DatastoreDisk:
    return DatastoreDisk(source.datastore, source.file, name)


def test_machines_are_found_wherever_they_lie(
    both: VSphere, here: Operator, there: Operator
) -> None:
    """Of clusters, standalone hosts, resource pools and vApps, in both datacenters."""
    names = {guest.name for guest in both.survey()}
    assert names == {*here.machines, *there.machines}
    assert {name.rpartition("_")[0] for name in names} >= {
        "DC0_H0", "DC0_C0_RP0", "DC0_C0_APP0", "DC1_H0", "DC1_C0_RP0", "DC1_C0_APP0",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["H0", "C0_RP0", "C0_APP0"])
def test_a_datastore_that_two_datacenters_have_needs_its_datacenter(
    wide: VCenter, both: VSphere, here: Operator, there: Operator, kind: str
) -> None:
    source, twin = here.disk("nfs1", name=kind), there.disk("nfs1", name=kind, mib=16)
    assert source == twin
    guest, other = here.id(f"DC0_{kind}_VM0"), there.id(f"DC1_{kind}_VM0")
    with pytest.raises(Refused, match="2 datacenters have a datastore nfs1") as told:
        both.attach(guest, V1, source, PLAIN)
    assert told.value.hint.endswith("one of DC0, DC1")
    both.attach(guest, V1, in_datacenter(source, "DC0"), PLAIN)
    both.attach(other, V2, in_datacenter(source, "DC1"), PLAIN)
    assert both.sizes(guest, V1).guest == 8 * MIB
    assert both.sizes(other, V2).guest == 16 * MIB
    assert both.disks(guest)[V1].source == both.disks(other)[V2].source == source.path


@pytest.mark.parametrize(
    ("datacenter", "why"),
    [("DC1", "is in another datacenter than DC1"), ("DC7", "no datastore nfs1 in datacenter DC7")],
)
def test_a_disk_of_another_datacenter_is_refused(
    both: VSphere, here: Operator, datacenter: str, why: str
) -> None:
    source = in_datacenter(here.disk("nfs1"), datacenter)
    with pytest.raises(Refused, match=why):
        both.attach(here.id("DC0_H0_VM0"), V1, source, PLAIN)


def test_an_equal_path_in_another_datacenter_is_another_disk(
    wide: VCenter, both: VSphere, here: Operator, there: Operator
) -> None:
    """It holds up neither a removal nor a move, and a true user still does."""
    session = Session(logon(wide), deadline=20)
    makes = Makes(session, task_deadline=20)
    makes.hold(
        MachineRequest("held", empty=8 * MIB, memory=64, datastores="nfs1", cluster="DC0_C0")
    )
    (path,) = makes.look("held").disks
    there.folder("nfs1", split(path).file.partition("/")[0])
    spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
        diskType="thin", adapterType="lsiLogic", capacityKb=8192
    )
    disks = there.content.virtualDiskManager
    there.done(disks.CreateVirtualDisk_Task(path, there.datacenter, spec))
    there.plug("DC1_H0_VM0", split(path))
    here.plug("DC0_H0_VM0", split(path))
    with pytest.raises(Refused, match="is a disk of DC0_H0_VM0, too"):
        makes.remove("held")
    here.unplug("DC0_H0_VM0", path)
    assert makes.remove("held")
    there.unplug("DC1_H0_VM0", path)
    session.close()


def test_a_command_tells_an_equal_path_in_another_datacenter_apart(
    wide: VCenter, here: Operator, there: Operator, tmp_path: Path
) -> None:
    moorline = prompt(wide, tmp_path)
    source = here.disk("nfs1", name="twin")
    assert there.disk("nfs1", name="twin") == source
    path = f"vmdk://nfs1/{source.file}?datacenter="
    guests = {name: f"{name}_C0_RP0_VM0" for name in ("DC0", "DC1")}
    for name, guest in guests.items():
        moorline("attach", guest, path + name)
    moorline("attach", "DC0_H0_VM0", f"{path}DC0", code=3)
    moorline("attach", "DC0_H0_VM0", f"{path}DC0", "--shared", code=3)
    for name, guest in guests.items():
        moorline("detach", guest, path + name)
