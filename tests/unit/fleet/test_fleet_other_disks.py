"""Disks that somebody else plugged: the fleet says of none that it is none, nor gives it away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moorline.errors import NotFound, NotOurs, Refused, Unavailable
from moorline.fleet import keys
from moorline.fleet.fencing import fence
from moorline.fleet.fleet import Fleet
from moorline.fleet.record_store import Change
from moorline.fleet.records import GuestReport
from moorline.model import GuestId
from moorline.ports import Entry
from moorline.ports.inspection import GuestDisk
from moorline.testing.toy_moving import ToyMover
from tests.support.care_rig import ToyInventory, disk
from tests.support.own_volumes import own
from tests.support.toy_fleet import ToyFleet, wanted

G1 = GuestId("g1")
ID = "77777777-2222-3333-4444-5555abcdabcd"


class Inspected(ToyMover):
    """Its host tells of all disks."""

    told: ToyInventory

    def inventory(self) -> Any:
        return self.told


class InspectedFleet(ToyFleet):
    """Each host tells of all disks."""

    disks: dict[str, ToyInventory]

    def mover(self, name: str) -> ToyMover:
        mover = Inspected(self.sites[name].world, self.centre, name)
        mover.told = self.disks[name]
        return mover


@pytest.fixture
def toys() -> InspectedFleet:
    toys = InspectedFleet(["h1", "h2"], {"g1": "h1", "g2": "h2", "g3": "h1"})
    toys.disks = {name: ToyInventory() for name in toys.sites}
    toys.settle(rest=2)
    return toys


@pytest.fixture
def fleet(toys: InspectedFleet) -> Fleet:
    return Fleet(toys.person)


def plugged(toys: InspectedFleet, *disks: GuestDisk) -> None:
    """Somebody else plugs *disks* into g1."""
    toys.disks["h1"].all["g1"] = list(disks)
    toys.agent_passes("h1")


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("field", ["mark", "serial", "alias"])
def test_one_that_bears_the_id_is_told(
    toys: InspectedFleet, fleet: Fleet, field: str, dry_run: bool
) -> None:
    """A script deletes the file after a success."""
    plugged(toys, disk("/srv/d28.raw", **{field: ID}))
    for spelled in (ID, ID.upper()):
        with pytest.raises(NotOurs, match=r"has volume .* on h1 that was not plugged") as told:
            fleet.detach("g1", spelled, dry_run=dry_run)
        assert "on h1: moorline disks g1" in told.value.hint
    assert fleet.detach("g3", ID).steps == []
    assert fleet.detach("g2", ID).steps == []
    plugged(toys)
    assert fleet.detach("g1", ID).steps == []


def test_one_of_the_path_of_a_volume_of_another_guest_is_told(
    toys: InspectedFleet, fleet: Fleet
) -> None:
    toys.attach("g3", "a")
    toys.settle(rest=2)
    plugged(toys, disk("/toy/s1/a"))
    with pytest.raises(NotOurs):
        fleet.detach("g1", "a")


def test_one_by_what_identifies_its_file(toys: InspectedFleet, fleet: Fleet) -> None:
    """The volume is another host's; another one tells which share that is."""
    own(toys, guest="g3", volume="b", name="b")
    toys.attach("g2", "a")
    toys.settle(rest=2)
    plugged(toys, disk("/toy/s1/a"))
    with pytest.raises(NotOurs):
        fleet.detach("g1", "a")


def test_those_of_the_fleet_are_none_of_them(toys: InspectedFleet, fleet: Fleet) -> None:
    plugged(toys, disk("/toy/s1/a", mark="a", serial="a"))
    toys.attach("g1", "a")
    toys.settle(rest=2)
    report = toys.person.guest_report("h1", G1)
    assert report is not None
    assert (report.looked, report.others) == (True, ())
    assert fleet.detach("g1", "a", dry_run=True).steps == ["detach"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_host_that_did_not_look_is_not_taken_for_one_without_disks(
    toys: InspectedFleet, fleet: Fleet, dry_run: bool
) -> None:
    toys.disks["h1"].error = Unavailable("libvirt does not answer")
    toys.agent_passes("h1")
    with pytest.raises(NotFound, match="h1 has not told which other disks g1 has") as told:
        fleet.detach("g1", ID, dry_run=dry_run)
    assert f"on h1: moorline detach g1 {ID}" in told.value.hint


def test_nor_is_a_host_of_an_earlier_release(toys: InspectedFleet, fleet: Fleet) -> None:
    before = toys.person.guest_report("h1", G1)
    assert before is not None
    change = Change()
    old = replace(before, looked=False)
    assert b"looked" not in old.encode()
    assert b"others" not in old.encode()
    change.replace(keys.report(keys.assignment("h1", G1)), before, old)
    toys.person.commit(change)
    with pytest.raises(NotFound):
        fleet.detach("g1", ID)
    toys.attach("g1", "a")
    assert fleet.detach("g1", "a", dry_run=True).steps == ["detach"]


def test_the_report_is_read_as_it_was_written() -> None:
    report = GuestReport(looked=True, others=("a", "b"), written=("b",))
    assert GuestReport.decode(Entry("k", report.encode(), 0)) == report


@pytest.mark.parametrize("dry_run", [False, True])
def test_no_other_guest_is_given_the_file(
    toys: InspectedFleet, fleet: Fleet, dry_run: bool
) -> None:
    own(toys, guest="g3", volume="b", name="b")
    plugged(toys, disk("/toy/s1/a"))
    if dry_run:
        [why] = fleet.attach("g2", wanted("", "a", "s1"), dry_run=True).in_the_way
        assert "g1 has it on h1 as a disk that was not plugged by the fleet" in why
        return
    with pytest.raises(Refused, match="g1 has it on h1 as a disk") as told:
        fleet.attach("g2", wanted("", "a", "s1"))
    assert "on h1: moorline disks g1" in told.value.hint


@pytest.mark.parametrize("how", ["readonly", "shared", "fenced", "its own"])
def test_but_where_nobody_is_hurt(toys: InspectedFleet, fleet: Fleet, how: str) -> None:
    """What is left to the host: two readers, two that share it, a guest that has it by itself."""
    own(toys, guest="g3", volume="b", name="b")
    plugged(toys, disk("/toy/s1/a", **({how: True} if how in ("readonly", "shared") else {})))
    if how == "fenced":

        def off() -> str:
            toys.power_off("h1")
            return "it is off"

        fence(toys.person, "h1", lambda *_: True, off, "n")
    guest = "g1" if how == "its own" else "g2"
    assert fleet.attach(guest, wanted("", "a", "s1"), dry_run=True).in_the_way == []
