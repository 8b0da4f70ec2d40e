"""A guest that writes to another file than its volume's: to a copy, or a snapshot."""

from __future__ import annotations

import pytest

from moorline.errors import Refused
from moorline.fleet import keys
from moorline.fleet.fencing import fence
from moorline.fleet.fleet import Fleet
from moorline.fleet.ownership import Ownership
from moorline.fleet.record_store import Change
from moorline.fleet.records import Move
from moorline.model import GuestId, VolumeId
from tests.support.toy_fleet import ToyFleet, wanted

G1, A = GuestId("g1"), VolumeId("a")


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    fleet.settle(rest=2)
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    return fleet


def copied(fleet: ToyFleet, to: str = "copy", host: str = "h1") -> None:
    """Somebody copies the disk to another file of the share, and has the guest go on there."""
    guest = fleet.sites[host].world.guests[G1]
    for half in (guest.live, guest.defined):
        half[A] = f"/toy/s1/{to}"


def test_the_copy_is_no_other_guests_as_soon_as_it_is_reported(fleet: ToyFleet) -> None:
    """No controller runs."""
    copied(fleet)
    fleet.agent_passes("h1")
    with pytest.raises(Refused, match="is the disk of volume a of g1 on h1"):
        fleet.attach("g2", "copy")
    ownership = Ownership(fleet.person)
    there = ownership.in_the_way(ownership.find("g2"), wanted("g2", "copy", "s1"))
    assert "is the disk of volume a of g1 on h1" in str(there)
    fleet.attach("g2", "other")


def test_the_volume_owns_both_also_where_its_host_says_nothing_any_more(fleet: ToyFleet) -> None:
    copied(fleet)
    fleet.settle(rest=2)
    change = Change()
    change.delete(keys.report(keys.attachment("h1", G1, A)))
    fleet.person.commit(change)
    with pytest.raises(Refused, match="the same storage is volume a already"):
        fleet.attach("g2", "copy")


def test_what_cannot_be_seen_is_as_it_was_reported(fleet: ToyFleet) -> None:
    copied(fleet)
    fleet.agent_passes("h1")
    fleet.sites["h1"].world.blind = True
    fleet.agent_passes("h1")
    fleet.sites["h1"].world.blind = False
    with pytest.raises(Refused, match="is the disk of volume a of g1 on h1"):
        fleet.attach("g2", "copy")


def test_after_a_move_too(fleet: ToyFleet) -> None:
    copied(fleet)
    fleet.settle(rest=2)
    change = Change()
    change.put(keys.move(G1), Move(guest=G1, source="h1", destination="h3"))
    fleet.person.commit(change)
    for _ in range(12):
        fleet.settle(rest=1)
        with pytest.raises(Refused, match="the same storage is"):
            fleet.attach("g2", "copy")


def test_it_is_copied_back_and_detached_and_all_is_free(fleet: ToyFleet) -> None:
    copied(fleet)
    fleet.settle(rest=2)
    copied(fleet, to="a")
    fleet.settle(rest=2)
    fleet.detach("g1", "a")
    fleet.settle()
    assert not fleet.store.list(f"{keys.ROOT}owners/")[0] or not fleet.person.volumes()
    assert not fleet.store.list(f"{keys.ROOT}owners/places/")[0]
    fleet.attach("g2", "copy")


def test_an_evacuated_guest_starts_with_the_file_that_it_had(fleet: ToyFleet) -> None:
    """What it wrote last is there alone; nobody is asked to start it by hand."""
    copied(fleet)
    fleet.settle(rest=2)

    def proof() -> str:
        fleet.power_off("h1")
        return "off"

    fence(fleet.person, "h1", lambda *_: True, proof, "n")
    fleet.settle()
    home = fleet.person.owner(G1).host
    there = fleet.sites[home].world.guests[G1]
    assert home != "h1"
    assert there.live == {A: "/toy/s1/copy"}
    assert not fleet.centre.violations
    report = fleet.person.volume_report(home, G1, A)
    assert report.seen == "", "it is told of all the same"
    assert report.message


def test_a_guest_that_does_not_start_says_for_what_it_waits(fleet: ToyFleet) -> None:
    """The share cannot be mounted where it goes."""
    copied(fleet, to="copy")
    fleet.settle(rest=2)
    for name in ("h2", "h3"):
        fleet.sites[name].world.guests.clear()
    there = fleet.sites["h1"].world.guests[G1]
    for half in (there.live, there.defined):
        half[A] = "/srv/of-nobody/a"
    fleet.settle(rest=2)

    def proof() -> str:
        fleet.power_off("h1")
        return "off"

    fence(fleet.person, "h1", lambda *_: True, proof, "n")
    fleet.settle()
    (view,) = [each for each in Fleet(fleet.person).guests() if each.guest == "g1"]
    assert view.seen == "stopped"
    assert "it does not start yet: volume a is not as wanted: " in view.note
