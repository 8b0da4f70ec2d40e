"""What is destroyed with a machine, or moved, is no disk that another is being given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.command import Moorline
from lab.demo import until
from lab.vcenter import VCenter
from lab.vcenter.images import stream
from lab.vcenter.prompt import moorline as prompt
from lab.vcenter.rig import Operator
from moorline.hypervisors.vsphere.hypervisor import split

EMPTY = ("launch", "made", "--empty", "8M", "--datastore-regex", "vvol.*", "--no-start")
WEB, DB = VCenter.guests[:2]


@pytest.fixture
def moorline(lab: VCenter, tmp_path: Path) -> Iterator[Moorline]:
    yield prompt(lab, tmp_path)
    lab.heal()


@pytest.fixture
def other(lab: VCenter, tmp_path: Path) -> Moorline:
    """Of another state on the same host."""
    (tmp_path / "other").mkdir()
    return prompt(lab, tmp_path / "other")


def url(path: str) -> str:
    datastore, _, file = path.removeprefix("[").partition("] ")
    return f"vmdk://{datastore}/{file}"


def test_a_disk_that_is_being_destroyed_is_given_to_nobody(
    moorline: Moorline, other: Moorline, lab: VCenter
) -> None:
    (path,) = moorline.json(*EMPTY)["disks"]
    lab.fault("SearchDatastore_Task", DelayMs=12_000)  # who has it was looked at before
    removal = moorline.start("remove", "made")
    until(lambda: lab.calls().get("SearchDatastore_Task"), "for the look before the removal")
    told = other("attach", WEB, url(path), code=None)
    removal.communicate(timeout=60)
    assert (removal.returncode, told.returncode) == (0, 3), told
    assert path not in lab.disks()
    assert other.json("list") == []


def test_a_disk_whose_removal_was_killed_is_given_to_nobody(
    moorline: Moorline, other: Moorline, lab: VCenter
) -> None:
    """It may be on its way, and destroys the disk whoever has it by then."""
    (path,) = moorline.json(*EMPTY)["disks"]
    lab.fault("Destroy_Task", DelayMs=15_000)
    removal = moorline.start("remove", "made")
    until(lambda: lab.calls().get("Destroy_Task"), "for the removal to be under way")
    removal.kill()
    removal.communicate()
    told = other("attach", WEB, url(path), code=3)
    assert "made, which is half made or half removed" in told.stderr
    until(lambda: path not in lab.disks(), "for the disk to be gone")
    assert path not in lab.disks_of(WEB)
    assert other.json("list") == []


def test_a_disk_that_is_being_given_to_another_is_not_destroyed(
    moorline: Moorline, other: Moorline, lab: VCenter
) -> None:
    (path,) = moorline.json(*EMPTY)["disks"]
    lab.fault("ReconfigVM_Task", DelayMs=12_000)
    attach = other.start("attach", WEB, url(path))
    until(lambda: lab.calls().get("ReconfigVM_Task"), "for the disk to be plugged")
    told = moorline("remove", "made", code=3)
    assert f"is a disk of {WEB}, too" in told.stderr
    attach.communicate(timeout=60)
    assert (attach.returncode, path in lab.disks()) == (0, True)
    other("detach", WEB, other.json("list")[0]["volume"])
    moorline("remove", "made")


def test_the_disk_of_a_half_made_machine_is_not_destroyed_under_another(
    moorline: Moorline, other: Moorline, lab: VCenter, operator: Operator, tmp_path: Path
) -> None:
    """Launching it again begins anew, on whatever host."""
    image = tmp_path / "disk.vmdk"
    image.write_bytes(stream(8 << 20, {0: b"data" * 1000}))
    launch = ("launch", "made", "--image", str(image), *EMPTY[4:])
    lab.fault("ReconfigVM_Task", DelayMs=60_000)  # the call that says that it is whole
    process = moorline.start(*launch)
    until(lambda: lab.calls().get("ReconfigVM_Task"), "for the machine to be brought in")
    process.kill()
    process.communicate()
    (path,) = lab.disks_of("made")
    told = other("attach", WEB, url(path), code=3)
    assert "half made" in told.stderr
    operator.plug(WEB, split(path))  # who does not ask, such as Nova
    told = moorline(*launch, code=None)
    assert (told.returncode, path in lab.disks()) == (3, True), told.stderr
    operator.unplug(WEB, path)
    moorline("remove", "made")


def test_a_disk_that_moves_is_given_to_nobody(
    moorline: Moorline, other: Moorline, lab: VCenter, operator: Operator
) -> None:
    """Not even to one who shares it: he would find nothing at its path."""
    source = operator.disk()
    moorline("attach", WEB, url(source.path), "--shared")
    (row,) = moorline.json("list")
    lab.fault("RelocateVM_Task", DelayMs=12_000)
    move = moorline.start("relocate", WEB, row["volume"], "nfs1")
    until(lambda: lab.calls().get("RelocateVM_Task"), "for the disk to move")
    told = other("attach", DB, url(source.path), "--shared", code=None)
    move.communicate(timeout=60)
    assert (move.returncode, told.returncode) == (0, 3), told
    moorline("detach", WEB, row["volume"])
