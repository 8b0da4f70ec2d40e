"""A host dies after a disk was taken, and before it wrote down that its guest is without it."""

from __future__ import annotations

import json

import pytest

from moorline.fleet.fencing import fence
from moorline.fleet.guest_reports import GuestReports
from moorline.model import GuestId, VolumeId
from tests.support.toy_fleet import ToyFleet

G1, A, B = GuestId("g1"), VolumeId("a"), VolumeId("b")


@pytest.fixture
def fleet() -> ToyFleet:
    """g1 is stopped on h1, and has two volumes."""
    fleet = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    fleet.settle(rest=2)
    fleet.attach("g1", "a")
    fleet.attach("g1", "b")
    fleet.settle(rest=2)
    found = fleet.sites["h1"].world.guests[G1]
    found.running = False
    found.live.clear()
    fleet.settle(rest=2)
    return fleet


def taken(fleet: ToyFleet) -> None:
    """One is detached, and its host has said so in its last pass."""
    fleet.detach("g1", "a")
    for _ in range(10):
        fleet.agent_passes("h1")
        report = fleet.person.volume_report("h1", G1, A)
        if report is not None and report.seen == "absent":
            return
    raise AssertionError("it is never gone")


def runs_elsewhere(fleet: ToyFleet) -> None:
    """g1 comes to another host, and somebody starts it: nobody else has what it opens."""
    for _ in range(20):
        for name in fleet.sites:
            fleet.agent_passes(name)
            fleet.heals(name)
            fleet.sites[name].world.tick()
        fleet.clocks["c1"] += 1.0
        fleet.controller_passes("c1")
        assert not fleet.centre.violations
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host != "h1"
    fleet.start(owner.host)
    assert not fleet.centre.violations
    there = fleet.sites[owner.host].world.guests[G1]
    assert there.running
    assert there.live.keys() == {B}


def given_away(fleet: ToyFleet) -> None:
    fleet.controller_passes("c1")
    fleet.attach("g2", "a")
    fleet.settle(rest=2)


def test_an_evacuated_guest_has_no_disk_that_was_taken_from_it(
    fleet: ToyFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent of an earlier release kept its definition in the pass after."""
    monkeypatch.setattr(GuestReports, "refresh", lambda *_: None)
    taken(fleet)
    fleet.power_off("h1")
    given_away(fleet)
    fence(fleet.person, "h1", lambda *_: True, lambda: "it is off", "n")
    runs_elsewhere(fleet)


def test_nor_has_one_that_was_undefined_by_then(fleet: ToyFleet) -> None:
    """It is made anew of what was kept, with both."""
    del fleet.sites["h1"].world.guests[G1]
    taken(fleet)
    given_away(fleet)
    fleet.change_host("h1", draining=True, cordoned=True)
    runs_elsewhere(fleet)


def test_what_is_reported_gone_is_in_no_definition(fleet: ToyFleet) -> None:
    taken(fleet)
    kept = fleet.person.definition("h1", G1)
    assert kept is not None
    assert json.loads(kept)["defined"].keys() == {B}
