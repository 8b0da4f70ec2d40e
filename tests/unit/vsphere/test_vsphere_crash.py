"""Whatever goes wrong in an attach or a detach: it is told truly, and the next look mends it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from lab.vcenter import VCenter
from lab.vcenter.rig import MIB, Operator, vsphere
from moorline.errors import Failed, MoorlineError, Refused, Uncertain
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.hypervisors.vsphere.virtual_machine import MARK
from moorline.model import DatastoreDisk, DiskOptions, DiskState, GuestId, VolumeId

V1 = VolumeId("v1")
PLAIN = DiskOptions()
WEB = VCenter.guests[0]


def marks(operator: Operator, name: str = WEB) -> list[tuple[str, str]]:
    return [(key, value) for key, value in operator.options(name) if key.startswith(MARK)]


WAYS: list[dict[str, Any]] = [
    {"Drop": True},
    {"DropAfter": True},
    {"Status": 503},
    {"Fault": "InvalidArgument"},
    {"Fault": "HostCommunication"},
    {"Fault": "NotAuthenticated"},
    {"TaskFault": "FileLocked"},
    {"TaskFault": "InvalidArgument"},
    {"TaskFault": "NoDiskSpace"},
    {"TaskFault": "SystemError"},
    {"TaskMs": 150},
    {"TaskMs": 150, "TaskFault": "GenericVmConfigFault"},
    {"ReplyMs": 150},
]
METHODS = ["ReconfigVM_Task", "RetrievePropertiesEx", "QueryVirtualDiskUuid", "*"]


def bring(vm: VSphere, guest: GuestId, source: DatastoreDisk, wanted: bool) -> None:
    """What the reconciler does: look, take the step, look again."""
    for _ in range(10):
        there = V1 in vm.disks(guest)
        if there == wanted:
            return
        if wanted:
            vm.attach(guest, V1, source, PLAIN)
        else:
            vm.detach(guest, V1)
    raise AssertionError("it does not settle")


@pytest.mark.parametrize("method", METHODS)
def test_every_call_of_a_history_goes_wrong_in_every_way(
    lab: VCenter,
    operator: Operator,
    vm: VSphere,
    web: GuestId,
    method: str,
    record_property: Any,
) -> None:
    source, points = operator.disk(), 0
    bring(vm, web, source, False)
    for way in WAYS:
        for skip in range(8):
            for wanted in (True, False):
                lab.heal()
                lab.fault(method, Skip=skip, **way)
                for _ in range(3):
                    with suppress(MoorlineError):
                        bring(vm, web, source, wanted)
                lab.heal()
                bring(vm, web, source, wanted)
                points += 1
                disks = [p for g in vm.survey() for p in g.paths if p == source.path]
                assert disks == [source.path] * wanted, (way, skip)
                assert len(marks(operator)) == wanted, (way, skip)
    record_property("crash_points", points)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("wanted", [True, False], ids=["attach", "detach"])
def test_what_is_said_not_to_have_happened_has_not(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId, wanted: bool, way: dict[str, Any]
) -> None:
    source = operator.disk()
    for skip in range(8):
        bring(vm, web, source, not wanted)
        lab.fault(Skip=skip, **way)
        told: MoorlineError | None = None
        try:
            if wanted:
                vm.attach(web, V1, source, PLAIN)
            else:
                vm.detach(web, V1)
        except MoorlineError as error:
            told = error
        lab.heal()
        done = (V1 in vm.disks(web)) is wanted
        if told is None:
            assert done, skip
        elif isinstance(told, Refused | Failed):
            assert not done, (skip, told)


def test_a_task_that_fails_after_its_effect_is_success(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk()
    lab.fault("ReconfigVM_Task", TaskFault="FileLocked")
    vm.attach(web, V1, source, PLAIN)
    assert vm.disks(web)[V1].state is DiskState.WHOLE
    lab.fault("ReconfigVM_Task", TaskFault="InvalidArgument")
    vm.detach(web, V1)
    assert vm.disks(web) == {}


GROWN = 16 * MIB


@pytest.mark.parametrize("call", ["ReconfigVM_Task", "RelocateVM_Task", "*"])
def test_a_volume_that_grows_or_moves_ends_right_whatever_goes_wrong(
    lab: VCenter,
    operator: Operator,
    vm: VSphere,
    web: GuestId,
    call: str,
    record_property: Any,
) -> None:
    points = 0
    of_tasks = {"TaskMs", "TaskFault"}
    for way in (way for way in WAYS if call != "*" or not of_tasks & {*way}):
        for skip in range(14 if call == "*" else 1):
            source = operator.disk()
            vm.attach(web, V1, source, PLAIN)
            for deed, is_done in (
                (lambda: vm.extend(web, V1, GROWN), lambda: _size(lab, vm, web) == GROWN),
                (lambda: vm.relocate(web, V1, "nfs1"), lambda: _path(vm, web).startswith("[nfs1]")),
            ):
                lab.heal()
                lab.fault(call, Skip=skip, **way)
                told: MoorlineError | None = None
                try:
                    deed()
                except MoorlineError as error:
                    told = error
                lab.heal()
                if told is None or isinstance(told, Refused | Failed):
                    assert is_done() is (told is None), (way, skip, told)
                deed()
                assert is_done(), (way, skip)
                points += 1
            vm.detach(web, V1)
            assert source.path not in lab.disks()
    record_property("crash_points", points)


def _path(vm: VSphere, guest: GuestId) -> str:
    return vm.disks(guest)[V1].source


def _size(lab: VCenter, vm: VSphere, guest: GuestId) -> int:
    return lab.disks()[_path(vm, guest)]


def test_an_attach_that_is_still_under_way_is_not_made_twice(
    lab: VCenter, operator: Operator, web: GuestId
) -> None:
    impatient = vsphere(lab, task_deadline=0.0)
    source = operator.disk()
    lab.fault("ReconfigVM_Task", TaskMs=500)
    with pytest.raises(Uncertain):
        impatient.attach(web, V1, source, PLAIN)
    impatient.attach(web, V1, source, PLAIN)
    assert lab.calls()["ReconfigVM_Task"] == 1
    time.sleep(0.6)
    impatient.detach(web, V1)
    impatient.close()


def test_two_drivers_on_one_machine_lose_nothing(
    lab: VCenter, operator: Operator, web: GuestId
) -> None:
    sources = {VolumeId(f"race-{n}"): operator.disk(mib=1) for n in range(8)}
    drivers = [vsphere(lab) for _ in range(2)]
    failed: list[BaseException] = []

    def work(driver: VSphere, mine: list[VolumeId]) -> None:
        try:
            for volume in mine:
                while volume not in driver.disks(web):
                    try:
                        driver.attach(web, volume, sources[volume], PLAIN)
                    except (Failed, Uncertain):
                        continue
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    volumes = list(sources)
    threads = [
        threading.Thread(target=work, args=(driver, volumes[n::2]))
        for n, driver in enumerate(drivers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    disks = drivers[0].disks(web)
    assert {v: d.source for v, d in disks.items()} == {v: s.path for v, s in sources.items()}
    assert len({d.device for d in disks.values()}) == 8
    for volume in volumes:
        drivers[0].detach(web, volume)
    for driver in drivers:
        driver.close()
