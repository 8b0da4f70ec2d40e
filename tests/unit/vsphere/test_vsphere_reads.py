"""Bulk reads page by page (the stand-in has but one page), and tasks followed by updates."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from lab.vcenter import VCenter
from lab.vcenter.rig import MIB, Operator, vsphere
from moorline.errors import Busy, Failed, MoorlineError, Refused, Unavailable, Uncertain
from moorline.hypervisors.vsphere.client import failures, tasks
from moorline.hypervisors.vsphere.client.properties import read
from moorline.hypervisors.vsphere.hypervisor import VSphere
from moorline.hypervisors.vsphere.provision.machine_request import MachineRequest
from moorline.hypervisors.vsphere.provision.provisioner import Provisioner
from moorline.model import DiskOptions, DiskState, GuestId, VolumeId

V1 = VolumeId("v1")
PLAIN = DiskOptions()


# --- pages -----------------------------------------------------------------------


class Pages:
    """A property collector that gives one object a page, and loses its session once."""

    def __init__(self, names: list[str], *, lose_at: int = -1) -> None:
        self.names = names
        self.lose_at = lose_at
        self.calls = 0

    def RetrievePropertiesEx(self, specs: Any, options: Any) -> Any:
        assert options.maxObjects > 0
        return self._page(0)

    def ContinueRetrievePropertiesEx(self, token: str) -> Any:
        return self._page(int(token))

    def _page(self, number: int) -> Any:
        self.calls += 1
        if number == self.lose_at:
            self.lose_at = -1
            raise vim.fault.NotAuthenticated()
        last = number == len(self.names) - 1
        value = SimpleNamespace(name="name", val=self.names[number])
        return SimpleNamespace(
            objects=[SimpleNamespace(obj=number, propSet=[value], missingSet=[])],
            token=None if last else str(number + 1),
        )


class OneSession:
    """As much of a session as a read needs; logged in again at once."""

    def __init__(self, pages: Any) -> None:
        self.content = SimpleNamespace(propertyCollector=pages)

    def ask(self, what: str, question: Any) -> Any:
        try:
            return question()
        except vim.fault.NotAuthenticated:
            return question()


def names(session: Any) -> list[str]:
    some = [vim.VirtualMachine("vm-1")]
    return [v["name"] for _, v in read(session, "x", some, vim.VirtualMachine, ("name",))]


def test_all_pages_are_read() -> None:
    pages = Pages(["a", "b", "c"])
    assert names(OneSession(pages)) == ["a", "b", "c"]
    assert pages.calls == 3


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_session_lost_between_pages_begins_anew(at: int) -> None:
    assert names(OneSession(Pages(["a", "b", "c"], lose_at=at))) == ["a", "b", "c"]


def test_what_may_not_be_read_is_not_taken_for_absent() -> None:
    denied = SimpleNamespace(path="name", fault=vim.fault.NoPermission(msg="no"))
    page = SimpleNamespace(
        objects=[SimpleNamespace(obj=1, propSet=[], missingSet=[denied])], token=None
    )
    pages = SimpleNamespace(RetrievePropertiesEx=lambda *_: page)
    with pytest.raises(Uncertain, match="name cannot be read"):
        names(OneSession(pages))


def test_nothing_is_asked_about_nothing() -> None:
    assert read(OneSession(None), "x", [], vim.VirtualMachine, ("name",)) == []  # type: ignore[arg-type]


# --- tasks -----------------------------------------------------------------------


def test_a_slow_task_is_followed_and_tells_how_far_it_is(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    vm.attach(web, V1, operator.disk(), PLAIN)
    lab.fault("ReconfigVM_Task", TaskMs=700)
    told: list[int] = []
    start = time.monotonic()
    vm.extend(web, V1, 16 << 20, progress=told.append)
    assert time.monotonic() - start > 0.6
    assert 50 in told
    assert lab.calls()["WaitForUpdatesEx"] < 6, "it was polled"


def test_a_task_goes_on_when_the_session_is_lost(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk()
    lab.fault("ReconfigVM_Task", TaskMs=1200)
    lab.fault("WaitForUpdatesEx", Fault="NotAuthenticated")
    vm.attach(web, V1, source, PLAIN)
    assert vm.disks(web)[V1].state is DiskState.WHOLE
    assert lab.calls()["ReconfigVM_Task"] == 1


@pytest.mark.parametrize("cut", [{"Status": 503}, {"Drop": True}, {"DropAfter": True}], ids=str)
def test_a_task_goes_on_when_its_follower_is_cut_off(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId, cut: dict[str, Any]
) -> None:
    source = operator.disk()
    lab.fault("ReconfigVM_Task", TaskMs=1200)
    lab.fault("WaitForUpdatesEx", **cut)
    vm.attach(web, V1, source, PLAIN)
    assert vm.disks(web)[V1].state is DiskState.WHOLE
    assert lab.calls()["ReconfigVM_Task"] == 1


def test_a_move_has_more_time_than_other_tasks(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    vm.attach(web, V1, operator.disk(), PLAIN)
    hasty = vsphere(lab, task_deadline=0.2)
    for call in ("ReconfigVM_Task", "RelocateVM_Task"):
        lab.fault(call, TaskMs=1500)
    with pytest.raises(Uncertain, match="has not ended"):
        hasty.extend(web, V1, 16 << 20)
    assert hasty.relocate(web, V1, "nfs1").datastore == "nfs1"
    hasty.close()


def test_a_task_that_does_not_end_is_uncertain(
    lab: VCenter, operator: Operator, web: GuestId
) -> None:
    vm = vsphere(lab, task_deadline=1.0)
    source = operator.disk()
    lab.fault("ReconfigVM_Task", TaskMs=4000)
    with pytest.raises(Uncertain, match="has not ended"):
        vm.attach(web, V1, source, PLAIN)
    assert V1 in vm.disks(web)
    vm.detach(web, V1)
    vm.close()


@pytest.mark.parametrize("fault", ["InvalidArgument", "NoPermission"])
def test_a_task_that_cannot_be_asked_about_is_uncertain(
    lab: VCenter, vm: VSphere, web: GuestId, fault: str
) -> None:
    ref = vm._inventory.machine(web).ref
    lab.fault("RetrievePropertiesEx", Fault=fault)
    with pytest.raises(Uncertain):
        tasks.run(vm._session, "x", lambda: ref.ReconfigVM_Task(vim.vm.ConfigSpec()), deadline=9)


def test_no_collector_is_left_behind(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    lab.fault("ReconfigVM_Task", TaskMs=300)
    vm.attach(web, V1, operator.disk(), PLAIN)
    calls = lab.calls()
    assert calls["CreatePropertyCollector"] == calls["DestroyPropertyCollector"] == 1


@pytest.mark.parametrize(
    ("fault", "family"),
    [
        ("InvalidArgument", Refused),
        ("NotSupported", Refused),
        ("ResourceInUse", Busy),
        ("FileLocked", Busy),
        ("InvalidState", Failed),
        ("NoDiskSpace", Failed),
        ("HostCommunication", Uncertain),
        ("SystemError", Uncertain),
        ("GenericVmConfigFault", Uncertain),
    ],
)
@pytest.mark.parametrize("how", ["Fault", "TaskFault"])
def test_faults_by_family_in_vcenters_own_words(
    lab: VCenter, vm: VSphere, web: GuestId, fault: str, family: type, how: str
) -> None:
    session = vm._session
    ref = vm._inventory.machine(web).ref
    lab.fault("ReconfigVM_Task", **{how: fault})
    with pytest.raises(family, match="injected") as told:
        tasks.run(
            session, "it is not done", lambda: ref.ReconfigVM_Task(vim.vm.ConfigSpec()), deadline=9
        )
    assert type(told.value) is family
    assert told.value.message.startswith("it is not done: vCenter says: ")


@pytest.mark.parametrize("fault", ["HostCommunication", "SystemError", "InvalidArgument"])
def test_a_question_that_fails_changed_nothing(
    lab: VCenter, vm: VSphere, web: GuestId, fault: str
) -> None:
    lab.fault("RetrievePropertiesEx", Fault=fault)
    with pytest.raises(Unavailable, match="injected"):
        vm.disks(web)


def test_an_answer_that_does_not_fit_its_type_is_uncertain(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    source = operator.disk()
    lab.fault("ReconfigVM_Task", TaskFault="InvalidPowerState")  # without its mandatory states
    with pytest.raises(Uncertain, match="cannot be understood"):
        vm.attach(web, V1, source, PLAIN)


def test_every_known_fault_is_a_fault() -> None:
    for _, classes in failures._FAMILIES:
        assert all(issubclass(each, vmodl.MethodFault) for each in classes)


@pytest.mark.parametrize(
    ("fault", "more"),
    [("InvalidArgument", "; invalidProperty capacity"), ("SystemError", "; reason injected")],
)
def test_a_fault_tells_what_it_is_about(
    lab: VCenter, vm: VSphere, web: GuestId, fault: str, more: str
) -> None:
    """VCenter's text alone is "A specified parameter was not correct"."""
    ref = vm._inventory.machine(web).ref
    lab.fault("ReconfigVM_Task", Fault=fault)
    with pytest.raises(MoorlineError) as told:
        tasks.run(vm._session, "x", lambda: ref.ReconfigVM_Task(vim.vm.ConfigSpec()), deadline=9)
    assert told.value.message == f"x: vCenter says: injected {fault}{more}"


