"""A guest that only has the id of one of the fleet: it is told, left alone, and keeps its disks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.errors import Failed, MoorlineError, Refused
from moorline.fleet import keys
from moorline.fleet.fencing import fence
from moorline.fleet.fleet import Fleet
from moorline.fleet.record_store import Change
from moorline.fleet.records import Move, Role
from moorline.model import GuestId
from moorline.ports import Delete
from moorline.testing.toy_moving import MovableGuest
from tests.support.care_rig import ToyInventory, disk
from tests.support.toy_fleet import ToyFleet
from tests.unit.fleet.test_fleet_other_disks import InspectedFleet

G1 = GuestId("g1")


def define(fleet: ToyFleet, host: str = "h2", *, running: bool = False) -> MovableGuest:
    """Somebody defines another guest there, with the id of one of the fleet."""
    other = MovableGuest("copied", running=running)
    fleet.sites[host].world.guests[G1] = other
    return other


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2", "h3"], {"g1": "h1"})
    fleet.settle(rest=2)
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    return fleet


def begin_move(fleet: ToyFleet, host: str = "h2") -> None:
    """Begin one as an earlier release does, which does not look."""
    change = Change()
    change.replace(keys.move(G1), None, Move(guest=G1, source="h1", destination=host))
    fleet.person.commit(change)


def is_whole(fleet: ToyFleet, other: MovableGuest, *, running: bool) -> bool:
    there = fleet.sites["h2"].world.guests.get(G1)
    return there is other and other.running is running and not other.defined


@pytest.mark.parametrize("running", [False, True])
def test_a_guest_does_not_come_where_another_has_its_id(fleet: ToyFleet, running: bool) -> None:
    other = define(fleet, running=running)
    fleet.agent_passes("h2")
    with pytest.raises(Refused, match="h2 has another guest of that UUID, copied") as told:
        Fleet(fleet.person).migrate("g1", "h2")
    assert "virsh" in str(told.value)
    assert Fleet(fleet.person).migrate("g1", "h2", dry_run=True).in_the_way
    begin_move(fleet)
    fleet.settle()
    assert fleet.person.owner(G1).host == "h1"
    assert "copied" in fleet.person.owner(G1).note
    assert is_whole(fleet, other, running=running)
    begin_move(fleet, "h3")
    fleet.settle()
    assert fleet.person.owner(G1).host == "h3"
    assert is_whole(fleet, other, running=running)


@pytest.mark.parametrize("running", [False, True])
def test_one_that_was_defined_while_it_was_to_come_stays(fleet: ToyFleet, running: bool) -> None:
    begin_move(fleet)
    while fleet.person.assignment("h2", G1) is None:
        fleet.controller_passes("c1")
    other = define(fleet, running=running)
    fleet.settle()
    assert fleet.person.owner(G1).host == "h1"
    assert is_whole(fleet, other, running=running)
    assert not fleet.person.desired("h2").assignments
    assert not fleet.agent("h2").records.all()


def test_one_of_a_host_that_is_told_to_let_go_stays(fleet: ToyFleet) -> None:
    """The move was given up before that host had heard of it."""
    other = define(fleet, running=True)
    fleet.agent_passes("h2")
    before = fleet.person.assignment("h1", G1)
    change = Change()
    at = keys.assignment("h2", G1)
    change.put(at, replace(before, role=Role.GONE, peer="h1", never_here=True))
    fleet.person.commit(change)
    fleet.settle()
    assert is_whole(fleet, other, running=True)
    assert fleet.person.assignment("h2", G1) is None


@pytest.mark.parametrize("fenced_first", [True, False])
def test_what_a_host_had_and_had_not_heard_of_yet_is_stopped(
    fleet: ToyFleet, fenced_first: bool
) -> None:
    """It was registered while its host was cut off, and runs elsewhere by an untrue word."""
    g7 = GuestId("g7")
    fleet.sites["h1"].world.guests[g7] = MovableGuest("g7")
    fleet.agent_passes("h1")
    fleet.sites["h1"].line.cut = True
    fleet.controller_passes("c1")
    assert fleet.person.owner(g7).host == "h1"
    fence(fleet.person, "h1", lambda *_: True, lambda: "a word that is not true", "n")
    fleet.centre.revoked.add("h1")
    if not fenced_first:
        fleet.settle()
        assert fleet.person.owner(g7).host != "h1"
    fleet.sites["h1"].line.cut = False
    fleet.agent_passes("h1")
    there = fleet.sites["h1"].world.guests.get(g7)
    assert there is None or not there.running
    fleet.settle()
    homes = [site.name for site in fleet.sites.values() if g7 in site.world.guests]
    assert homes == [fleet.person.owner(g7).host]


def test_a_host_that_lost_its_state_stops_what_it_lost(fleet: ToyFleet) -> None:
    """Its copy is no other guest: it had told of it as the fleet's."""
    fence(fleet.person, "h1", lambda *_: True, lambda: "a word that is not true", "n")
    fleet.sites["h1"].agent = None
    local = fleet.sites["h1"].local
    for entry in local.list("/")[0]:
        local.commit([], [Delete(entry.key)])
    fleet.settle()
    assert G1 not in fleet.sites["h1"].world.guests
    assert fleet.person.owner(G1).host != "h1"


