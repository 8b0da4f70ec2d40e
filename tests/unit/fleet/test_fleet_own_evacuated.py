"""A guest with a volume that its host has by itself goes nowhere, also once that host is dead."""

from __future__ import annotations

import pytest

from moorline.errors import Failed, Refused
from moorline.fleet import keys
from moorline.fleet.explaining import Explainer
from moorline.fleet.fencing import fence
from moorline.fleet.fleet import Fleet
from moorline.fleet.queries import Queries
from moorline.fleet.record_store import Change
from moorline.fleet.records import Move
from moorline.model import GuestId, VolumeId
from tests.support.own_volumes import own
from tests.support.toy_fleet import ToyFleet, wanted

G1, G2, A = GuestId("g1"), GuestId("g2"), VolumeId("a")


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    fleet.settle(rest=2)
    return fleet


def dies(fleet: ToyFleet) -> None:
    """h1, as a person says."""

    def off() -> str:
        fleet.power_off("h1")
        return "it is off"

    fence(fleet.person, "h1", lambda *_: True, off, "n")


def settles_without_h1(fleet: ToyFleet) -> None:
    for _ in range(12):
        for name in ("h2", "h3"):
            fleet.agent_passes(name)
            fleet.heals(name)
            fleet.sites[name].world.tick()
        fleet.controller_passes("c1")


def test_a_guest_of_a_dead_host_does_not_start_elsewhere_with_it(fleet: ToyFleet) -> None:
    """It is nobody's by the fleet's word, and in what defines the guest."""
    fleet.attach("g1", "b")
    own(fleet)
    fleet.settle(rest=2)
    dies(fleet)
    fleet.sites["h2"].world.mounts["/toy/s1"] = "s1"  # it opens there as well
    settles_without_h1(fleet)
    assert fleet.person.owners()[G1].host == "h1"
    why = "volume a is its host's own: moorline fleet attach makes it the fleet's"
    (told,) = [each for each in Queries(fleet.person).guests() if each.guest_id == G1]
    assert told.note == why
    assert why in Explainer(fleet.person).explain("g1")[0].waits_for
    told_before = Fleet(fleet.person).evacuate("h1", str, by="n", dry_run=True)
    assert told_before.in_the_way == [f"g1: {why}"]
    with pytest.raises(Failed, match="g1: " + why):
        Fleet(fleet.person).evacuate("h1", str, by="n", timeout=0.0)
    fleet.attach("g2", "a")
    settles_without_h1(fleet)
    assert fleet.person.owners()[G1].host == "h1"
    assert not fleet.centre.violations


def test_it_goes_once_that_is_the_fleets(fleet: ToyFleet) -> None:
    own(fleet)
    fleet.settle(rest=2)
    dies(fleet)
    settles_without_h1(fleet)

    def goes(_: str) -> None:
        settles_without_h1(fleet)

    Fleet(fleet.person).attach("g1", wanted("g1", "a", "s1"), timeout=0.0, progress=goes)
    assert fleet.person.owners()[G1].host == "h3"
    assert fleet.sites["h3"].world.guests[G1].live == {A: "/toy/s1/a"}
    with pytest.raises(Refused, match="g1 on h3 has it"):
        fleet.attach("g2", "a")
    assert "dispute" not in [each.step for each in fleet.person.decisions().values()]
    fleet.detach("g1", "a")
    settles_without_h1(fleet)
    fleet.attach("g2", "a")
    settles_without_h1(fleet)
    assert fleet.sites["h2"].world.guests[G2].live == {A: "/toy/s1/a"}
    fleet.power_on("h1")
    fleet.settle()
    fleet.check({("g2", "a"): "s1"})


def test_or_without_it_where_somebody_else_was_given_it(fleet: ToyFleet) -> None:
    own(fleet)
    fleet.settle(rest=2)
    dies(fleet)
    fleet.attach("g2", "a")
    settles_without_h1(fleet)
    fleet.detach("g2", "a")
    settles_without_h1(fleet)
    fleet.attach("g1", "a")
    fleet.detach("g1", "a")
    settles_without_h1(fleet)
    assert fleet.person.owners()[G1].host == "h3"
    assert fleet.sites["h3"].world.guests[G1].running
    assert not fleet.sites["h3"].world.guests[G1].live
    fleet.attach("g2", "a")
    settles_without_h1(fleet)
    fleet.power_on("h1")
    fleet.settle()
    fleet.check({("g2", "a"): "s1"})


@pytest.mark.parametrize("dead", [False, True])
def test_a_move_that_has_begun_ends_where_its_host_has_one_by_itself_by_then(
    fleet: ToyFleet, dead: bool
) -> None:
    fleet.attach("g1", "b")
    fleet.settle(rest=2)
    change = Change()
    change.put(keys.move(G1), Move(guest=G1, source="h1", destination="h3"))
    fleet.person.commit(change)
    fleet.controller_passes("c1")
    own(fleet)
    fleet.agent_passes("h1")
    if dead:
        dies(fleet)
        settles_without_h1(fleet)
    else:
        fleet.settle(rest=2)
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host == "h1"
    assert "volume a is its host's own" in owner.note
    if dead:
        assert "volume a is its host's own" in Explainer(fleet.person).explain("g1")[0].waits_for
    assert not fleet.person.moves()
    assert G1 not in fleet.sites["h3"].world.guests
