"""Who gets a volume, when several ask, when replies are lost, and while guests move."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.errors import Busy, NotFound, Refused
from moorline.fleet import keys
from moorline.fleet.ownership import Ownership
from moorline.fleet.record_store import MAX_VOLUMES_PER_GUEST, Change
from moorline.fleet.records import Move, VolumeOwner
from moorline.model import Attachment, GuestId, Level, VolumeId
from moorline.secret import Secret
from moorline.testing.faults import Fault
from tests.support.toy_fleet import ToyFleet, wanted

G1, G2, A = GuestId("g1"), GuestId("g2"), VolumeId("a")


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    fleet.settle()
    return fleet


def test_two_ask_for_one_volume_and_the_other_is_told_who_has_it(fleet: ToyFleet) -> None:
    fleet.attach("g1", "a")
    with pytest.raises(Refused, match="g1 on h1 has it") as told:
        fleet.attach("g2", "a")
    assert told.value.hint == "moorline fleet detach g1 a"
    fleet.settle()
    assert not fleet.person.desired("h2").attachments


@pytest.mark.parametrize("place", ["toy/s1/a", ""])
def test_two_ask_in_the_same_moment(fleet: ToyFleet, place: str) -> None:
    """The second one looks and decides before the first one commits, and commits after it.

    *place*: which storage it is, if that is known: that alone tells them apart, too.
    """
    ownership = Ownership(fleet.person)
    one, two = ownership.find("g1"), ownership.find("g2")
    fleet.faults.plan()
    first = replace(wanted("g1", "a", "s1"), place=place)
    fleet.faults.meanwhile = lambda: ownership.attach(one, first)
    with pytest.raises(Refused, match="g1 on h1 has it"):
        ownership.attach(two, replace(wanted("g2", "a", "s1"), place=place))
    owner = fleet.person.volume_owner(A)
    assert owner is not None
    assert owner.guests == (G1,)


def test_the_same_storage_under_another_id_is_refused(fleet: ToyFleet) -> None:
    fleet.attach("g1", "a")
    ownership = Ownership(fleet.person)
    other = wanted("g2", "a", "s1")
    other = replace(other, key=other.key._replace(volume=VolumeId("b")))
    with pytest.raises(Refused, match="the same storage is volume a"):
        ownership.attach(ownership.find("g2"), other)


def spelled(guest: str, volume: str, *places: str) -> Attachment:
    """The storage is *places*: one of them is its place, and the others are its other spellings."""
    return replace(wanted(guest, volume, "s1"), place=places[0], aliases=places[1:])


SPELLINGS = [
    (["reg1/a", "reg2/a"], ["reg2/a"]),
    (["reg2/a"], ["reg1/a", "reg2/a"]),
    (["reg1/a", "reg2/a"], ["reg2/a", "reg3/a"]),
    (["reg3/a", "reg2/a"], ["reg1/a", "reg2/a"]),
]


@pytest.mark.parametrize(("one", "another"), SPELLINGS)
def test_another_spelling_of_the_same_storage_is_refused(
    fleet: ToyFleet, one: list[str], another: list[str]
) -> None:
    ownership = Ownership(fleet.person)
    ownership.attach(ownership.find("g1"), spelled("g1", "a", *one))
    with pytest.raises(Refused, match="the same storage is volume a"):
        ownership.attach(ownership.find("g2"), spelled("g2", "b", *another))
    assert "the same storage is volume a" in str(
        ownership.in_the_way(ownership.find("g2"), spelled("g2", "b", *another))
    )
    fleet.detach("g1", "a")
    fleet.settle()
    assert not fleet.store.list(f"{keys.ROOT}owners/places/")[0]
    ownership.attach(ownership.find("g2"), spelled("g2", "b", *another))


@pytest.mark.parametrize(("one", "another"), SPELLINGS)
def test_two_spell_one_storage_in_the_same_moment(
    fleet: ToyFleet, one: list[str], another: list[str]
) -> None:
    ownership = Ownership(fleet.person)
    first, second = ownership.find("g1"), ownership.find("g2")
    fleet.faults.plan()
    fleet.faults.meanwhile = lambda: ownership.attach(first, spelled("g1", "a", *one))
    with pytest.raises(Refused, match="the same storage is volume a"):
        ownership.attach(second, spelled("g2", "b", *another))
    assert fleet.person.volume_owner(VolumeId("b")) is None


def test_what_it_was_attached_as_before_stays_its_own(fleet: ToyFleet) -> None:
    """The guest may have that open still."""
    ownership = Ownership(fleet.person)
    ownership.attach(ownership.find("g1"), spelled("g1", "a", "old/a"))
    other = spelled("g1", "a", "new/a")
    data = {**other.connection.reveal(), "more": 1}
    ownership.attach(ownership.find("g1"), replace(other, connection=Secret(data)))
    for place in ("old/a", "new/a"):
        with pytest.raises(Refused, match="the same storage is volume a"):
            ownership.attach(ownership.find("g2"), spelled("g2", "b", place))
    fleet.detach("g1", "a")
    fleet.settle()
    assert not fleet.store.list(f"{keys.ROOT}owners/places/")[0]


def test_an_owner_of_an_earlier_version_has_one_place(fleet: ToyFleet) -> None:
    earlier = VolumeOwner(guests=(G1,), place="reg1/a")
    assert b"aliases" not in earlier.encode()
    assert earlier.places == {"reg1/a"}
    ownership = Ownership(fleet.person)
    ownership.attach(ownership.find("g1"), spelled("g1", "a", "reg1/a"))
    with pytest.raises(Refused, match="the same storage is volume a"):
        ownership.attach(ownership.find("g2"), spelled("g2", "b", "reg2/a", "reg1/a"))


def test_more_spellings_than_one_commit_has_room_for(fleet: ToyFleet) -> None:
    ownership = Ownership(fleet.person)
    with pytest.raises(Refused, match="in more than 90 ways"):
        ownership.attach(
            ownership.find("g1"), spelled("g1", "a", *(f"reg{n}/a" for n in range(91)))
        )
    most = spelled("g1", "a", *(f"reg{n}/a" for n in range(90)))
    ownership.attach(ownership.find("g1"), most)  # the store of the rig takes 100 operations


def test_shared_by_both_is_shared_and_not_by_one(fleet: ToyFleet) -> None:
    ownership = Ownership(fleet.person)
    for guest in ("g1", "g2"):
        ownership.attach(ownership.find(guest), wanted(guest, "a", "s1", shared=True))
    owner = fleet.person.volume_owner(A)
    assert owner is not None
    assert owner.guests == ("g1", "g2")
    ownership.detach(G1, A)
    fleet.settle()
    owner = fleet.person.volume_owner(A)
    assert owner is not None
    assert owner.guests == ("g2",)
    with pytest.raises(Refused, match="g2 on h2 has it"):
        ownership.attach(ownership.find("g1"), wanted("g1", "a", "s1"))


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.UNDONE])
def test_a_lost_reply_is_looked_at_and_repeated(fleet: ToyFleet, fault: Fault) -> None:
    fleet.faults.plan((0, fault))
    fleet.attach("g1", "a")
    assert fleet.faults.struck == 1
    owner = fleet.person.volume_owner(A)
    assert owner is not None
    assert owner.guests == ("g1",)
    fleet.faults.plan((0, fault))
    fleet.detach("g1", "a")
    row = fleet.person.attachment("h1", G1, A)
    assert row is not None
    assert row.want is Level.ABSENT


def test_a_volume_is_free_when_its_host_says_that_it_is_gone(fleet: ToyFleet) -> None:
    fleet.attach("g1", "a")
    fleet.settle()
    fleet.detach("g1", "a")
    fleet.controller_passes("c1")  # h1 has not said anything yet
    with pytest.raises(Refused, match="g1 on h1 has it"):
        fleet.attach("g2", "a")
    fleet.settle()
    fleet.attach("g2", "a")
    assert fleet.person.volume_owner(A) is not None


def test_what_is_on_its_way_out_can_be_wanted_again(fleet: ToyFleet) -> None:
    fleet.attach("g1", "a")
    fleet.settle()
    fleet.detach("g1", "a")
    fleet.agent_passes("h1")
    fleet.attach("g1", "a")
    fleet.settle()
    assert A in fleet.sites["h1"].world.guests[G1].live
    assert fleet.person.volume_owner(A) is not None


def test_a_repeated_attach_writes_nothing_and_other_options_are_refused(fleet: ToyFleet) -> None:
    before = fleet.attach("g1", "a")
    assert fleet.attach("g1", "a").revision == before.revision
    ownership = Ownership(fleet.person)
    with pytest.raises(Refused, match="other options: shared is off, not on"):
        ownership.attach(ownership.find("g1"), wanted("g1", "a", "s1", shared=True))


def test_a_guest_that_moves_is_left_alone(fleet: ToyFleet) -> None:
    fleet.attach("g1", "b")
    fleet.settle()
    change = Change()
    change.put(keys.move(G1), Move(guest=G1, source="h1", destination="h2"))
    fleet.person.commit(change)
    with pytest.raises(Busy, match="on its way"):
        fleet.attach("g1", "a")
    with pytest.raises(Busy, match="on its way"):
        fleet.detach("g1", "b")


def test_as_many_as_can_move_at_once(fleet: ToyFleet) -> None:
    ownership = Ownership(fleet.person)
    home = ownership.find("g1")
    for n in range(MAX_VOLUMES_PER_GUEST):
        ownership.attach(home, wanted("g1", f"v{n}", "s1"))
    with pytest.raises(Refused, match=f"has {MAX_VOLUMES_PER_GUEST} volumes"):
        ownership.attach(home, wanted("g1", "one-more", "s1"))
    fleet.settle()
    change = Change()
    change.put(keys.move(G1), Move(guest=G1, source="h1", destination="h3"))
    fleet.person.commit(change)  # the store of the rig takes 100 operations and no more
    fleet.settle()
    assert len(fleet.sites["h3"].world.guests[G1].live) == MAX_VOLUMES_PER_GUEST


def test_a_guest_that_nobody_has_registered_is_found_where_it_is() -> None:
    fleet = ToyFleet(["h1", "h2"], {"g1": "h1"})
    with pytest.raises(NotFound, match="no host of the fleet has a guest g1"):
        fleet.attach("g1", "a")
    fleet.agent_passes("h1")
    fleet.attach("g1", "a")
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host == "h1"
    with pytest.raises(NotFound):
        fleet.attach("g7", "a")