# --- the view of all machines ----------------------------------------------------


def names_of(vm: VSphere) -> set[str]:
    return {guest.name for guest in vm.survey()}


def test_all_machines_are_looked_at_through_one_view(
    lab: VCenter, operator: Operator, vm: VSphere, web: GuestId
) -> None:
    for _ in range(2):
        source = operator.disk("nfs1")
        lab.heal()
        vm.attach(web, V1, source, PLAIN)
        vm.detach(web, V1)
    assert lab.calls() == {
        "RetrievePropertiesEx": 4,
        "QueryVirtualDiskUuid": 1,
        "ReconfigVM_Task": 2,
    }


def test_the_view_shows_what_came_and_what_went(vm: VSphere, makes: Provisioner) -> None:
    before = names_of(vm)
    makes.hold(MachineRequest("box", empty=MIB, memory=64, cluster=VCenter.cluster))
    assert names_of(vm) == {*before, "box"}
    makes.remove("box")
    assert names_of(vm) == before


def test_the_view_is_made_anew_with_the_session(
    lab: VCenter, operator: Operator, vm: VSphere
) -> None:
    before = names_of(vm)
    for lose in (
        operator.log_everybody_out,
        lambda: lab.fault("RetrievePropertiesEx", Fault="ManagedObjectNotFound"),
    ):
        lab.heal()
        lose()
        assert names_of(vm) == before
        assert lab.calls()["CreateContainerView"] > 0
        lab.heal()
        assert names_of(vm) == before
        assert "CreateContainerView" not in lab.calls()
