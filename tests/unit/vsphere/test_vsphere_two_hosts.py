"""One host removes a machine with its disk while another host gives that disk to another machine.

They have nothing in common but the vCenter: what locks files on one host is not asked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from boxes import order, saved
from pyVmomi import vim

from lab.command import Moorline
from lab.demo import until
from lab.vcenter import VCenter
from lab.vcenter.images import stream
from lab.vcenter.prompt import moorline as prompt
from lab.vcenter.rig import MIB, Makes, Operator, logon, vsphere
from moorline.errors import Conflict, Denied, MoorlineError, Refused, Uncertain
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.hypervisor import VSphere, split
from moorline.hypervisors.vsphere.provision.machine_state import Stage
from moorline.model import DatastoreDisk, DiskOptions, GuestId, VolumeId

V, PLAIN = VolumeId("v1"), DiskOptions()
WEB, DB = VCenter.guests
EMPTY = ("launch", "made", "--empty", "8M", "--datastore-regex", "vvol.*", "--no-start")
PLUG = "independent_persistent"
"""Is in the call that plugs a disk, and in no other."""


@pytest.fixture
def moorline(lab: VCenter, tmp_path: Path) -> Iterator[Moorline]:
    yield prompt(lab, tmp_path)
    lab.heal()


@pytest.fixture
def box(makes: Makes) -> DatastoreDisk:
    """The disk of a machine that only holds it."""
    (path,) = makes.make(order(None, empty=8 * MIB, datastores="vvol.*")).disks
    return split(path)


@pytest.fixture
def beside() -> Iterator[Callable[..., Future[Any]]]:
    """Does something at the same time."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


@pytest.fixture(autouse=True)
def stopped(operator: Operator) -> Iterator[None]:
    """vCenter's own locks heed running machines only."""
    for name in (WEB, DB):
        operator.power(name, False)
    yield
    for name in (WEB, DB):
        operator.power(name, True)


def has(operator: Operator, name: str, source: DatastoreDisk) -> bool:
    found = operator.machines[name].config.hardware.device
    disks = (d for d in found if isinstance(d, vim.vm.device.VirtualDisk))
    return any(disk.backing.fileName == source.path for disk in disks)


def outcome(deed: Future[Any]) -> MoorlineError | None:
    error = deed.exception(120)
    assert error is None or isinstance(error, MoorlineError), error
    return error


def test_the_disk_of_a_removal_that_was_killed_is_given_to_nobody(
    moorline: Moorline, lab: VCenter, vm: VSphere, web: GuestId, operator: Operator
) -> None:
    (path,) = moorline.json(*EMPTY)["disks"]
    lab.fault("Destroy_Task", DelayMs=6_000)
    removal = moorline.start("remove", "made")
    until(lambda: lab.calls().get("Destroy_Task"), "for the removal to be under way")
    removal.kill()
    removal.communicate()
    with pytest.raises(Refused, match="made, which is half made or half removed"):
        vm.attach(web, V, split(path), PLAIN)
    assert path in lab.disks(), "else this test has shown nothing"
    until(lambda: path not in lab.disks(), "for the disk to be gone")
    assert not has(operator, WEB, split(path))


@pytest.mark.parametrize("call", ["SearchDatastore_Task", "ReconfigVM_Task", "Destroy_Task"])
def test_a_disk_is_removed_or_given_and_never_both(
    lab: VCenter,
    makes: Makes,
    vm: VSphere,
    web: GuestId,
    operator: Operator,
    box: DatastoreDisk,
    beside: Callable[..., Future[Any]],
    call: str,
) -> None:
    """Whoever comes first is the only one, wherever the other one stands."""
    lab.fault(call, DelayMs=3_000)
    removal = beside(makes.remove, "box")
    until(lambda: lab.calls().get(call), "for the removal to be under way")
    gift = beside(vm.attach, web, V, box, PLAIN)
    removed, given = outcome(removal) is None, outcome(gift) is None
    assert removed != given
    assert (box.path in lab.disks(), has(operator, WEB, box)) == (given, given)


