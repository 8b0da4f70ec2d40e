"""Makes the data objects that vCenter's calls take."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from pyVmomi import vim

from moorline.disk_options import Limits
from moorline.hypervisors.vsphere.disk_checks import allocation
from moorline.hypervisors.vsphere.virtual_machine import (
    GIVEN,
    LAUNCH_MARK,
    MARK,
    MULTI_WRITER,
    TOUCHED,
    Controller,
    Device,
    Machine,
    mark,
)
from moorline.model import DiskOptions, VolumeId

_device = vim.vm.device
_Operation = _device.VirtualDeviceSpec.Operation


def plug(
    machine: Machine, volume: VolumeId, path: str, uuid: str, options: DiskOptions
) -> tuple[Any, Controller, int]:
    """Add the disk and its mark: the specification, and the place that it names.

    The mode is independent: a snapshot of the machine leaves the volume alone,
    and never puts a difference between it and its file. Raises Refused if the
    machine is full.
    """
    controller, unit = machine.free_place()
    changes = [] if controller.key > 0 else [_add(_new_controller(controller))]
    backing = _device.VirtualDisk.FlatVer2BackingInfo(
        fileName=path, diskMode="independent_persistent"
    )
    if options.shared:
        backing.sharing = MULTI_WRITER
    disk = _device.VirtualDisk(
        key=-1, controllerKey=controller.key, unitNumber=unit, backing=backing, capacityInKB=0
    )
    if (limits := options.limits()) is not None:
        disk.storageIOAllocation = allocation(limits)
    spec = _reconfigure(machine, [*changes, _add(disk)])
    spec.extraConfig = [_option(volume, mark(uuid, path))]
    return spec, controller, unit


def unplug(machine: Machine, volume: VolumeId, device: Device | None) -> Any:
    """Remove the disk, if it is there, and the mark; the file stays."""
    changes = []
    if device is not None:
        removal = _device.VirtualDeviceSpec(
            operation=_Operation.remove, device=_device.VirtualDisk(key=device.key, capacityInKB=0)
        )
        changes.append(removal)
    spec = _reconfigure(machine, changes)
    spec.extraConfig = [_option(volume, "")]
    return spec


def resize(machine: Machine, disk: Any, size: int) -> Any:
    """Give *disk*, as it was read, another size."""
    disk.capacityInBytes, disk.capacityInKB = size, size // 1024
    edit = _device.VirtualDeviceSpec(operation=_Operation.edit, device=disk)
    return _reconfigure(machine, [edit])


def limit(machine: Machine, disk: Any, limits: Limits) -> Any:
    """Give *disk*, as it was read, other limits."""
    disk.storageIOAllocation = allocation(limits)
    edit = _device.VirtualDeviceSpec(operation=_Operation.edit, device=disk)
    return _reconfigure(machine, [edit])


def touch(machine: Machine) -> Any:
    """Change nothing but the machine's version."""
    return _write(machine)[0]


def give(owner: Machine, machine: Machine) -> Any:
    """Say on *owner* that its disk is being given to *machine*, as that one is now."""
    return _write(owner, (GIVEN, f"{machine.id} {machine.version}"))[0]


def launch_mark(machine: Machine, state: str, digest: str) -> tuple[Any, str]:
    """Say how far we came with making it; and what :attr:`Machine.touched` is then."""
    return _write(machine, (LAUNCH_MARK, f"{state} {digest}"))


def _write(machine: Machine, *options: tuple[str, str]) -> tuple[Any, str]:
    """Write *options*, and what nobody wrote before: the machine gets another version."""
    spec, touched = _reconfigure(machine, []), str(uuid4())
    spec.extraConfig = [
        vim.option.OptionValue(key=key, value=value)
        for key, value in (*options, (TOUCHED, touched))
    ]
    return spec, touched


def _reconfigure(machine: Machine, changes: list[Any]) -> Any:
    spec = vim.vm.ConfigSpec(deviceChange=changes)
    if machine.version:
        # If it was changed since we looked, vCenter turns us away (ConcurrentAccess).
        spec.changeVersion = machine.version
    return spec


def _add(device: Any) -> Any:
    return _device.VirtualDeviceSpec(operation=_Operation.add, device=device)


def _new_controller(controller: Controller) -> Any:
    return controller.kind(
        key=controller.key,
        busNumber=controller.bus,
        sharedBus=_device.VirtualSCSIController.Sharing.noSharing,
    )


def _option(volume: VolumeId, value: str) -> Any:
    return vim.option.OptionValue(key=f"{MARK}{volume}", value=value)
