"""A disk that comes after the command that asked for it was killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVmomi import vim

from lab.command import Moorline
from lab.demo import until
from lab.vcenter import VCenter
from lab.vcenter.prompt import moorline as prompt
from lab.vcenter.rig import Operator
from moorline.deadline import Deadline
from moorline.model import DatastoreDisk

WEB, DB = VCenter.guests[:2]
LATE_MS = 15_000


@pytest.fixture
def moorline(lab: VCenter, tmp_path: Path) -> Iterator[Moorline]:
    yield prompt(lab, tmp_path)
    lab.heal()


@pytest.fixture(autouse=True)
def stopped(operator: Operator) -> Iterator[None]:
    """vCenter's own locks heed running machines only."""
    for name in (WEB, DB):
        operator.power(name, False)
    yield
    for name in (WEB, DB):
        operator.power(name, True)


def kill_attach(moorline: Moorline, lab: VCenter, source: DatastoreDisk, **way: int) -> Deadline:
    """Returns until when the call may come."""
    lab.fault("ReconfigVM_Task", **way)
    process = moorline.start("attach", WEB, url(source))
    until(lambda: lab.calls().get("ReconfigVM_Task"), "for the call to be under way")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return Deadline(LATE_MS / 1000 + 1)


def pause(end: Deadline) -> None:
    end.sleep(end.left())


def url(source: DatastoreDisk) -> str:
    return f"vmdk://{source.datastore}/{source.file}"


@pytest.mark.parametrize("way", ["DelayMs", "TaskMs"])
def test_a_detach_is_the_last_word(
    moorline: Moorline, lab: VCenter, operator: Operator, way: str
) -> None:
    """Whether the call is on its way still, or is carried out by now."""
    source = operator.disk()
    until_it_came = kill_attach(moorline, lab, source, **{way: LATE_MS})
    moorline("detach", WEB, url(source))
    moorline("attach", DB, url(source))
    pause(until_it_came)
    assert source.path not in disks(operator, WEB)
    moorline("detach", DB, url(source))


def test_the_next_one_who_gives_the_disk_is_the_only_one(
    moorline: Moorline, lab: VCenter, operator: Operator, tmp_path: Path
) -> None:
    """Another state, which does not know what the first one wanted."""
    (tmp_path / "other").mkdir()
    other = prompt(lab, tmp_path / "other")
    source = operator.disk()
    until_it_came = kill_attach(moorline, lab, source, DelayMs=LATE_MS)
    other("attach", DB, url(source))
    pause(until_it_came)
    assert source.path not in disks(operator, WEB)
    other("detach", DB, url(source))


@pytest.mark.parametrize("released", [True, False])
def test_a_detach_of_what_is_not_recorded_is_the_last_word_too(
    moorline: Moorline, lab: VCenter, operator: Operator, tmp_path: Path, *, released: bool
) -> None:
    """It was released meanwhile, or another state is asked."""
    (tmp_path / "other").mkdir()
    other = moorline if released else prompt(lab, tmp_path / "other")
    source = operator.disk()
    until_it_came = kill_attach(moorline, lab, source, DelayMs=LATE_MS)
    (row,) = moorline.json("list")
    if released:
        moorline("release", WEB, row["volume"])
    other("detach", WEB, row["volume"])
    pause(until_it_came)
    assert source.path not in disks(operator, WEB)
    if not released:
        moorline("detach", WEB, row["volume"])


def disks(operator: Operator, name: str) -> set[str]:
    """The files of a machine's disks."""
    found = operator.machines[name].config.hardware.device
    return {d.backing.fileName for d in found if isinstance(d, vim.vm.device.VirtualDisk)}