@pytest.mark.parametrize("running", [False, True])
def test_an_evacuated_guest_goes_where_no_other_has_its_id(fleet: ToyFleet, running: bool) -> None:
    """The definition that is kept is all that is left of it."""
    other = define(fleet, running=running)
    fleet.settle(rest=2)

    def proof() -> str:
        fleet.power_off("h1")
        return "off"

    fence(fleet.person, "h1", lambda *_: True, proof, "n")
    fleet.settle()
    assert fleet.person.owner(G1).host == "h3"
    assert fleet.sites["h3"].world.guests[G1].running
    assert is_whole(fleet, other, running=running)


def test_an_evacuated_guest_waits_for_the_word_of_where_it_goes(fleet: ToyFleet) -> None:
    """It has no volume that is not ready yet, and what is there was defined since its last word."""
    fleet.detach("g1", "a")
    fleet.settle(rest=2)
    fleet.change_host("h3", cordoned=True)

    def proof() -> str:
        fleet.power_off("h1")
        return "off"

    fence(fleet.person, "h1", lambda *_: True, proof, "n")
    other = define(fleet)
    for _ in range(4):
        fleet.controller_passes("c1")
    assert fleet.person.owner(G1).host == "h1"
    fleet.settle()
    assert fleet.person.definition("h1", G1)
    fleet.change_host("h3", cordoned=False)
    fleet.settle()
    assert fleet.sites["h3"].world.guests[G1].running
    assert is_whole(fleet, other, running=False)


def test_people_are_told(fleet: ToyFleet) -> None:
    define(fleet)
    fleet.settle(rest=2)
    orders = Fleet(fleet.person)
    (view,) = orders.guests()
    assert "h2 has another guest of that UUID, copied" in view.note
    row = orders.explain("g1")[0]
    assert "h2 has another guest of that UUID, copied" in row.waits_for
    assert [e.host for e in orders.events() if e.step == "dispute" and "copied" in e.message] == [
        "h2"
    ]
    assert any("another host" in text for text in fleet.sites["h2"].loud)
    told = list(fleet.sites["h2"].loud)
    fleet.settle(rest=2)
    assert fleet.sites["h2"].loud == told, "once"
    del fleet.sites["h2"].world.guests[G1]
    fleet.settle(rest=2)
    assert "copied" not in orders.guests()[0].note
    assert not fleet.person.host("h2").same_ids


def test_its_other_name_is_nobody_of_the_fleet(fleet: ToyFleet) -> None:
    define(fleet)
    fleet.settle(rest=2)
    with pytest.raises(Refused, match="copied on h2 is none of the fleet: g1 on h1 has that UUID"):
        Fleet(fleet.person).detach("copied", "a")


@pytest.mark.parametrize("ours", [False, True])
def test_it_does_not_start(fleet: ToyFleet, ours: bool) -> None:
    """By its id it is the guest that runs elsewhere: a copy of that would run twice."""
    define(fleet)
    fleet.settle(rest=2)
    guard = fleet.agent("h2").guard
    for ask in (
        lambda: guard.permit(G1, ours=ours, arriving=False),
        lambda: guard.demand(G1),
    ):
        error = fleet.survive(ask)
        assert isinstance(error, Refused)
        assert not isinstance(error, Failed)
        assert "another host" in str(error)
    assert fleet.agent("h1").guard.permit(G1, ours=ours, arriving=False) is None


def test_its_disks_are_given_to_nobody(fleet: ToyFleet) -> None:
    toys = InspectedFleet(["h1", "h2"], {"g1": "h1", "g2": "h2"})
    toys.disks = {name: ToyInventory() for name in toys.sites}
    toys.settle(rest=2)
    toys.attach("g2", "b")
    toys.settle(rest=2)
    define(toys)
    toys.disks["h2"].all["g1"] = [disk("/toy/s1/a")]
    toys.settle(rest=2)
    error: MoorlineError | None = toys.survive(lambda: toys.attach("g1", "a"))
    assert isinstance(error, Refused)
    assert "copied has it on h2" in str(error)
