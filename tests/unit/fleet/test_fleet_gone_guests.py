"""Guests that somebody removed, and hosts that left: the fleet says so, and makes none anew."""

from __future__ import annotations

import pytest

from moorline.errors import Failed, NotFound, Refused
from moorline.fleet import keys
from moorline.fleet.fleet import Fleet
from moorline.fleet.host_choice import choose
from moorline.fleet.leaving import farewell
from moorline.fleet.record_store import Change
from moorline.fleet.records import HostRecord
from moorline.model import GuestId
from moorline.testing.toy_moving import MovableGuest
from tests.support.own_volumes import own
from tests.support.toy_fleet import ToyFleet

G1, G2 = GuestId("g1"), GuestId("g2")


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2"], {"g1": "h1", "g2": "h1"})
    fleet.settle(rest=2)
    return fleet


def remove(fleet: ToyFleet, guest: GuestId = G1) -> None:
    """As `moorline remove`, and a launch that was refused, do it."""
    del fleet.sites["h1"].world.guests[guest]
    fleet.agent("h1").guard.removed(guest)


def test_a_guest_that_was_removed_is_none_of_the_fleet(fleet: ToyFleet) -> None:
    remove(fleet)
    fleet.settle(rest=2)
    orders = Fleet(fleet.person)
    assert [view.guest for view in orders.guests()] == ["g2"]
    assert not fleet.person.definition("h1", G1)
    fleet.change_host("h1", draining=True, cordoned=True)
    fleet.settle()
    assert set(fleet.sites["h2"].world.guests) == {G2}, "it is made anew nowhere"
    assert [e.guest for e in orders.events() if e.step == "removed"] == ["g1"]


def test_one_that_was_reported_and_not_registered_yet(fleet: ToyFleet) -> None:
    """A launch that is refused is registered as soon as its guest was seen, or after that."""
    for registered_first in (True, False):
        fleet.sites["h1"].world.guests[G1] = MovableGuest("g1", running=False)
        fleet.agent_passes("h1")
        if registered_first:
            fleet.controller_passes("c1")
        remove(fleet)
        if not registered_first:
            fleet.controller_passes("c1")
        fleet.settle(rest=2)
        assert [view.guest for view in Fleet(fleet.person).guests()] == ["g2"]


def test_one_that_has_a_volume_of_the_fleet_stays(fleet: ToyFleet) -> None:
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    remove(fleet)
    fleet.settle(rest=2)
    assert fleet.person.owner(G1)
    assert fleet.person.volume_owner("a").guests == (G1,)
    fleet.detach("g1", "a")
    fleet.settle()
    assert not fleet.person.owner(G1)


def test_one_that_is_there_again_stays(fleet: ToyFleet) -> None:
    again = fleet.sites["h1"].world.guests[G1]
    remove(fleet)
    fleet.sites["h1"].world.guests[G1] = again
    fleet.settle(rest=2)
    del fleet.sites["h1"].world.guests[G1]  # by virsh: its definition is kept
    fleet.settle(rest=2)
    assert fleet.person.owner(G1)
    assert fleet.person.definition("h1", G1)


def test_a_derived_id_finds_its_volume(fleet: ToyFleet) -> None:
    place = fleet.attach("g1", "a").place
    own(fleet, guest="g2", volume="b", name="b")
    fleet.settle(rest=2)
    orders = Fleet(fleet.person)
    assert place != "a"
    for spelled in ("a", place, place.upper()):
        assert [view.volume for view in orders.show(spelled)] == ["a"]
        assert [row.volume for row in orders.explain(spelled)] == ["a"]
        orders.events(volume=spelled)
    (report,) = [r for _, _, v, r in fleet.person.reported() if v == "b"]
    assert {view.volume for at in report.places for view in orders.show(at)} == {"b"}
    with pytest.raises(NotFound):
        orders.show("77777777-2222-3333-4444-5555abcdabcd")


def test_nobody_says_that_a_host_which_was_never_heard_has_no_guests(fleet: ToyFleet) -> None:
    change = Change()
    change.put(keys.host("h9"), HostRecord())
    fleet.person.commit(change)
    orders = Fleet(fleet.person)
    for dry_run in (False, True):
        with pytest.raises(NotFound, match="nobody knows which guests it has"):
            orders.drain("h9", dry_run=dry_run)
    assert not fleet.person.host("h9").cordoned
    orders.cordon("h9")


def test_a_host_with_guests_that_are_not_registered_is_not_empty(fleet: ToyFleet) -> None:
    for _ in range(2):
        fleet.sites["h2"].world.guests[GuestId("g7")] = MovableGuest("new")
        fleet.agent_passes("h2")
    with pytest.raises(Failed, match=r"new \(not registered by a controller yet\) are on h2 still"):
        Fleet(fleet.person).drain("h2", timeout=0)


def test_a_host_that_left_is_shown_as_such_and_not_counted(fleet: ToyFleet) -> None:
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    farewell(fleet.person, "h1")
    orders = Fleet(fleet.person)
    (h1, h2) = orders.hosts()
    assert (h1.left, h1.guests, h1.volumes) == (True, [], 0)
    assert not h2.left
    assert {"h1 left the fleet" in view.note for view in orders.guests()} == {True}
    assert "h1 left the fleet" in orders.show("a")[0].message
    with pytest.raises(Failed, match="h1 left the fleet"):
        orders.drain("h1", timeout=0)
    orders.uncordon("h1")
    with pytest.raises(Refused):  # somebody writes there still
        fleet.attach("g2", "a")
    fleet.sites["h2"].world.guests[GuestId("g3")] = MovableGuest("g3")
    fleet.agent_passes("h2")
    fleet.controller_passes("c1")
    with pytest.raises(Refused, match="h1 left the fleet"):
        orders.migrate("g3", "h1")
    assert choose(GuestId("g3"), "h2", fleet.controller("c1")[0].look()) is None
    fleet.settle(rest=2)
    assert not orders.hosts()[0].left, "it joined again"
