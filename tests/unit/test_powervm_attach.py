"""Attach, detach, extend and questions, with the real pypowervm and the stand-in NovaLink.

The numbers D1 to D9 name defects of nova-powervm that this driver must not have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.novalink import NovaLink as Lab
from lab.novalink.model import System, partition_uuid
from lab.novalink.rig import image, powervm
from moorline.errors import (
    Failed,
    MoorlineError,
    NotFound,
    NotOurs,
    Refused,
    Unavailable,
    Uncertain,
)
from moorline.hypervisors.powervm import MemorySlots, PowerVM, Slot
from moorline.model import BlockDevice, DiskOptions, DiskState, GuestId, ImageFile, VolumeId

WEB, DB = GuestId(partition_uuid(100)), GuestId(partition_uuid(101))
V1, V2 = VolumeId("11111111-0000-4000-8000-000000000001"), VolumeId("v2")
PLAIN = DiskOptions()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def vm(lab: Lab) -> Iterator[PowerVM]:
    vm = powervm(lab)
    yield vm
    vm.close()


@pytest.fixture
def disk(tmp_path: Path) -> ImageFile:
    return ImageFile(image(tmp_path, "volume-1"), "raw")


def mapped(lab: Lab) -> list[tuple[str, str, int, str]]:
    """What the management partition maps: client, tag, slot and LUA."""
    return [
        (m.client, m.disk.tag, m.client_slot, m.lua)
        for m in lab.system.mappings[partition_uuid(1)]
        if m.disk
    ]


# --- what it is for ------------------------------------------------------------


def test_a_file_becomes_a_disk_and_goes_again(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    guest = vm.find("web01")
    assert (guest.id, guest.name, guest.running, guest.paths) == (WEB, "web01", True, frozenset())
    vm.attach(WEB, V1, disk, PLAIN)
    seen = vm.disks(WEB)[V1]
    assert (seen.state, seen.source) == (DiskState.WHOLE, str(disk.path))
    assert seen.device == "C2-L8100000000000000"
    assert vm.find(WEB.lower()).paths == {str(disk.path)}
    assert mapped(lab) == [(WEB, V1, 2, "0x8100000000000000")]
    vm.detach(WEB, V1)
    assert vm.disks(WEB) == {}
    assert mapped(lab) == []


def test_attaching_twice_posts_once_and_detaching_twice_does_nothing(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    vm.attach(WEB, V1, disk, PLAIN)
    assert lab.service.updates() == 1
    vm.detach(WEB, V1)
    vm.detach(WEB, V1)
    assert lab.service.updates() == 2


def test_only_the_management_partition_is_ever_changed(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    vm.detach(WEB, V1)
    posts = {path.partition("?")[0] for method, path, _ in lab.trace if method == "POST"}
    assert posts == {f"/rest/api/uom/VirtualIOServer/{partition_uuid(1)}"}


def test_disks_share_a_bus_until_it_is_full(lab: Lab, vm: PowerVM, tmp_path: Path) -> None:
    for n in range(34):
        vm.attach(WEB, VolumeId(f"v{n}"), ImageFile(image(tmp_path, f"f{n}"), "raw"), PLAIN)
    slots = [slot for _, _, slot, _ in mapped(lab)]
    assert [slots.count(slot) for slot in sorted(set(slots))] == [32, 2]
    assert len(vm.disks(WEB)) == 34


def test_a_survey_shows_every_partition_and_mappings_without_one(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    lab.system.alter("db01", state="not activated")
    vm.attach(WEB, V1, disk, PLAIN)
    del lab.system.partitions[WEB]
    guests = {guest.id: guest for guest in vm.survey()}
    assert not guests[DB].running
    # Its partition is gone; the file is still open.
    assert guests[WEB].paths == {str(disk.path)}


def test_foreign_mappings_are_paths_but_not_our_disks(
    lab: Lab, vm: PowerVM, tmp_path: Path, disk: ImageFile
) -> None:
    lab.system.tags = False
    powervm(lab).attach(WEB, V1, disk, PLAIN)  # made by another, with another's record
    assert vm.disks(WEB) == {}
    assert vm.find("web01").paths == {str(disk.path)}
    with pytest.raises(NotOurs):
        vm.attach(WEB, V2, disk, PLAIN)
    vm.detach(WEB, V1)
    vm.detach(WEB, V2)
    assert len(mapped(lab)) == 1


def test_a_volume_that_comes_from_another_file_is_left_alone(
    lab: Lab, vm: PowerVM, tmp_path: Path, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    with pytest.raises(NotOurs, match="volume-1, not from"):
        vm.attach(WEB, V1, ImageFile(image(tmp_path, "other"), "raw"), PLAIN)
    assert lab.service.updates() == 1


# --- refusals: nothing is changed ----------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (DiskOptions(bus="virtio"), "no bus virtio"),
        (DiskOptions(target="vdb"), "by hand"),
        (DiskOptions(readonly=True), "read-only"),
    ],
)
def test_what_powervm_cannot_do_is_refused(
    lab: Lab, vm: PowerVM, disk: ImageFile, options: DiskOptions, why: str
) -> None:
    for command in (
        lambda: vm.check(WEB, disk, options),
        lambda: vm.attach(WEB, V1, disk, options),
    ):
        with pytest.raises(Refused, match=why):
            command()
    assert lab.trace == []


def test_d4_a_format_other_than_raw_is_refused(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    with pytest.raises(Refused, match="qcow2"):
        vm.attach(WEB, V1, ImageFile(disk.path, "qcow2"), PLAIN)
    with pytest.raises(Refused, match="block devices"):
        vm.attach(WEB, V1, BlockDevice(disk.path), PLAIN)
    assert lab.trace == []


@pytest.mark.parametrize(
    ("change", "why"),
    [({"rmc": "inactive"}, "RMC"), ({"dlpar": False}, "DLPAR")],
)
def test_a_partition_that_cannot_be_changed_is_refused_with_the_reason(
    lab: Lab, vm: PowerVM, disk: ImageFile, change: dict[str, object], why: str
) -> None:
    lab.system.alter("web01", **change)
    with pytest.raises(Refused, match=why):
        vm.check(WEB, disk, PLAIN)
    with pytest.raises(Refused, match=why):
        vm.attach(WEB, V1, disk, PLAIN)
    assert lab.service.updates() == 0
    lab.system.alter("web01", state="not activated")
    vm.attach(WEB, V1, disk, PLAIN)
    assert len(mapped(lab)) == 1


def test_what_is_attached_already_needs_no_rmc(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    lab.system.alter("web01", rmc="inactive")
    vm.attach(WEB, V1, disk, PLAIN)


def test_d2_a_file_is_looked_at_where_we_run_and_within_a_deadline(
    lab: Lab, vm: PowerVM, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="on the NovaLink partition"):
        vm.attach(WEB, V1, ImageFile(tmp_path / "absent", "raw"), PLAIN)

    def hangs(path: Path) -> None:
        raise Uncertain(f"{path} did not answer within its deadline")

    other = powervm(lab, look=hangs)
    with pytest.raises(Uncertain, match="deadline"):
        other.attach(WEB, V1, ImageFile(tmp_path / "absent", "raw"), PLAIN)
    # A share that hangs holds up nobody: the server was not even locked.
    assert not [path for _, path, _ in lab.trace if "ViosSCSIMapping" in path]
    other.close()


def test_d6_a_file_of_another_partition_is_refused_unless_shared(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    with pytest.raises(Refused, match="mapped to LPAR 10"):
        vm.check(DB, disk, PLAIN)
    with pytest.raises(Refused, match="mapped to LPAR 10"):
        vm.attach(DB, V1, disk, PLAIN)
    assert lab.service.updates() == 1
    vm.attach(DB, V1, disk, DiskOptions(shared=True))
    vm.detach(WEB, V1)
    assert [(client, tag) for client, tag, _, _ in mapped(lab)] == [(DB, V1)]


def test_a_traditional_vios_is_refused_and_never_changed(disk: ImageFile) -> None:
    with Lab(mode="traditional") as lab:
        vm = powervm(lab)
        assert vm.find("web01").id == WEB
        for command in (
            lambda: vm.check(WEB, disk, PLAIN),
            lambda: vm.attach(WEB, V1, disk, PLAIN),
        ):
            with pytest.raises(Refused) as refused:
                command()
            assert (
                "management partition novalink (id 1) does not host virtual I/O"
                " (traditional VIOS)" in str(refused.value)
            )
            assert str(disk.path) in str(refused.value)
        assert vm.disks(WEB) == {}
        vm.detach(WEB, V1)
        assert not [call for call in lab.trace if call[0] == "POST"]
        vm.close()


def test_an_hmc_is_refused() -> None:
    with Lab(mode="hmc") as lab:
        vm = powervm(lab)
        with pytest.raises(Refused, match="localhost is an HMC, not NovaLink"):
            vm.find("web01")
        vm.close()


@pytest.mark.parametrize("name", ["", "nobody", "x')||('", "a/b", partition_uuid(9), "WEB01"])
def test_a_guest_that_is_not_there(vm: PowerVM, name: str) -> None:
    with pytest.raises(NotFound):
        vm.find(name)


def test_d9_a_uuid_is_never_bent_into_another(vm: PowerVM) -> None:
    """PowerVM clears the first bit of a UUID: two of Nova's could mean one LPAR."""
    nova = "8" + WEB[1:]
    with pytest.raises(NotFound, match="first bit"):
        vm.find(nova)
    assert vm.disks(GuestId(nova)) == {}


