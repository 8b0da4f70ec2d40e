"""vSphere, beside the raw calls in the same run.

``python -m bench.vsphere [--rounds N]``. Choosing a datastore among 50 with 1,000
machines present: ours beside one raw bulk read of the same properties. Attach and
detach: ours beside the least that a script can do: read the devices, reconfigure, look
at the task once (the stand-in's are done by then).

The stand-in answers within milliseconds and without a network; a real vCenter takes
longer, which makes the ratios smaller.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from pyVmomi import vim, vmodl

from bench.measure import milliseconds, paired, slower
from bench.page import HEAD
from lab.vcenter import VCenter
from lab.vcenter.rig import Operator, vsphere
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest
from moorline.hypervisors.vsphere.provision.provisioner import Provisioner
from moorline.model import DatastoreDisk, DiskOptions, VolumeId

GIB = 1 << 30
TYPES = ("VVOL", "VMFS", "NFS", "NFS41", "vsan")
MAX_CHOICE_RATIO = 1.5
MAX_PAIR_RATIO = 1.2


def many(count: int) -> list[dict[str, Any]]:
    return [
        {
            "Name": f"ds{n}",
            "Type": TYPES[n % len(TYPES)],
            "Capacity": 1000 * GIB,
            "Free": (100 + n) * GIB,
        }
        for n in range(count)
    ]


def choice(rounds: int) -> tuple[float, float]:
    """Medians in ms: one raw bulk read, and a choice."""
    with VCenter(many(49), hosts=50, vms=1000) as lab:
        operator = Operator(lab)
        collector = vmodl.query.PropertyCollector
        cluster = operator.datacenter.hostFolder.childEntity[0]
        source = collector.ObjectSpec(
            obj=cluster,
            skip=True,
            selectSet=[collector.TraversalSpec(type=vim.ComputeResource, path="datastore")],
        )
        wanted = collector.FilterSpec(
            objectSet=[source],
            propSet=[collector.PropertySpec(type=vim.Datastore, pathSet=["name", "summary"])],
        )
        reader = operator.content.propertyCollector

        def raw() -> None:
            page = reader.RetrievePropertiesEx([wanted], collector.RetrieveOptions())
            assert len(page.objects) == 50  # the model has one of its own

        maker = Provisioner(operator.session)
        order = MachineRequest(name="box", empty=20 * GIB, cluster=lab.cluster)

        def ours() -> None:
            assert maker.choose(order).best().datastore.name == "ds48"

        found = paired(rounds, lambda: milliseconds(raw), lambda: milliseconds(ours))
        operator.close()
        return found


class Script:
    """What a plain script does."""

    def __init__(self, operator: Operator, name: str) -> None:
        self.vm = operator.machines[name]

    def attach(self, source: DatastoreDisk) -> None:
        device = vim.vm.device
        devices = self.vm.config.hardware.device
        at = next(d for d in devices if isinstance(d, device.VirtualSCSIController))
        taken = {d.unitNumber for d in devices if d.controllerKey == at.key}
        backing = device.VirtualDisk.FlatVer2BackingInfo(
            fileName=source.path, diskMode="independent_persistent"
        )
        disk = device.VirtualDisk(
            key=-1,
            controllerKey=at.key,
            unitNumber=next(n for n in range(16) if n != 7 and n not in taken),
            backing=backing,
            capacityInKB=0,
        )
        self._reconfigure(device.VirtualDeviceSpec(operation="add", device=disk))

    def detach(self, source: DatastoreDisk) -> None:
        device = vim.vm.device
        devices = self.vm.config.hardware.device
        disks = (d for d in devices if isinstance(d, device.VirtualDisk))
        disk: Any = next(d for d in disks if d.backing.fileName == source.path)
        self._reconfigure(device.VirtualDeviceSpec(operation="remove", device=disk))

    def _reconfigure(self, change: Any) -> None:
        task = self.vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change]))
        assert task.info.state == vim.TaskInfo.State.success


def pairs(rounds: int) -> tuple[float, float]:
    """Medians in ms of an attach and a detach: a script's, and ours."""
    with VCenter() as lab:
        operator = Operator(lab)
        vm: VSphere = vsphere(lab)
        name = lab.guests[0]
        guest, volume = vm.find(name).id, VolumeId("bench")
        script, source = Script(operator, name), operator.disk()

        def pair(attach: Callable[[], None], detach: Callable[[], None]) -> float:
            return milliseconds(attach) + milliseconds(detach)

        found = paired(
            rounds,
            lambda: pair(lambda: script.attach(source), lambda: script.detach(source)),
            lambda: pair(
                lambda: vm.attach(guest, volume, source, DiskOptions()),
                lambda: vm.detach(guest, volume),
            ),
        )
        vm.close()
        operator.close()
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    results = [
        slower("attach and detach a VMDK", *pairs(rounds), MAX_PAIR_RATIO),
        slower("choose among 50 datastores, 1,000 machines", *choice(rounds), MAX_CHOICE_RATIO),
    ]
    print("\n".join([HEAD, *(result.row() for result in results)]))
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