def test_a_disk_that_is_on_its_way_to_another_is_not_removed(
    lab: VCenter,
    makes: Makes,
    vm: VSphere,
    web: GuestId,
    operator: Operator,
    box: DatastoreDisk,
    beside: Any,
) -> None:
    """Its host was killed, or stands still: what it asked for is turned down, or sees the light
    before the removal does."""
    lab.fault("ReconfigVM_Task", Match=PLUG, DelayMs=4_000)
    gift = beside(vm.attach, web, V, box, PLAIN)
    until(lambda: lab.calls().get("ReconfigVM_Task", 0) > 1, "for the plug to be under way")
    makes.remove("box")
    assert isinstance(outcome(gift), Conflict)
    assert (box.path in lab.disks(), has(operator, WEB, box)) == (False, False)


def test_a_disk_that_was_given_is_not_removed(
    lab: VCenter, makes: Makes, vm: VSphere, web: GuestId, box: DatastoreDisk
) -> None:
    vm.attach(web, V, box, PLAIN)
    with pytest.raises(Refused, match=f"is a disk of {WEB}, too"):
        makes.remove("box")
    vm.detach(web, V)
    makes.remove("box")
    assert box.path not in lab.disks()


def test_a_disk_goes_to_one_of_two_machines_whose_hosts_ask_at_once(
    lab: VCenter,
    makes: Makes,
    vm: VSphere,
    web: GuestId,
    operator: Operator,
    db: GuestId,
    box: DatastoreDisk,
    beside: Callable[..., Future[Any]],
) -> None:
    lab.fault("ReconfigVM_Task", Match=PLUG, DelayMs=4_000)
    first = beside(vm.attach, web, V, box, PLAIN)
    until(lambda: lab.calls().get("ReconfigVM_Task", 0) > 1, "for the plug to be under way")
    elsewhere = vsphere(lab)
    elsewhere.attach(db, V, box, PLAIN)
    elsewhere.close()
    assert isinstance(outcome(first), Conflict)
    assert not has(operator, WEB, box)
    assert has(operator, DB, box)


def test_to_whom_it_was_given_before_may_be_gone_or_be_unreadable(
    lab: VCenter, makes: Makes, vm: VSphere, web: GuestId, db: GuestId, box: DatastoreDisk
) -> None:
    vm.attach(web, V, box, PLAIN)
    vm.detach(web, V)
    lab.machine(WEB, "inaccessible")
    try:
        vm.attach(db, V, box, PLAIN)
        vm.detach(db, V)
    finally:
        lab.machine(WEB, "readable")
    makes.make(order(None, name="box2", empty=8 * MIB, datastores="vmfs1"))
    vm.attach(GuestId(makes.look("box2").id), V, box, PLAIN)
    vm.detach(GuestId(makes.look("box2").id), V)
    makes.remove("box2")
    makes.remove("box")
    assert box.path not in lab.disks()


@pytest.mark.parametrize("call", ["PowerOffVM_Task", "Destroy_Task"])
def test_a_machine_that_could_not_be_removed_is_as_it_was(
    lab: VCenter, makes: Makes, vm: VSphere, web: GuestId, box: DatastoreDisk, call: str
) -> None:
    if call == "PowerOffVM_Task":
        makes.start("box")
    lab.fault(call, Fault="NoPermission")
    with pytest.raises(Denied):
        makes.remove("box")
    if call == "PowerOffVM_Task":
        assert makes.look("box").stage is Stage.ON
        makes.stop("box")
    assert makes.look("box").stage is Stage.OFF
    vm.attach(web, V, box, PLAIN)
    vm.detach(web, V)
    makes.remove("box")