# --- slots and LUNs --------------------------------------------------------------


@pytest.mark.parametrize("udids", ["uuid", "path"])
@pytest.mark.parametrize("luas", ["vios", "short"])
def test_d1_places_are_recorded_and_rescans_work_in_every_style(
    udids: str, luas: str, disk: ImageFile
) -> None:
    slots = MemorySlots()
    with Lab(system=System(udids=udids, luas=luas)) as lab:  # type: ignore[arg-type]
        vm = powervm(lab, slots=slots)
        vm.attach(WEB, V1, disk, PLAIN)
        lua = "0x8100000000000000" if luas == "vios" else "lun1"
        assert slots.of(WEB) == {V1: Slot(str(disk.path), 2, lua)}
        with disk.path.open("r+b") as file:
            file.truncate(512 << 20)
        vm.extend(WEB, V1)
        found = lab.system.mappings[partition_uuid(1)][0].disk
        assert found is not None
        assert found.capacity == "0.500000"
        vm.close()


def test_a_volume_comes_back_to_its_place(lab: Lab, vm: PowerVM, tmp_path: Path) -> None:
    files = [ImageFile(image(tmp_path, f"f{n}"), "raw") for n in range(3)]
    for n, file in enumerate(files):
        vm.attach(WEB, VolumeId(f"v{n}"), file, PLAIN)
    before = mapped(lab)
    vm.detach(WEB, VolumeId("v0"))
    vm.detach(WEB, VolumeId("v1"))
    vm.attach(WEB, VolumeId("v1"), files[1], PLAIN)
    vm.attach(WEB, VolumeId("v0"), files[0], PLAIN)
    assert sorted(mapped(lab)) == sorted(before)


