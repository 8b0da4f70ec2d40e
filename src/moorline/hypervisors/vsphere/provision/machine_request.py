"""A request for a machine, and the mark on the machine that tells how far it came."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from moorline.errors import Refused
from moorline.hypervisors.vsphere.provision.datastore_choice import DiskKind
from moorline.hypervisors.vsphere.provision.images import Image
from moorline.hypervisors.vsphere.virtual_machine import HALF, LAUNCH_MARK, WHOLE

ADAPTERS = {
    "pvscsi": vim.vm.device.ParaVirtualSCSIController,
    "lsilogic": vim.vm.device.VirtualLsiLogicController,
    "lsisas": vim.vm.device.VirtualLsiLogicSASController,
    "buslogic": vim.vm.device.VirtualBusLogicController,
}


@dataclass(frozen=True, slots=True)
class MachineRequest:
    """A requested machine. Its disk is either *image*, or *empty*: the bytes of an empty disk."""

    name: str
    image: Image | None = None
    empty: int = 0
    round_up: bool = False
    cpus: int = 1
    memory: int = 2048
    """MiB"""
    adapter: str = "pvscsi"
    thin: bool | None = None
    """None: as the datastore and its policy have it. False: all of it is zeroed beforehand."""
    guest_os: str = "otherLinux64Guest"
    """vSphere's identifier of the operating system."""
    cluster: str = ""
    """'' where there is but one."""
    datastores: str = ""
    """A regular expression that the datastore's whole name matches."""
    policy: str = ""
    reserve: int = 0
    """Bytes that stay free on the datastore."""
    folder: str = ""
    resource_pool: str = ""

    def __post_init__(self) -> None:
        if (self.image is None) == (not self.empty):
            raise Refused(f"{self.name}: either an image or the size of an empty disk is needed")
        if (
            not self.name.isprintable()
            or not 0 < len(self.name) <= 80
            or set("%/\\") & {*self.name}
        ):
            raise Refused(f"{self.name[:90]!r} cannot be a machine's name")
        if self.adapter not in ADAPTERS:
            raise Refused(f"there is no adapter {self.adapter}", hint=", ".join(ADAPTERS))
        if self.cpus < 1 or self.memory < 4 or self.memory % 4:
            raise Refused(
                f"{self.name}: {self.cpus} CPUs with {self.memory} MiB cannot be had",
                hint="memory is a whole multiple of 4 MiB",
            )

    @property
    def size(self) -> int:
        """Bytes of the disk, before they are rounded up."""
        return self.image.capacity if self.image else self.empty

    @property
    def kind(self) -> DiskKind:
        return DiskKind.STREAM if self.image else DiskKind.EMPTY

    def digest(self) -> str:
        """A digest that is equal for requests of the same machine."""
        image = self.image and (self.image.length, self.image.capacity, self.image.digest)
        told = (image, self.empty, self.cpus, self.memory, self.adapter, self.guest_os)
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def mark(self, state: str) -> Any:
        """The mark as an option of the machine's configuration."""
        return vim.option.OptionValue(key=LAUNCH_MARK, value=f"{state} {self.digest()}")


def marked(options: Iterable[Any]) -> tuple[str, str]:
    """How far a machine of ours came, and its request's digest; '' and '' if it is not ours."""
    for option in options:
        if option.key == LAUNCH_MARK:
            state, _, digest = str(option.value).partition(" ")
            return state, digest
    return "", ""


def machine_spec(request: MachineRequest, datastore: str, size: int, profile: str) -> Any:
    """The machine, with one disk of *size* bytes, on *datastore*, under the policy *profile*.

    An empty disk is whole at once; one that is uploaded is half until then.
    """
    device = vim.vm.device
    backing = device.VirtualDisk.FlatVer2BackingInfo(fileName="", diskMode="persistent")
    if request.thin is not None:
        backing.thinProvisioned = request.thin
        backing.eagerlyScrub = not request.thin
    disk = device.VirtualDisk(
        key=-2,
        controllerKey=-1,
        unitNumber=0,
        backing=backing,
        capacityInKB=size // 1024,
        capacityInBytes=size,
    )
    controller = ADAPTERS[request.adapter](
        key=-1, busNumber=0, sharedBus=device.VirtualSCSIController.Sharing.noSharing
    )
    policy = [vim.vm.DefinedProfileSpec(profileId=profile)] if profile else []
    return vim.vm.ConfigSpec(
        name=request.name,
        guestId=request.guest_os,
        numCPUs=request.cpus,
        memoryMB=request.memory,
        files=vim.vm.FileInfo(vmPathName=f"[{datastore}]"),
        vmProfile=policy,
        extraConfig=[request.mark(HALF if request.image else WHOLE)],
        deviceChange=[
            device.VirtualDeviceSpec(operation="add", device=controller),
            device.VirtualDeviceSpec(
                operation="add", fileOperation="create", device=disk, profile=policy
            ),
        ],
    )
