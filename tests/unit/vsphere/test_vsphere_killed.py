"""The ``moorline`` command is killed with SIGKILL, and typed again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.command import Moorline
from lab.demo import until
from lab.vcenter import VCenter
from lab.vcenter.images import stream
from lab.vcenter.prompt import moorline as prompt
from lab.vcenter.rig import MIB, Operator

BEFORE, AFTER = {"DelayMs": 400}, {"ReplyMs": 1000}
"""The call is on its way and is carried out later, while the command is typed again; or it
was carried out, and nobody heard the answer."""
STORES = ("vvol1", "vmfs1", "nfs1", "nfs41", "vsan1", "vmfs-local")
SIZE = 32 * MIB


@pytest.fixture
def moorline(lab: VCenter, tmp_path: Path) -> Moorline:
    return prompt(lab, tmp_path)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Larger than what is sent before anybody reads."""
    path = tmp_path_factory.mktemp("images") / "disk.vmdk"
    path.write_bytes(stream(SIZE, {n: os.urandom(1 << 16) for n in range(400)}))
    return path


@pytest.fixture(autouse=True)
def nothing_is_left(lab: VCenter) -> Iterator[None]:
    yield
    lab.heal()
    assert [file for store in STORES for file in lab.files(store) if "made" in file] == []


def kill(moorline: Moorline, lab: VCenter, call: str, way: dict[str, Any], *words: str) -> None:
    """Type *words*, and kill it once *call* is under way."""
    lab.heal()
    lab.fault(call, **way)
    process = moorline.start(*words)
    until(lambda: lab.calls().get(call), f"for {call} of {words}")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


LAUNCH = ("launch", "made", "--datastore-regex", "vvol.*", "--memory", "64M")
EMPTY, IMAGE = (*LAUNCH, "--empty", "32M"), (*LAUNCH, "--image")
LAUNCHES = {
    "--image": [
        "ImportVApp",
        "upload",
        "HttpNfcLeaseComplete",
        "ReconfigVM_Task",
        "PowerOnVM_Task",
    ],
    "--empty": ["CreateVM_Task", "PowerOnVM_Task"],
}


@pytest.mark.parametrize("way", [BEFORE, AFTER], ids=["before", "after"])
@pytest.mark.parametrize(
    ("kind", "call"), [(kind, call) for kind, calls in LAUNCHES.items() for call in calls]
)
def test_launch(
    moorline: Moorline, lab: VCenter, image: Path, kind: str, call: str, way: dict[str, Any]
) -> None:
    words = (*IMAGE, str(image)) if kind == "--image" else EMPTY
    kill(moorline, lab, call, way, *words)
    told = moorline.json(*words)
    assert (told["running"], told["disks"]) == (True, lab.disks_of("made"))
    assert [lab.disks()[path] for path in lab.disks_of("made")] == [SIZE]
    moorline("remove", "made")


def test_a_call_that_is_carried_out_after_the_next_command_has_looked(
    moorline: Moorline, lab: VCenter, image: Path
) -> None:
    """The name is taken then, by what the command that was killed had asked for."""
    kill(moorline, lab, "ImportVApp", {"DelayMs": 3000}, *IMAGE, str(image))
    lab.fault("ImportVApp", DelayMs=3500)
    told = moorline.json(*IMAGE, str(image))
    assert (told["running"], told["disks"]) == (True, lab.disks_of("made"))
    moorline("remove", "made")


@pytest.mark.parametrize("way", [BEFORE, AFTER], ids=["before", "after"])
@pytest.mark.parametrize(
    "call", ["SearchDatastore_Task", "PowerOffVM_Task", "ReconfigVM_Task", "Destroy_Task"]
)
def test_remove(moorline: Moorline, lab: VCenter, call: str, way: dict[str, Any]) -> None:
    moorline(*EMPTY)
    kill(moorline, lab, call, way, "remove", "made")
    again = moorline("remove", "made", code=None)
    # Once vCenter was asked for it, the machine may go when nobody asks any more.
    assert again.returncode in ((0, 4) if call == "Destroy_Task" else (0,)), again.stderr
    assert lab.disks_of("made") == []


@pytest.mark.parametrize("way", [BEFORE, AFTER], ids=["before", "after"])
def test_start(moorline: Moorline, lab: VCenter, way: dict[str, Any]) -> None:
    moorline(*EMPTY, "--no-start")
    kill(moorline, lab, "PowerOnVM_Task", way, "start", "made")
    moorline("start", "made")
    assert moorline.json(*EMPTY)["running"]
    moorline("remove", "made")


@pytest.mark.parametrize("way", [BEFORE, AFTER], ids=["before", "after"])
def test_a_volume_grows_and_moves(
    moorline: Moorline, lab: VCenter, operator: Operator, way: dict[str, Any]
) -> None:
    source, guest = operator.disk(), VCenter.guests[0]
    moorline("attach", guest, f"vmdk://{source.datastore}/{source.file}")
    (row,) = moorline.json("list")
    extend = ("extend", guest, row["volume"], "16M")
    kill(moorline, lab, "ReconfigVM_Task", way, *extend)
    moorline(*extend)
    assert lab.disks()[source.path] == 16 * MIB
    relocate = ("relocate", guest, row["volume"], "nfs1")
    kill(moorline, lab, "RelocateVM_Task", way, *relocate)
    moorline(*relocate)
    (moved,) = moorline.json("list")
    assert (moved["seen"], moved["source"]["datastore"]) == ("attached", "nfs1")
    moorline("detach", guest, row["volume"])
    assert lab.disks()[f"[nfs1] {moved['source']['file']}"] == 16 * MIB


def test_where_a_disk_is_that_moved_and_is_detached_is_told(
    moorline: Moorline, lab: VCenter, operator: Operator
) -> None:
    source, guest = operator.disk(), VCenter.guests[0]
    moorline("attach", guest, f"vmdk://{source.datastore}/{source.file}")
    (row,) = moorline.json("list")
    relocate = ("relocate", guest, row["volume"], "nfs1")
    before = {*lab.disks()}
    kill(moorline, lab, "RelocateVM_Task", AFTER, *relocate)
    moorline("detach", guest, row["volume"])
    (path,) = {*lab.disks()} - before
    assert path.startswith("[nfs1] ")
    messages = [each["message"] for each in moorline.json("events")]
    assert any(f"to nfs1 begins: it is {source.path}" in message for message in messages)
    assert f"its disk is {path} now, and not {source.path}" in messages


def test_a_move_is_among_the_events(moorline: Moorline, operator: Operator) -> None:
    source, guest = operator.disk(), VCenter.guests[0]
    moorline("attach", guest, f"vmdk://{source.datastore}/{source.file}")
    (row,) = moorline.json("list")
    moorline("relocate", guest, row["volume"], "nfs1")
    told = [each["message"] for each in moorline.json("events") if "the move" in each["message"]]
    assert [message.rpartition(" to nfs1 ")[2] for message in told] == [
        f"begins: it is {source.path}",
        "is done",
    ]
    moorline("detach", guest, row["volume"])
