"""How many requests a second a disk lets through, and its shares: plugged, seen and changed."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from lab.vcenter import VCenter
from lab.vcenter.rig import Operator
from moorline.errors import Failed, NotFound, Refused
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.model import DiskOptions, GuestId, VolumeId

V1, V2 = VolumeId("v1"), VolumeId("v2")
WEB = VCenter.guests[0]
PLAIN = DiskOptions()


def allocation(operator: Operator, path: str) -> Any:
    """What vCenter has on record of the disk."""
    machine = operator.machines[WEB]
    disks = [d for d in machine.config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)]
    (found,) = (d for d in disks if d.backing.fileName == path)
    return found.storageIOAllocation


def seen(vm: VSphere, web: GuestId) -> Any:
    return vm.disks(web)[V1].limits


@pytest.mark.parametrize("requests", [None, 0, 500])
def test_a_disk_is_plugged_with_its_limit(
    operator: Operator, vm: VSphere, web: GuestId, requests: int | None
) -> None:
    source, options = operator.disk(), DiskOptions(total_iops_sec=requests)
    vm.check(web, source, options)
    vm.attach(web, V1, source, options)
    has = allocation(operator, source.path)
    assert (has.limit if has else None) in ({500: (500,)}.get(requests or 0, (None, -1)))
    assert seen(vm, web) == {(("total_iops_sec", 500),) if requests else ()}


def test_a_limit_is_changed_and_taken_away(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk()
    vm.attach(web, V1, source, PLAIN)
    for requests in (700, 900, 0):
        vm.limit(web, V1, {"total_iops_sec": requests} if requests else {})
        assert seen(vm, web) == {(("total_iops_sec", requests),) if requests else ()}
        assert allocation(operator, source.path).limit == (requests or -1)
        calls = lab.calls()["ReconfigVM_Task"]
        vm.limit(web, V1, {"total_iops_sec": requests})
        assert lab.calls()["ReconfigVM_Task"] == calls, "as it is already"
    assert lab.disks()[source.path] > 0
    with pytest.raises(NotFound):
        vm.limit(web, V2, {})


def test_there_is_no_other_limit(operator: Operator, vm: VSphere, web: GuestId) -> None:
    source = operator.disk()
    with pytest.raises(Refused, match="no read-bytes-sec"):
        vm.check(web, source, DiskOptions(read_bytes_sec=5))
    vm.attach(web, V1, source, PLAIN)
    with pytest.raises(Refused, match="no write_iops_sec"):
        vm.limit(web, V1, {"write_iops_sec": 5, "total_iops_sec": 0})
    assert seen(vm, web) == {()}


def test_a_change_that_fails_is_made_with_the_next_try(
    lab: VCenter, vm: VSphere, operator: Operator, web: GuestId
) -> None:
    vm.attach(web, V1, operator.disk(), PLAIN)
    lab.fault("ReconfigVM_Task", Fault="FileLocked")
    with pytest.raises(Failed):
        vm.limit(web, V1, {"total_iops_sec": 5})
    assert seen(vm, web) == {()}
    vm.limit(web, V1, {"total_iops_sec": 5})
    assert seen(vm, web) == {(("total_iops_sec", 5),)}


def test_shares_are_chosen_and_given_back(operator: Operator, vm: VSphere, web: GuestId) -> None:
    source, options = operator.disk(), DiskOptions(shares=400, total_iops_sec=5)
    for odd in (199, 4001):
        with pytest.raises(Refused, match="from 200 to 4000"):
            vm.check(web, source, DiskOptions(shares=odd))
    vm.attach(web, V1, source, options)
    assert seen(vm, web) == {(("shares", 400), ("total_iops_sec", 5))}
    has = allocation(operator, source.path)
    assert (has.limit, has.shares.level, has.shares.shares) == (5, "custom", 400)
    vm.limit(web, V1, {"total_iops_sec": 5})
    assert seen(vm, web) == {(("total_iops_sec", 5),)}
    assert allocation(operator, source.path).shares.level == "normal"
    with pytest.raises(Refused, match="from 200 to 4000"):
        vm.limit(web, V1, {"shares": 5})
