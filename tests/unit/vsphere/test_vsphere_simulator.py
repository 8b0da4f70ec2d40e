"""The stand-in itself, with plain pyVmomi as its client: what was added to govmomi's simulator."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from lab.vcenter import VCenter
from lab.vcenter.rig import MIB, Operator
from tests.support.missing import vcenter_lab

WEB, DB = VCenter.guests
ODD = 3 * MIB + 65536
device = vim.vm.device


def datastores(operator: Operator) -> dict[str, Any]:
    return {ds.name: ds.summary for ds in operator.datacenter.datastore}


def add(size: int, *, by: str, datastore: str = "vvol1", ref: Any = None) -> Any:
    """A new disk, its size set in one of the two ways, its datastore in one of three."""
    backing = device.VirtualDisk.FlatVer2BackingInfo(diskMode="persistent", datastore=ref)
    backing.fileName = "" if ref is not None or not datastore else f"[{datastore}]"
    disk = device.VirtualDisk(
        key=-1, controllerKey=0, unitNumber=9, backing=backing, capacityInKB=0
    )
    setattr(disk, by, size // 1024 if by == "capacityInKB" else size)
    return device.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk)


def outcome(task: Any) -> Any:
    return task.info.error and type(task.info.error)


def controller(vm: Any) -> int:
    scsi = device.VirtualSCSIController
    return next(d.key for d in vm.config.hardware.device if isinstance(d, scsi))


def reconfigure(vm: Any, change: Any) -> Any:
    if change.operation == "add":
        change.device.controllerKey = controller(vm)
    return vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change]))


def test_all_types_are_there_as_vsphere_spells_them(operator: Operator) -> None:
    found = datastores(operator)
    types = {summary.type for summary in found.values()}
    assert types >= {"VVOL", "VMFS", "NFS", "NFS41", "vsan", "CIFS"}
    assert not found["vvol-lost"].accessible
    assert found["vvol-maint"].maintenanceMode == "inMaintenance"
    assert found["vvol1"].multipleHostAccess
    assert not found["vmfs-local"].multipleHostAccess


@pytest.mark.parametrize("by", ["capacityInKB", "capacityInBytes"])
@pytest.mark.parametrize("where", ["by name", "by reference"])
def test_the_rule_holds_for_every_way_to_add_a_disk(
    lab: VCenter, operator: Operator, by: str, where: str
) -> None:
    vm = operator.machines[WEB]
    refs = {ds.name: ds for ds in operator.datacenter.datastore}
    ref = refs["vvol1"] if where == "by reference" else None
    before = lab.disks()
    assert outcome(reconfigure(vm, add(ODD, by=by, ref=ref))) is vmodl.fault.InvalidArgument
    assert lab.disks() == before


@pytest.mark.parametrize("by", ["capacityInKB", "capacityInBytes"])
def test_elsewhere_an_odd_disk_is_made(lab: VCenter, operator: Operator, by: str) -> None:
    assert outcome(reconfigure(operator.machines[WEB], add(ODD, by=by, datastore="vmfs1"))) is None
    made = [path for path in lab.disks() if path.startswith(f"[vmfs1] {WEB}/")]
    assert [lab.disks()[path] for path in made] == [ODD]
    operator.unplug(WEB, made[0])
    disks = operator.content.virtualDiskManager
    operator.done(disks.DeleteVirtualDisk_Task(made[0], operator.datacenter))


def test_the_rule_holds_for_disks_made_and_extended_by_themselves(
    lab: VCenter, operator: Operator
) -> None:
    disks, within = operator.content.virtualDiskManager, operator.datacenter
    spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
        diskType="thin", adapterType="lsiLogic", capacityKb=ODD // 1024
    )
    path = operator.disk().path
    other = path.replace("disk-", "odd-")
    assert outcome(disks.CreateVirtualDisk_Task(other, within, spec)) is not None
    assert other not in lab.disks()
    assert outcome(disks.ExtendVirtualDisk_Task(path, within, 9 * 1024 + 64, False)) is not None
    assert outcome(disks.ExtendVirtualDisk_Task(path, within, 9 * 1024, False)) is None
    assert lab.disks()[path] == 9 * MIB
    assert outcome(disks.ExtendVirtualDisk_Task(path, within, 8 * 1024, False)) is not None


def test_free_space_is_accounted_for(lab: VCenter, operator: Operator) -> None:
    free = datastores(operator)["nfs1"].freeSpace
    source = operator.disk("nfs1", mib=64)
    assert datastores(operator)["nfs1"].freeSpace == free - 64 * MIB
    operator.plug(WEB, source)
    operator.unplug(WEB, source.path)
    assert datastores(operator)["nfs1"].freeSpace == free - 64 * MIB
    disks = operator.content.virtualDiskManager
    operator.done(disks.DeleteVirtualDisk_Task(source.path, operator.datacenter))
    assert datastores(operator)["nfs1"].freeSpace == free
    spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
        diskType="thin", adapterType="lsiLogic", capacityKb=1 << 40
    )
    task = disks.CreateVirtualDisk_Task("[nfs1] volumes/huge.vmdk", operator.datacenter, spec)
    assert outcome(task) is vim.fault.NoDiskSpace


def test_a_disk_of_a_running_machine_is_locked(operator: Operator) -> None:
    source = operator.disk()
    operator.plug(WEB, source)
    with pytest.raises(AssertionError, match="FileLocked"):
        operator.plug(DB, source)
    disks = operator.content.virtualDiskManager
    task = disks.DeleteVirtualDisk_Task(source.path, operator.datacenter)
    assert outcome(task) is vim.fault.FileLocked
    operator.power(DB, on=False)
    operator.plug(DB, source)  # vCenter lets a stopped one have it
    operator.unplug(DB, source.path)
    operator.power(DB, on=True)
    operator.unplug(WEB, source.path)


def test_disks_know_their_size_and_uuid(operator: Operator) -> None:
    source = operator.disk(mib=3)
    operator.plug(WEB, source)
    devices = operator.machines[WEB].config.hardware.device
    disk = next(d for d in devices if getattr(d.backing, "fileName", "") == source.path)
    assert disk.capacityInBytes == 3 * MIB
    manager = operator.content.virtualDiskManager
    told = manager.QueryVirtualDiskUuid(source.path, operator.datacenter)
    assert re.fullmatch(r"60 00 C2 9\w( \w\w){4}-\w\w( \w\w){7}", told), told
    assert disk.backing.uuid.replace("-", "") == told.replace(" ", "").replace("-", "")
    operator.unplug(WEB, source.path)


def test_options_are_replaced_and_cleared(operator: Operator) -> None:
    vm = operator.machines[WEB]
    before = operator.options(WEB)
    for value in ("one", "two", ""):
        option = vim.option.OptionValue(key="lab.test", value=value)
        operator.done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[option])))
        expected = [("lab.test", value)] if value else []
        assert [o for o in operator.options(WEB) if o[0] == "lab.test"] == expected
    assert operator.options(WEB) == before


def test_a_name_is_taken_once(operator: Operator) -> None:
    folder = operator.datacenter.vmFolder
    pool = operator.datacenter.hostFolder.childEntity[0].resourcePool
    files = vim.vm.FileInfo(vmPathName="[vvol1]")
    spec = vim.vm.ConfigSpec(name=VCenter.guests[0], files=files)
    assert isinstance(folder.CreateVM_Task(spec, pool).info.error, vim.fault.DuplicateName)


def test_a_session_may_not_be_silent_for_long() -> None:
    with vcenter_lab(idle=0.8) as lab:
        operator = Operator(lab)
        time.sleep(2)
        with pytest.raises(vim.fault.NotAuthenticated):
            operator.content.sessionManager.sessionList  # noqa: B018 - reading it asks
        operator.close()


def test_without_go_it_says_what_to_install(tmp_path: Path) -> None:
    code = "from lab.vcenter.build import binary\nbinary()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        env={"PATH": "/nowhere", "MOORLINE_LAB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Missing: the vCenter simulator needs Debian's packages golang-go" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["vcenter-lock"]


def prefixed(operator: Operator, body: str) -> str:
    """What the stand-in answers to a call as clients on suds write it."""
    stub = operator.datacenter._stub
    text = (
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns:ns0="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"
    )
    call = urllib.request.Request(
        f"https://{stub.host}/sdk",
        data=text.encode(),
        headers={"Cookie": stub.cookie, "SOAPAction": "urn:vim25/8.0"},
    )
    trust = ssl._create_unverified_context()
    with urllib.request.urlopen(call, context=trust, timeout=20) as answer:
        return answer.read().decode()


def task_in(operator: Operator, answer: str) -> Any:
    found = re.search(r'type="Task">([^<]+)<', answer)
    assert found is not None, answer
    return vim.Task(found[1], operator.datacenter._stub)


@pytest.mark.parametrize(("kib", "fault"), [(1500, vmodl.fault.InvalidArgument), (2048, None)])
def test_the_rule_holds_for_clients_that_prefix_types(
    operator: Operator, kib: int, fault: Any
) -> None:
    vm = operator.machines[WEB]
    answer = prefixed(
        operator,
        f'<ns0:ReconfigVM_Task><ns0:_this type="VirtualMachine">{vm._moId}</ns0:_this><ns0:spec>'
        "<ns0:deviceChange><ns0:operation>add</ns0:operation>"
        "<ns0:fileOperation>create</ns0:fileOperation>"
        '<ns0:device xsi:type="ns0:VirtualDisk"><ns0:key>-1</ns0:key>'
        '<ns0:backing xsi:type="ns0:VirtualDiskFlatVer2BackingInfo">'
        "<ns0:fileName>[vvol1]</ns0:fileName><ns0:diskMode>persistent</ns0:diskMode></ns0:backing>"
        f"<ns0:controllerKey>{controller(vm)}</ns0:controllerKey><ns0:unitNumber>9</ns0:unitNumber>"
        f"<ns0:capacityInKB>{kib}</ns0:capacityInKB></ns0:device></ns0:deviceChange></ns0:spec>"
        "</ns0:ReconfigVM_Task>",
    )
    assert outcome(task_in(operator, answer)) is fault


def test_a_key_of_the_extra_configuration_can_be_asked_for(operator: Operator) -> None:
    vm = operator.machines[WEB]
    keys = [vim.option.OptionValue(key=key, value=f"of {key}") for key in ("one", "two")]
    operator.done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=keys)))
    answer = prefixed(
        operator,
        "<ns0:RetrievePropertiesEx>"
        '<ns0:_this type="PropertyCollector">propertyCollector</ns0:_this>'
        "<ns0:specSet><ns0:propSet><ns0:type>VirtualMachine</ns0:type>"
        '<ns0:pathSet>config.extraConfig["two"]</ns0:pathSet>'
        "<ns0:pathSet>config.extraConfig[&quot;none&quot;]</ns0:pathSet></ns0:propSet>"
        f'<ns0:objectSet><ns0:obj type="VirtualMachine">{vm._moId}</ns0:obj></ns0:objectSet>'
        "</ns0:specSet><ns0:options/></ns0:RetrievePropertiesEx>",
    )
    assert "of two" in answer
    assert "of one" not in answer
    assert answer.count("<propSet>") == 1


def test_a_file_stays_in_its_object(operator: Operator) -> None:
    disk, other = operator.disk("vvol1"), operator.folder("vvol1", "elsewhere")
    disks, files = operator.content.virtualDiskManager, operator.content.fileManager
    dc = operator.datacenter
    moved = disks.MoveVirtualDisk_Task(disk.path, dc, f"[vvol1] {other}/x.vmdk", dc, False)
    assert outcome(moved) is vim.fault.CannotAccessFile
    beside = disk.path.replace(".vmdk", "-2.vmdk")
    operator.done(disks.MoveVirtualDisk_Task(disk.path, dc, beside, dc, False))
    folder = beside.rpartition("/")[0]
    gone = files.DeleteDatastoreFile_Task(folder, dc)
    assert outcome(gone) is vim.fault.CannotDeleteFile


def test_a_copy_has_the_size_and_a_uuid_of_its_own(lab: VCenter, operator: Operator) -> None:
    disk, dc = operator.disk("nfs1", mib=5), operator.datacenter
    disks = operator.content.virtualDiskManager
    copy = disk.path.replace(".vmdk", "-copy.vmdk")
    operator.done(disks.CopyVirtualDisk_Task(disk.path, dc, copy))
    assert lab.disks()[copy] == 5 * MIB
    ask = disks.QueryVirtualDiskUuid
    before = ask(copy, dc)
    assert before != ask(disk.path, dc)
    moved = disk.path.replace(".vmdk", "-moved.vmdk")
    operator.done(disks.MoveVirtualDisk_Task(copy, dc, moved, dc, False))
    assert ask(moved, dc) == before


def test_a_machine_takes_its_disks_along(lab: VCenter, operator: Operator) -> None:
    vm = operator.machines[DB]
    store = next(each for each in operator.datacenter.datastore if each.name == "vmfs1")
    operator.done(vm.RelocateVM_Task(vim.vm.RelocateSpec(datastore=store)))
    disk = next(d for d in vm.config.hardware.device if isinstance(d, device.VirtualDisk))
    assert disk.backing.fileName.startswith("[vmfs1]")
