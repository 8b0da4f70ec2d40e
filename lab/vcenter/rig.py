"""The product in front of the stand-in, and the hands of an operator, for tests and demos."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

from pyVmomi import vim

from lab.vcenter import VCenter
from moorline.hypervisors.vsphere.client.session import Logon, Session
from moorline.hypervisors.vsphere.client.tasks import Progress, no_progress
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest
from moorline.hypervisors.vsphere.provision.provisioner import Provisioner
from moorline.model import DatastoreDisk, GuestId, GuestName, ShadowDisk
from moorline.secret import Secret

_COUNT = itertools.count(1)
_ALL = vim.host.DatastoreBrowser.SearchSpec(matchPattern=["*"])
MIB = 1 << 20


def logon(lab: VCenter, *, password: str = VCenter.password, **more: Any) -> Logon:
    given = {"ca": lab.ca, **more}
    return Logon("localhost", lab.user, Secret(password), lab.port, **given)


def vsphere(lab: VCenter, *, deadline: float = 20.0, task_deadline: float = 60.0) -> VSphere:
    return VSphere(Session(logon(lab), deadline=deadline), task_deadline=task_deadline)


class Makes(Provisioner):
    """Makes machines that run, and such that only hold their disk, as commands do."""

    def launch(self, request: MachineRequest, progress: Progress = no_progress) -> GuestName:
        seen = self.make(request, progress)
        self.start(request.name)
        return GuestName(GuestId(seen.id), request.name)

    def hold(self, request: MachineRequest) -> ShadowDisk:
        return ShadowDisk(str(self.make(request).ref._moId))


class Operator:
    """Does by plain pyVmomi calls what others do to a vCenter."""

    def __init__(self, lab: VCenter, datacenter: int = 0) -> None:
        self.session = Session(logon(lab))
        self.content = self.session.content
        self.datacenter = self.content.rootFolder.childEntity[datacenter]
        view = self.content.viewManager.CreateContainerView(
            self.datacenter.vmFolder, [vim.VirtualMachine], True
        )
        self.machines = {vm.name: vm for vm in view.view}

    def id(self, name: str) -> GuestId:
        return GuestId(self.machines[name].config.instanceUuid)

    def done(self, task: Any) -> Any:
        """The result of a task. Raises AssertionError if it failed."""
        info = task.info
        assert info.state == vim.TaskInfo.State.success, info.error
        return info.result

    def disk(self, datastore: str = "vvol1", *, mib: int = 8, name: str = "") -> DatastoreDisk:
        """Make a disk that nobody uses."""
        folder = self.folder(datastore, "volumes")
        source = DatastoreDisk(datastore, f"{folder}/{name or f'disk-{next(_COUNT)}'}.vmdk")
        spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
            diskType="thin", adapterType="lsiLogic", capacityKb=mib * 1024
        )
        disks = self.content.virtualDiskManager
        self.done(disks.CreateVirtualDisk_Task(source.path, self.datacenter, spec))
        return source

    def folder(self, datastore: str, name: str) -> str:
        """Make a folder at the top of a datastore, if it is not there, and return its own name."""
        store = next(each for each in self.datacenter.datastore if each.name == datastore)
        if store.capability.topLevelDirectoryCreateSupported:
            self.content.fileManager.MakeDirectory(f"[{datastore}] {name}", self.datacenter, True)
            return name
        with suppress(vim.fault.FileAlreadyExists):
            self.content.datastoreNamespaceManager.CreateDirectory(store, name)
        found = self.done(store.browser.SearchDatastore_Task(f"[{datastore}]", _ALL)).file
        return str(next(each.path for each in found if each.friendlyName == name))

    def power(self, name: str, on: bool) -> None:
        vm = self.machines[name]
        self.done(vm.PowerOnVM_Task() if on else vm.PowerOffVM_Task())

    def plug(self, name: str, source: DatastoreDisk, unit: int | None = None) -> None:
        """Add a disk without any mark."""
        vm = self.machines[name]
        controllers = vim.vm.device.VirtualSCSIController
        at = next(d for d in vm.config.hardware.device if isinstance(d, controllers))
        taken = {d.unitNumber for d in vm.config.hardware.device if d.controllerKey == at.key}
        free = next(n for n in (*range(7), *range(8, 16)) if n not in taken)
        backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            fileName=source.path, diskMode="persistent"
        )
        disk = vim.vm.device.VirtualDisk(
            key=-1,
            controllerKey=at.key,
            unitNumber=free if unit is None else unit,
            backing=backing,
            capacityInKB=0,
        )
        change = vim.vm.device.VirtualDeviceSpec(operation="add", device=disk)
        self.done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))

    def unplug(self, name: str, path: str) -> None:
        """Remove a disk by hand; a mark stays."""
        vm = self.machines[name]
        disks: list[Any] = [
            d for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)
        ]
        change = vim.vm.device.VirtualDeviceSpec(
            operation="remove", device=next(d for d in disks if d.backing.fileName == path)
        )
        self.done(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))

    def options(self, name: str) -> list[tuple[str, str]]:
        """A machine's extra configuration."""
        return [(o.key, o.value) for o in self.machines[name].config.extraConfig]

    def log_everybody_out(self) -> None:
        """End all sessions but this one."""
        manager = self.content.sessionManager
        mine = manager.currentSession.key
        manager.TerminateSession([s.key for s in manager.sessionList if s.key != mine])

    def close(self) -> None:
        self.session.close()