def test_what_somebody_else_goes_on_removing_is_not_given_free(
    lab: VCenter, makes: Makes, vm: VSphere, web: GuestId, box: DatastoreDisk, beside: Any
) -> None:
    """One is turned away after another one has begun, too."""
    lab.fault("Destroy_Task", Fault="NoPermission", DelayMs=4_000)
    first = beside(makes.remove, "box")
    until(lambda: lab.calls().get("Destroy_Task"), "for the removal to be under way")
    lab.fault("Destroy_Task", DelayMs=8_000)
    session = Session(logon(lab), deadline=20)
    second = beside(Makes(session, task_deadline=20).remove, "box")
    until(lambda: lab.calls().get("Destroy_Task", 0) > 1, "for the other one to be under way")
    assert isinstance(outcome(first), Denied)
    assert box.path in lab.disks()
    with pytest.raises(Refused, match="half removed"):
        vm.attach(web, V, box, PLAIN)
    assert outcome(second) is None
    session.close()


def test_a_volume_does_not_come_to_a_machine_that_goes(
    lab: VCenter, makes: Makes, vm: VSphere, operator: Operator, box: DatastoreDisk, beside: Any
) -> None:
    """It would be destroyed with it."""
    id, source = GuestId(makes.look("box").id), operator.disk()
    lab.fault("Destroy_Task", DelayMs=3_000)
    removal = beside(makes.remove, "box")
    until(lambda: lab.calls().get("Destroy_Task"), "for the removal to be under way")
    with pytest.raises(Refused, match="half removed"):
        vm.attach(id, V, source, PLAIN)
    with pytest.raises(Refused, match="half removed"):
        vm.check(id, source, PLAIN)
    assert outcome(removal) is None
    assert source.path in lab.disks()


def test_a_half_removed_machine_is_removed_or_made_anew_and_never_started(
    moorline: Moorline, lab: VCenter
) -> None:
    (path,) = moorline.json(*EMPTY)["disks"]
    lab.fault("Destroy_Task", Drop=True)
    moorline("remove", "made", code=6)
    told = moorline("start", "made", code=3)
    assert "half removed" in told.stderr
    (anew,) = moorline.json(*EMPTY)["disks"]
    assert (path in lab.disks(), anew in lab.disks()) == (path == anew, True)
    moorline("remove", "made")


def test_what_somebody_else_removes_does_not_become_whole(
    lab: VCenter, makes: Makes, tmp_path: Path, beside: Callable[..., Future[Any]]
) -> None:
    """Else its disk could be given away before it is destroyed."""
    image = saved(tmp_path, stream(8 * MIB, {0: b"data" * 1000}))
    lab.fault("HttpNfcLeaseComplete", ReplyMs=6_000)
    launch = beside(makes.make, order(image, datastores="vmfs1"))
    until(lambda: lab.calls().get("HttpNfcLeaseComplete"), "for the disk to be brought in")
    lab.fault("Destroy_Task", DelayMs=9_000)
    session = Session(logon(lab), deadline=20)
    other = Makes(session, task_deadline=20)
    removal = beside(other.remove, "box")
    assert isinstance(outcome(launch), Uncertain)
    assert other.look("box").stage in (Stage.HALF, Stage.ABSENT)
    assert outcome(removal) is None
    session.close()


def test_other_disks_in_the_folder_of_a_half_removed_machine_are_kept(
    lab: VCenter, makes: Makes, operator: Operator, box: DatastoreDisk
) -> None:
    lab.fault("Destroy_Task", Drop=True)
    with pytest.raises(Uncertain):
        makes.remove("box")
    beside = replace(box, file=f"{box.file.rpartition('/')[0]}/other.vmdk")
    spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
        diskType="thin", adapterType="lsiLogic", capacityKb=8 * 1024
    )
    disks, center = operator.content.virtualDiskManager, operator.datacenter
    operator.done(disks.CreateVirtualDisk_Task(beside.path, center, spec))
    with pytest.raises(Refused, match="other disks in the folder"):
        makes.remove("box")
    operator.done(disks.DeleteVirtualDisk_Task(beside.path, center))
    makes.remove("box")