def test_a_rebuilt_partition_has_its_disks_where_they_were(
    lab: Lab, vm: PowerVM, tmp_path: Path
) -> None:
    files = [ImageFile(image(tmp_path, f"f{n}"), "raw") for n in range(3)]
    for n, file in enumerate(files):
        vm.attach(WEB, VolumeId(f"v{n}"), file, PLAIN)
    before = mapped(lab)
    lab.system.unplug("web01")
    for n in (2, 0, 1):
        vm.attach(WEB, VolumeId(f"v{n}"), files[n], PLAIN)
    assert sorted(mapped(lab)) == sorted(before)


def test_a_place_that_somebody_took_is_not_fought_for(
    lab: Lab, vm: PowerVM, tmp_path: Path, disk: ImageFile
) -> None:
    vm.attach(WEB, V1, disk, PLAIN)
    vm.detach(WEB, V1)
    other = powervm(lab)
    other.attach(WEB, V2, ImageFile(image(tmp_path, "f2"), "raw"), PLAIN)
    vm.attach(WEB, V1, disk, PLAIN)
    luas = {tag: lua for _, tag, _, lua in mapped(lab)}
    assert luas == {V2: "0x8100000000000000", V1: "0x8200000000000000"}
    other.close()


def test_d5_the_bus_is_chosen_by_the_slot(lab: Lab, tmp_path: Path, disk: ImageFile) -> None:
    """pypowervm's builder would take the bus on slot 2 and write slot 7 over one half of it."""
    slots = MemorySlots()
    lua = "0x8200000000000000"
    slots.put(WEB, V2, Slot("", 7, lua))
    slots.put(WEB, VolumeId("v3"), Slot("", 7, "0x8300000000000000"))
    vm = powervm(lab, slots=slots)
    vm.attach(WEB, V1, disk, PLAIN)
    vm.attach(WEB, V2, ImageFile(image(tmp_path, "f2"), "raw"), PLAIN)
    vm.attach(WEB, VolumeId("v3"), ImageFile(image(tmp_path, "f3"), "raw"), PLAIN)
    assert {tag: (slot, lua) for _, tag, slot, lua in mapped(lab)} == {
        V1: (2, "0x8100000000000000"),
        V2: (7, lua),
        "v3": (7, "0x8300000000000000"),
    }
    vm.close()


