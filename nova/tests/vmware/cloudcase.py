"""A test case with a driver, and what tests do with it."""

from __future__ import annotations

import unittest
import uuid
from typing import Any
from unittest import mock

try:
    import cloud
    from cloud import CONTEXT, LAB, STORES
except ImportError as e:
    raise unittest.SkipTest(f"Nova, its VMware driver or pyVmomi is not installed: {e}") from e
except Exception as e:
    if type(e).__name__ != "Missing":
        raise
    raise unittest.SkipTest(str(e)) from e

from nova import objects
from nova.virt.vmwareapi import images
from pyVmomi import vim

from lab.vcenter.images import ova, stream
from lab.vcenter.rig import Operator

MIB, GIB = 1 << 20, 1 << 30


class Cloud(unittest.TestCase):
    """A driver of the test, and what a test does with it."""

    regex = "."
    kind: Any = cloud.VMwareVCDriver

    @classmethod
    def setUpClass(cls) -> None:
        # The API's description takes the client seconds to read.
        cls.driver = cloud.start(cls.regex, cls.kind)
        cls.addClassCleanup(cls.driver.cleanup_host, "compute1")

    def setUp(self) -> None:
        LAB.heal()
        self.glance = cloud.Glance()
        self.enterContext(mock.patch.object(images, "IMAGE_API", self.glance))
        # There is no database.
        self.enterContext(mock.patch.object(objects.Instance, "save"))
        self.operator = Operator(LAB)
        self.addCleanup(self.operator.close)

    def image(self, mib: float = 8, *, as_ova: bool = False, **properties: Any) -> Any:
        id, size = str(uuid.uuid4()), int(mib * MIB)
        disk = stream(size, {0: b"grain"})
        self.glance.data[id] = ova(disk, capacity=size) if as_ova else disk
        properties = {"hw_disk_type": "streamOptimized", "ova": as_ova, **properties}
        return cloud.image_meta(id, len(self.glance.data[id]), **properties)

    def spawn(self, meta: Any, root_gb: int = 1, info: Any = None, **more: Any) -> Any:
        made = cloud.instance(cloud.flavor(root_gb, **more), meta)
        meta = meta or objects.ImageMeta.from_dict({})
        self.driver.spawn(CONTEXT, made, meta, [], None, {}, [], info)
        return made

    def machine(self, instance: Any) -> Any:
        view = self.operator.content.viewManager.CreateContainerView(
            self.operator.datacenter.vmFolder, [vim.VirtualMachine], True
        )
        return next(vm for vm in view.view if vm.config.instanceUuid == instance.uuid)

    def named(self, beginning: str) -> list[str]:
        """The machines whose names begin so."""
        names = [child.name for child in self.operator.datacenter.vmFolder.childEntity]
        return [name for name in names if name.startswith(beginning)]

    def disks(self, instance: Any) -> list[tuple[str, int]]:
        """Datastore and bytes of each of a machine's disks."""
        found = self.machine(instance).config.hardware.device
        return [
            (each.backing.fileName[1:].partition("]")[0], each.capacityInBytes)
            for each in found
            if type(each).__name__.endswith("VirtualDisk")
        ]

    def volume(self, store: str, mib: float = 8) -> dict[str, Any]:
        """A machine that holds a disk, as Cinder makes one."""
        name = f"volume-{uuid.uuid4()}"
        disk = vim.vm.device.VirtualDisk(
            key=-2,
            controllerKey=-1,
            unitNumber=0,
            capacityInKB=int(mib * 1024),
            backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
                fileName=f"[{store}]", diskMode="persistent", thinProvisioned=True
            ),
        )
        controller = vim.vm.device.VirtualLsiLogicController(
            key=-1, busNumber=0, sharedBus="noSharing"
        )
        add = vim.vm.device.VirtualDeviceSpec
        spec = vim.vm.ConfigSpec(
            name=name,
            numCPUs=1,
            memoryMB=16,
            guestId="otherGuest",
            files=vim.vm.FileInfo(vmPathName=f"[{store}]"),
            deviceChange=[
                add(operation="add", device=controller),
                add(operation="add", fileOperation="create", device=disk),
            ],
        )
        pool = self.operator.datacenter.hostFolder.childEntity[0].resourcePool
        made = self.operator.datacenter.vmFolder.CreateVM_Task(spec, pool)
        return cloud.volume(self.operator.done(made)._moId, name)

    def assert_gone(self, instance: Any) -> None:
        """Nova's destroy swallows errors: what counts is what is there afterwards."""
        self.assertFalse(self.driver.instance_exists(instance))
        for store in STORES.values():
            left = [file for file in LAB.files(store) if instance.uuid in file]
            self.assertEqual(left, [], store)
            self.assertEqual(LAB.disks_of(instance.uuid), [])
