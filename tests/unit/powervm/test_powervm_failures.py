"""Servers that fail, answer late or not at all, or do half of what they are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pypowervm import exceptions as pvm
from pypowervm.adapter import Response

from lab.novalink import NovaLink as Lab
from lab.novalink.rig import DB, WEB, look, mapped, powervm
from moorline.errors import (
    Denied,
    Failed,
    MoorlineError,
    Unavailable,
    Uncertain,
)
from moorline.hypervisors.powervm.failures import failure
from moorline.hypervisors.powervm.hypervisor import PowerVM
from moorline.hypervisors.powervm.remembered_slots import MemorySlots
from moorline.model import DiskOptions, DiskState, ImageFile, Sizes, VolumeId

V1, V2 = VolumeId("11111111-0000-4000-8000-000000000001"), VolumeId("v2")
PLAIN = DiskOptions()


@pytest.mark.parametrize("fault", ["error", "reject", "drop"])
def test_what_did_not_happen_can_be_tried_again(
    lab: Lab, vm: PowerVM, disk: ImageFile, fault: str
) -> None:
    lab.faults.set(**{fault: 1})
    with pytest.raises(Failed if fault == "reject" else Uncertain):
        vm.attach(WEB, V1, disk, PLAIN)
    assert mapped(lab) == []
    vm.attach(WEB, V1, disk, PLAIN)
    assert len(mapped(lab)) == 1


@pytest.mark.parametrize("fault", ["error_after", "drop_after"])
def test_what_happened_without_an_answer_is_uncertain_and_then_found(
    lab: Lab, vm: PowerVM, disk: ImageFile, fault: str
) -> None:
    lab.faults.set(**{fault: 1})
    with pytest.raises(Uncertain):
        vm.attach(WEB, V1, disk, PLAIN)
    assert vm.disks(WEB)[V1].state is DiskState.WHOLE
    vm.attach(WEB, V1, disk, PLAIN)
    assert len(mapped(lab)) == 1
    lab.faults.set(**{fault: 1})
    with pytest.raises(Uncertain):
        vm.detach(WEB, V1)
    assert vm.disks(WEB) == {}


def test_a_disk_without_a_target_device_is_partial_and_healed(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    lab.faults.set(no_target=1)
    with pytest.raises(Uncertain, match="target device"):
        vm.attach(WEB, V1, disk, PLAIN)
    assert vm.disks(WEB)[V1].state is DiskState.PARTIAL
    vm.attach(WEB, V1, disk, PLAIN)
    assert vm.disks(WEB)[V1].state is DiskState.WHOLE
    assert len(mapped(lab)) == 1


def test_adapters_without_a_disk_are_not_success(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    lab.faults.set(no_disk=1)
    with pytest.raises(Uncertain, match="has 0 mappings"):
        vm.attach(WEB, V1, disk, PLAIN)
    vm.attach(WEB, V1, disk, PLAIN)
    assert len(lab.system.made()) == 2  # the disk went onto that bus


def test_conflicts_are_retried(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    lab.faults.set(conflict=7)
    vm.attach(WEB, V1, disk, PLAIN)
    lab.faults.set(conflict=7)
    vm.detach(WEB, V1)
    assert [status for method, _, status in lab.trace if method == "POST"].count(412) == 14
    assert mapped(lab) == []


def test_conflicts_without_end_end_at_the_deadline(lab: Lab, disk: ImageFile) -> None:
    vm = powervm(lab, deadline=1.0)
    lab.faults.set(conflict=10_000)
    with pytest.raises(Failed, match="busy for 1 s"):
        vm.attach(WEB, V1, disk, PLAIN)
    assert mapped(lab) == []
    vm.close()


def test_d8_the_mappings_are_read_within_the_change(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    """And only those of one server: each command reads them once, right before it posts."""
    vm.attach(WEB, V1, disk, PLAIN)
    del lab.trace[:]
    vm.detach(WEB, V1)
    calls = [(method, "ViosSCSIMapping" in path) for method, path, _ in lab.trace]
    assert calls[:2] == [("GET", True), ("POST", True)]
    assert sum(mappings for _, mappings in calls) == 2


def test_d8_errors_say_what_is_not_done_and_why(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    lab.faults.set(reject=1)
    with pytest.raises(Failed) as failed:
        vm.attach(WEB, V1, disk, PLAIN)
    assert f"mapping {disk.path} to web01" in str(failed.value)
    assert "the server does not want to" in str(failed.value)
    assert "HTTP 400" in str(failed.value)


def test_who_may_not_is_told_what_to_look_at() -> None:
    forbidden = pvm.HttpError(Response("GET", "/", 403, "Forbidden", {}))
    unreadable = pvm.AuthFileReadError(access_file="/run/session")
    for error, hint in ((forbidden, "may not do that"), (unreadable, "may read")):
        told = failure("it is not done", error, sent=True)
        assert type(told) is Denied
        assert told.message.startswith("it is not done: ")
        assert hint in told.hint


def test_a_change_that_is_not_answered_is_uncertain_at_the_deadline(
    lab: Lab, disk: ImageFile
) -> None:
    vm = powervm(lab, deadline=1.0)
    lab.faults.set(slow_update=3600)
    with pytest.raises(Uncertain):
        vm.attach(WEB, V1, disk, PLAIN)
    vm.close()


def test_a_server_that_is_slow_is_unavailable_at_the_deadline(lab: Lab, disk: ImageFile) -> None:
    vm = powervm(lab, deadline=1.0)
    vm.find("web01")
    lab.faults.set(slow=1.5)
    with pytest.raises(Unavailable):
        vm.disks(WEB)
    lab.faults.set(slow=0)
    vm.close()


@pytest.mark.parametrize("fault", ["unavailable", "garbage"])
def test_a_question_without_an_answer_is_unavailable(lab: Lab, vm: PowerVM, fault: str) -> None:
    vm.find("web01")
    for question in (lambda: vm.disks(WEB), vm.survey, lambda: vm.find("web01")):
        lab.faults.set(**{fault: 1})
        with pytest.raises(Unavailable):
            question()
        question()


def test_a_survey_is_all_or_nothing(lab: Lab, vm: PowerVM) -> None:
    vm.find("web01")
    lab.faults.set(unavailable=2)
    for _ in range(2):
        with pytest.raises(Unavailable):
            vm.survey()
    assert {WEB, DB} < {guest.id for guest in vm.survey()}


def grown(disk: ImageFile) -> int:
    os.truncate(disk.path, 3 << 20)
    return 3 << 20


def test_a_rescan_that_failed_can_be_asked_for_again(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    size = grown(disk)
    lab.faults.set(error=1)
    with pytest.raises(MoorlineError):
        vm.extend(WEB, V1, size)
    assert vm.sizes(WEB, V1) == Sizes(guest=1 << 20, storage=size)
    lab.faults.set(job_polls=1)
    vm.extend(WEB, V1, size)
    assert vm.sizes(WEB, V1) == Sizes(guest=size, storage=size)
    assert lab.service.jobs == {}


def test_a_guest_that_saw_it_already_needs_no_rescan(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    before = len(lab.trace)
    vm.extend(WEB, V1, 1 << 20)
    assert [call for call in lab.trace[before:] if call[0] != "GET"] == []


def test_a_file_of_another_size_is_told_before_anything_is_asked(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    before = len(lab.trace)
    with pytest.raises(Failed, match=r"has 1MiB \(1048576 bytes\), not 2MiB"):
        vm.extend(WEB, V1, 2 << 20)
    assert [call for call in lab.trace[before:] if call[0] != "GET"] == []


def test_a_rescan_of_a_disk_that_somebody_took_away_fails_in_the_servers_words(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)

    def measure(path: Path) -> int:
        lab.system.unplug("web01")
        return 3 << 20

    other = PowerVM(vm._novalink, MemorySlots(), look, measure)
    with pytest.raises(Failed, match=r"volume .* is not extended: no such virtual disk"):
        other.extend(WEB, V1, 3 << 20)
    assert lab.service.jobs == {}


def test_a_job_that_does_not_end_is_uncertain(lab: Lab, disk: ImageFile) -> None:
    vm = powervm(lab, deadline=0.5)
    vm.attach(WEB, V1, disk, PLAIN)
    lab.faults.set(job_polls=1000)
    with pytest.raises(Uncertain, match="still at it"):
        vm.extend(WEB, V1, grown(disk))
    vm.close()
