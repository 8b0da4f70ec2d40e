"""A move that a person gives up: the answer is what came of it."""

from __future__ import annotations

import pytest

from moorline.errors import Busy, Failed, Refused
from moorline.fleet.records import Role
from moorline.model import GuestId
from tests.support.toy_fleet import ToyFleet, wanted
from tests.unit.fleet.test_fleet_operations import Person

G1 = GuestId("g1")


@pytest.fixture
def person() -> Person:
    toys = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    toys.settle()
    return Person(toys)


def test_a_move_can_be_given_up_before_it_goes(person: Person) -> None:
    fleet = person.fleet()
    person.toys.sites["h3"].world.hung.add("s1")
    fleet.attach("g1", wanted("", "a", "s1"))
    with pytest.raises(Failed, match="on its way"):
        fleet.migrate("g1", "h3", timeout=3.0)
    with pytest.raises(Busy, match="on its way to h3"):
        fleet.migrate("g1", "h2")
    before = person.toys.store.list("/moorline/moves/")[0]
    assert fleet.give_up("g1", dry_run=True).steps == ["give up"]
    assert person.toys.store.list("/moorline/moves/")[0] == before
    told = fleet.give_up("g1")
    assert (told.steps, told.guest, told.host) == (["give up"], "g1", "h1")
    assert not person.toys.person.moves(), "it is settled"
    told = fleet.give_up("g1")
    assert (told.steps, told.host) == ([], "h1")
    person.toys.sites["h3"].world.hung.clear()
    person.toys.settle()
    assert fleet.migrate("g1", "h2").host == "h2"


def test_who_gives_a_move_up_is_told_that_it_has_gone(person: Person) -> None:
    """It was written down that it shall stay, and the guest is elsewhere all the same."""
    fleet, working = person.fleet(), person.working
    with pytest.raises(Failed):
        fleet.migrate("g1", "h3", timeout=0.0)
    while (here := person.toys.person.assignment("h1", G1)) and here.role is not Role.LEAVING:
        person.sleep(1.0)
    person.working = False
    with pytest.raises(Failed, match="not settled yet whether g1 stays on h1"):
        fleet.give_up("g1", timeout=1.0)
    person.working = working
    with pytest.raises(Refused, match="g1 had gone already: it is on h3") as told:
        fleet.give_up("g1")
    assert "moorline fleet migrate g1 h1" in told.value.hint
    assert told.value.guest == "g1"
    assert person.toys.sites["h3"].world.guests[G1].running
    told_later = fleet.give_up("g1")
    assert (told_later.steps, told_later.host) == ([], "h3")


def test_a_guest_of_a_drained_host_does_not_stay(person: Person) -> None:
    fleet = person.fleet()
    person.toys.sites["h2"].world.hung.add("s1")
    person.toys.sites["h3"].world.hung.add("s1")
    fleet.attach("g1", wanted("", "a", "s1"))
    with pytest.raises(Failed):
        fleet.drain("h1", timeout=3.0)
    with pytest.raises(Refused, match="h1 is drained") as told:
        fleet.give_up("g1")
    assert told.value.hint == "moorline fleet uncordon h1"
    fleet.uncordon("h1")
    if person.toys.person.moves():
        assert fleet.give_up("g1").host == "h1"
    assert fleet.give_up("g1").steps == []