def test_the_place_of_a_guest_that_is_gone_is_forgotten(
    lab: Lab, tmp_path: Path, disk: ImageFile
) -> None:
    slots = MemorySlots()
    vm = powervm(lab, slots=slots)
    vm.attach(WEB, V1, disk, PLAIN)
    vm.detach(WEB, V1)
    assert slots.of(WEB) == {V1: Slot("", 2, "0x8100000000000000")}
    del lab.system.partitions[WEB]
    vm.detach(WEB, V1)
    assert slots.of(WEB) == {}
    vm.close()


# --- servers that keep no tags -----------------------------------------------------


def test_without_tags_the_name_that_we_asked_for_is_the_mark(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    lab.system.tags = False
    vm.attach(WEB, V1, disk, PLAIN)
    vm.attach(WEB, V1, disk, PLAIN)
    assert lab.service.updates() == 1
    assert vm.disks(WEB)[V1].state is DiskState.WHOLE
    vm.detach(WEB, V1)
    assert mapped(lab) == []
    # From here on the name proves nothing: what comes now is another's.
    powervm(lab).attach(WEB, V1, disk, PLAIN)
    assert vm.disks(WEB) == {}


def test_a_tag_of_somebody_else_beats_the_name(lab: Lab, vm: PowerVM, disk: ImageFile) -> None:
    other = powervm(lab)
    other.attach(WEB, VolumeId("theirs"), disk, PLAIN)
    with pytest.raises(NotOurs):
        vm.attach(WEB, V1, disk, PLAIN)
    vm.detach(WEB, V1)
    assert [tag for _, tag, _, _ in mapped(lab)] == ["theirs"]
    other.close()


# --- when things go wrong -------------------------------------------------------------


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
    assert len(lab.system.mappings[partition_uuid(1)]) == 2  # the disk went onto that bus


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
    begun = time.monotonic()
    with pytest.raises(Failed, match="busy for 1 s"):
        vm.attach(WEB, V1, disk, PLAIN)
    assert time.monotonic() - begun < 5
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
    assert f"volume {V1} is not attached to web01" in str(failed.value)
    assert "the server does not want to" in str(failed.value)
    assert "HTTP 400" in str(failed.value)


def test_a_server_that_is_slow_is_uncertain_at_the_deadline(lab: Lab, disk: ImageFile) -> None:
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
    assert len(vm.survey()) == 2


def test_extend_says_so_when_there_is_nothing_to_extend(
    lab: Lab, vm: PowerVM, disk: ImageFile
) -> None:
    with pytest.raises(NotFound):
        vm.extend(WEB, V1)
    vm.attach(WEB, V1, disk, PLAIN)
    lab.faults.set(error=1)
    with pytest.raises(MoorlineError):
        vm.extend(WEB, V1)
    lab.faults.set(job_polls=1)
    vm.extend(WEB, V1)
    assert lab.service.jobs == {}


def test_a_job_that_does_not_end_is_uncertain(lab: Lab, disk: ImageFile) -> None:
    vm = powervm(lab, deadline=0.5)
    vm.attach(WEB, V1, disk, PLAIN)
    lab.faults.set(job_polls=1000)
    with pytest.raises(Uncertain, match="still at it"):
        vm.extend(WEB, V1)
    vm.close()
