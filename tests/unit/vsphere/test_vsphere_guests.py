"""vSphere's machines are guests as all others: one result, one event log, one agent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from lab.agent import Agent
from lab.command import Moorline
from lab.vcenter import VCenter
from lab.vcenter.images import stream
from lab.vcenter.prompt import moorline as prompt
from lab.vcenter.rig import Operator
from moorline.local_api.client import Client

KEYS = ["guest", "guest_id", "running", "steps", "attachments", "disks"]
EMPTY = ("launch", "made", "--empty", "8M", "--datastore-regex", "vvol.*")


@pytest.fixture
def moorline(lab: VCenter, tmp_path: Path) -> Iterator[Moorline]:
    yield prompt(lab, tmp_path)
    lab.heal()


@pytest.fixture
def agent(moorline: Moorline, tmp_path: Path) -> Iterator[Client]:
    agent = Agent(moorline, tmp_path / "log")
    yield agent.client
    agent.stop()


def noted(moorline: Moorline) -> list[tuple[str, str, str]]:
    told = moorline.json("events")
    return [(each["step"], each["outcome"], each["guest"]) for each in told]


def told_alike(moorline: Moorline, lab: VCenter) -> None:
    """The same shape from launch, start and remove, and each step in the event log."""
    launched = moorline.json(*EMPTY)
    assert list(launched) == KEYS
    assert (launched["steps"], launched["running"]) == (["define", "start"], True)
    assert launched["disks"] == lab.disks_of("made")
    started = moorline.json("start", "made")
    assert started == {**launched, "steps": []}
    removed = moorline.json("remove", "made")
    assert list(removed) == KEYS
    assert (removed["steps"], removed["guest_id"]) == (["stop", "undefine"], launched["guest_id"])
    assert moorline.json("remove", launched["guest_id"]) is None
    steps = ["define", "start", "stop", "undefine"]
    assert noted(moorline) == [(step, "done", "made") for step in steps]


def test_results_and_events_are_those_of_all_guests(moorline: Moorline, lab: VCenter) -> None:
    told_alike(moorline, lab)


def test_an_agent_does_it_where_one_runs(moorline: Moorline, agent: Client, lab: VCenter) -> None:
    told_alike(moorline, lab)
    (first, *_) = moorline.json("datastores", "--for", "8M")
    assert (first["name"], first["against"]) == ("vvol1", "")


def test_an_agent_brings_in_an_image_however_long_that_takes(
    moorline: Moorline, agent: Client, lab: VCenter, tmp_path: Path
) -> None:
    image = tmp_path / "disk.vmdk"
    image.write_bytes(stream(32 << 20, {n: os.urandom(1 << 16) for n in range(400)}))
    lab.fault("upload", DelayMs=1500)
    process = moorline.start("launch", "made", "--image", str(image), "--timeout", "0")
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 0, shown
    assert "bringing in disk.vmdk: 100 %" in shown
    moorline("remove", "made")


def test_two_who_make_one_machine_wait_for_each_other(
    moorline: Moorline, agent: Client, lab: VCenter
) -> None:
    lab.fault("CreateVM_Task", TaskMs=1000)
    told: list[object] = []
    hardware = {"empty": 8 << 20, "datastore_regex": "vvol.*"}

    def launch() -> None:
        told.append(agent.guests.launch("made", hardware=hardware))

    threads = [Thread(target=launch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 3
    assert lab.calls()["CreateVM_Task"] == 1
    moorline("remove", "made")


def test_what_fails_is_in_the_event_log(moorline: Moorline, lab: VCenter) -> None:
    lab.fault("PowerOnVM_Task", Fault="NoPermission")
    moorline(*EMPTY, code=None)
    assert noted(moorline)[0] == ("define", "done", "made")
    assert [(step, guest) for step, outcome, guest in noted(moorline)[1:] if outcome != "done"] == [
        ("start", "made")
    ]
    lab.heal()
    assert moorline.json(*EMPTY)["steps"] == ["start"]
    moorline("remove", "made")


def test_a_machine_with_a_volume_is_not_removed_and_runs_on(
    moorline: Moorline, lab: VCenter, operator: Operator
) -> None:
    moorline(*EMPTY)
    volume = operator.disk()
    url = f"vmdk://{volume.datastore}/{volume.file}"
    moorline("attach", "made", url)
    refused = moorline("remove", "made", code=3)
    assert "would be destroyed with it" in refused.stderr
    assert "PowerOffVM_Task" not in lab.calls()
    assert moorline.json("list")[0]["seen"] == "attached"
    moorline("detach", "made", url)
    moorline("remove", "made")


def test_a_machine_of_somebody_else_is_left_alone_whatever_is_asked(
    moorline: Moorline, agent: Client, lab: VCenter
) -> None:
    web = VCenter.guests[0]
    refused = moorline("remove", web, code=7)
    assert "--any" not in refused.stderr, "vSphere has none"
    for how in ({"any": True}, {"force": True}):
        with pytest.raises(Exception, match="not known here"):
            agent.guests.remove(web, **how)
    assert "Destroy_Task" not in lab.calls()


def test_what_a_program_asks_is_held_against_what_is_declared(agent: Client, lab: VCenter) -> None:
    for hardware, why in (
        ({}, "give either --image or --empty"),
        ({"empty": 8 << 20, "image": "/srv/disk.vmdk"}, "give either --image or --empty"),
        ({"empty": 8 << 20, "thin": True, "eager": True}, "not both"),
        ({"empty": "8M"}, "empty is no bytes"),
        ({"empty": 8 << 20, "vcpus": 2}, "not known here"),
        ({"empty": 8 << 20, "adapter": "ide"}, "adapter is no text that can be used"),
        ({"image": "disk.vmdk"}, "image is no absolute path"),
    ):
        with pytest.raises(Exception, match=why):
            agent.guests.launch("made", hardware=hardware)
    with pytest.raises(Exception, match="with a disk of their own"):
        agent.guests.launch("made", "vmdk://vvol1/a/b.vmdk", hardware={"empty": 8 << 20})
    assert lab.disks_of("made") == []
