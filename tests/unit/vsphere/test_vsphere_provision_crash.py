"""Machines made to order, and whatever goes wrong midway: what is told is true, nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from boxes import DISK, left, order, saved

from lab.vcenter import VCenter
from lab.vcenter.rig import MIB, Makes
from moorline.errors import Failed, MoorlineError, Refused, Uncertain
from moorline.hypervisors.vsphere.provision.images import Image
from moorline.hypervisors.vsphere.provision.machine_state import Stage


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return saved(tmp_path, DISK)


WAYS: list[dict[str, Any]] = [
    {"Drop": True},
    {"DropAfter": True},
    {"Status": 503},
    {"Fault": "HostCommunication"},
    {"Fault": "NotAuthenticated"},
    {"TaskFault": "InvalidArgument"},
    {"TaskFault": "SystemError"},
    {"TaskMs": 100},
]
FAULTS = ("HostCommunication", "NotAuthenticated", "NoPermission")
METHODS = (
    "ImportVApp",
    "upload",
    "HttpNfcLeaseProgress",
    "HttpNfcLeaseComplete",
    "ReconfigVM_Task",
    "PowerOnVM_Task",
)


@pytest.mark.parametrize("method", METHODS)
def test_whatever_goes_wrong_a_second_launch_ends_well(
    lab: VCenter, makes: Makes, image: Image, method: str, record_property: Any
) -> None:
    points = 0
    for way in WAYS:
        lab.heal()
        lab.fault(method, **way)
        told: MoorlineError | None = None
        try:
            makes.launch(order(image))
        except MoorlineError as error:
            told = error
        lab.heal()
        seen = makes.look("box").stage
        if told is None:
            assert seen is Stage.ON, way
        elif isinstance(told, Refused | Failed):
            assert seen is not Stage.ON, (way, told)
        makes.launch(order(image))
        assert makes.look("box").stage is Stage.ON
        assert len(lab.disks_of("box")) == 1, way
        makes.remove("box")
        assert left(lab) == [], way
        points += 1
    record_property("crash_points", points)


def test_an_upload_that_is_turned_away_is_not_completed(
    lab: VCenter, makes: Makes, image: Image
) -> None:
    lab.fault("upload", Status=507)
    with pytest.raises(Uncertain, match="the upload was answered 507"):
        makes.launch(order(image))
    assert "HttpNfcLeaseComplete" not in lab.calls()
    assert left(lab) == []


@pytest.mark.parametrize("way", [{"DropAfter": True}, *({"Fault": f} for f in FAULTS)], ids=str)
@pytest.mark.parametrize("goal", [Stage.ON, Stage.ABSENT], ids=["launch", "remove"])
def test_every_call_of_a_launch_and_of_a_removal_goes_wrong(
    lab: VCenter,
    makes: Makes,
    image: Image,
    goal: Stage,
    way: dict[str, Any],
    record_property: Any,
) -> None:
    """What is said not to have happened has not, and has left nothing behind."""
    wanted = order(image, policy="VVol No Requirements Policy")
    deed = (lambda: makes.launch(wanted)) if goal is Stage.ON else (lambda: makes.remove("box"))
    points = 0
    while True:
        if goal is Stage.ABSENT:
            makes.launch(wanted)
        lab.heal()
        lab.fault(Skip=points, **way)
        told: MoorlineError | None = None
        try:
            deed()
        except MoorlineError as error:
            told = error
        calls = sum(lab.calls().values())
        lab.heal()
        seen = makes.look("box").stage
        assert (seen is goal) if told is None else (seen is not goal or type(told) is Uncertain)
        if goal is Stage.ON and isinstance(told, Refused | Failed):
            assert seen is not Stage.HALF, (points, told)
        deed()
        assert makes.look("box").stage is goal
        makes.remove("box")
        assert left(lab) == []
        if calls <= points:
            break
        points += 1
    assert points > 10, "of each kind of call that a deed makes, at least one went wrong"
    record_property("crash_points", points)


@pytest.mark.parametrize("cut", [{"Drop": True}, {"DropAfter": True}, {"Status": 503}], ids=str)
def test_a_sign_of_life_that_is_lost_does_not_end_an_upload(
    lab: VCenter, makes: Makes, image: Image, cut: dict[str, Any]
) -> None:
    lab.fault("HttpNfcLeaseProgress", **cut)
    makes.launch(order(image))
    calls = lab.calls()
    assert (calls["ImportVApp"], calls["HttpNfcLeaseProgress"]) == (1, 2)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    "method", ["CreateVM_Task", "PowerOnVM_Task", "PowerOffVM_Task", "Destroy_Task"]
)
def test_an_empty_machine_comes_and_goes_whatever_goes_wrong(
    lab: VCenter, makes: Makes, method: str, way: dict[str, Any]
) -> None:
    empty = order(None, empty=8 * MIB)
    lab.fault(method, **way)
    for goal, deed in (
        (Stage.ON, lambda: makes.launch(empty)),
        (Stage.ABSENT, lambda: makes.remove("box")),
    ):
        told: MoorlineError | None = None
        try:
            deed()
        except MoorlineError as error:
            told = error
        seen = makes.look("box").stage
        if told is None or isinstance(told, Refused | Failed):
            assert (seen is goal) is (told is None), told
        deed()
        assert makes.look("box").stage is goal
    assert left(lab) == []


def test_a_half_made_machine_can_be_removed(lab: VCenter, makes: Makes, image: Image) -> None:
    lab.fault("HttpNfcLeaseComplete", Drop=True)
    lab.fault("Destroy_Task", Fault="HostCommunication")
    with pytest.raises(Uncertain, match="is left") as told:
        makes.launch(order(image))
    assert "again" in told.value.hint
    assert makes.look("box").stage is Stage.HALF
    lab.heal()
    with pytest.raises(Refused, match="half made"):
        makes.start("box")
    makes.remove("box")
    assert left(lab) == []
