"""What a host has without the fleet: from before it was one of it, or by a person's word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.errors import Conflict, Refused
from moorline.fleet import keys
from moorline.fleet.explaining import Explainer
from moorline.fleet.fencing import fence
from moorline.fleet.host_choice import why_it_stays
from moorline.fleet.ownership import Ownership
from moorline.fleet.record_store import Change
from moorline.model import Attachment, GuestId, Key, Level, LinkName, VolumeId
from tests.support.own_volumes import own
from tests.support.toy_fleet import ToyFleet, wanted

G1, G2, A, B = GuestId("g1"), GuestId("g2"), VolumeId("a"), VolumeId("b")


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    fleet.settle(rest=2)
    return fleet


def let_go(fleet: ToyFleet, row: Attachment) -> None:
    """The host detaches it."""
    records = fleet.agent(row.key.host).records
    now = records.get(row.key)
    assert now is not None
    records.put(replace(now, want=Level.ABSENT))
    fleet.settle(rest=2)
    assert records.get(row.key) is None


def attach_as(fleet: ToyFleet, guest: str, volume: str, name: str) -> None:
    """A person attaches the file *name* as *volume*."""
    ownership = Ownership(fleet.person)
    row = wanted(guest, name, "s1")
    row = replace(row, key=row.key._replace(volume=VolumeId(volume)))
    ownership.attach(ownership.find(guest), row)


def test_no_other_guest_is_given_it_as_soon_as_it_is_reported(fleet: ToyFleet) -> None:
    """No controller runs."""
    own(fleet)
    fleet.agent_passes("h1")
    with pytest.raises(Refused, match="h1 has it by itself, for g1") as told:
        fleet.attach("g2", "a")
    assert told.value.hint == "on h1: moorline detach g1 a"


def test_nor_under_another_id(fleet: ToyFleet) -> None:
    own(fleet, volume="mine")
    fleet.agent_passes("h1")
    with pytest.raises(Refused, match="the same storage is the disk of volume mine of g1 on h1"):
        fleet.attach("g2", "a")


def test_nor_the_file_that_it_was_brought_to(fleet: ToyFleet) -> None:
    own(fleet)
    guest = fleet.sites["h1"].world.guests[G1]
    for half in (guest.live, guest.defined):
        half[A] = "/toy/s1/copy"
    fleet.agent_passes("h1")
    with pytest.raises(Refused, match="the same storage is the disk of volume a of g1 on h1"):
        fleet.attach("g2", "copy")


def test_what_cannot_be_seen_is_as_it_was_reported(fleet: ToyFleet) -> None:
    test_nor_the_file_that_it_was_brought_to(fleet)
    fleet.sites["h1"].world.blind = True
    fleet.agent_passes("h1")
    fleet.sites["h1"].world.blind = False
    for name in ("copy", "a"):
        with pytest.raises(Refused):
            attach_as(fleet, "g2", "other", name)


def test_it_is_detached_there_and_is_free(fleet: ToyFleet) -> None:
    row = own(fleet)
    fleet.settle(rest=2)
    let_go(fleet, row)
    assert not fleet.person.volumes()
    assert not fleet.store.list(f"{keys.ROOT}owners/places/")[0]
    fleet.attach("g2", "a")


def test_what_was_released_is_its_guests_still(fleet: ToyFleet) -> None:
    row = own(fleet)
    fleet.agent_passes("h1")
    records = fleet.agent("h1").records
    records.release(row, "/toy/s1/a")
    fleet.agent_passes("h1")
    with pytest.raises(Refused, match="h1 has it by itself"):
        fleet.attach("g2", "a")
    guest = fleet.sites["h1"].world.guests[G1]
    guest.live.clear()
    guest.defined.clear()
    fleet.settle(rest=2)
    fleet.attach("g2", "a")


def test_so_is_the_file_that_it_was_brought_to_since(fleet: ToyFleet) -> None:
    """By a pivot or a snapshot. Another volume tells which share that is."""
    row = own(fleet)
    own(fleet, volume="b", name="b")
    fleet.agent("h1").records.release(row, "/toy/s1/a")
    guest = fleet.sites["h1"].world.guests[G1]
    for half in (guest.live, guest.defined):
        half[A] = "/toy/s1/copy"
    fleet.agent_passes("h1")
    for name in ("copy", "a"):
        with pytest.raises(Refused, match=r"on h1, as .*virsh detach-disk g1"):
            attach_as(fleet, "g2", "other", name)


def test_its_own_guest_is_given_it_by_the_fleet(fleet: ToyFleet) -> None:
    own(fleet)
    fleet.settle(rest=2)
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    fleet.check({("g1", "a"): "s1"})
    fleet.detach("g1", "a")
    fleet.settle(rest=2)
    fleet.check({})


def test_what_is_shared_is_shared_with_the_fleet(fleet: ToyFleet) -> None:
    own(fleet, shared=True)
    fleet.settle(rest=2)
    ownership = Ownership(fleet.person)
    ownership.attach(ownership.find("g2"), wanted("g2", "a", "s1", shared=True))
    with pytest.raises(Refused):
        fleet.attach("g2", "a")


def owned(fleet: ToyFleet, volume: VolumeId = A) -> tuple[GuestId, ...]:
    owner = fleet.person.volume_owner(volume)
    return owner.guests if owner else ()


def test_a_controller_has_it_owned_with_every_spelling(fleet: ToyFleet) -> None:
    """So who attaches it in the same moment is refused, whatever he looked at before."""
    row = own(fleet)
    fleet.settle(rest=2)
    owner = fleet.person.volume_owner(A)
    assert owner is not None
    assert owner.guests == (G1,)
    assert owner.places == {row.place, *wanted("g1", "a", "s1").aliases}
    assert len(fleet.store.list(f"{keys.ROOT}owners/places/")[0]) == len(owner.places)
    change = Change()
    change.delete(keys.report(keys.attachment("h1", G1, A)))
    fleet.person.commit(change)
    with pytest.raises(Refused, match="g1 on h1 has it") as told:
        fleet.attach("g2", "a")
    assert told.value.hint == "on h1: moorline detach g1 a"
    with pytest.raises(Refused, match="the same storage is volume a already"):
        attach_as(fleet, "g2", "other", "a")


def test_what_is_anothers_by_then_is_told_loudly(fleet: ToyFleet) -> None:
    """Two writers there are by then: a person's word was not true, or two hosts joined with it."""
    fleet.attach("g2", "a")
    row = own(fleet, guest="g1")
    fleet.agent_passes("h1")
    fleet.controller_passes("c1")
    fleet.agent_passes("h1")
    assert owned(fleet) == (G2,)
    told = [text for text in fleet.sites["h1"].loud if "volume a" in text]
    assert len(told) == 1
    assert "moorline detach g1 a" in told[0]
    fleet.agent_passes("h1")
    assert told == [text for text in fleet.sites["h1"].loud if "volume a" in text]
    assert [d.step for d in fleet.person.decisions().values()].count("dispute") == 1
    let_go(fleet, row)
    record = fleet.person.host("h1")
    assert record is not None
    assert record.disputed == ()
    assert owned(fleet) == (G2,)


def test_a_guest_with_a_disputed_volume_does_not_start_and_nothing_is_made_anew(
    fleet: ToyFleet,
) -> None:
    fleet.attach("g2", "a")
    fleet.settle(rest=2)
    fleet.power_off("h1")
    fleet.agent("h1").records.put(
        replace(wanted("g1", "a", "s1"), key=Key("h1", A, G1), link=LinkName("/toy/s1"))
    )
    fleet.power_on("h1")
    for _ in range(3):
        fleet.agent_passes("h1")
        fleet.controller_passes("c1")
    fleet.heals("h1")
    assert not fleet.sites["h1"].world.mounts
    with pytest.raises(Refused, match="its volume a") as told:
        fleet.agent("h1").guard.demand(G1)
    assert told.value.hint == "moorline detach g1 a"


def test_two_hosts_join_with_one_volume(fleet: ToyFleet) -> None:
    own(fleet, "h1", "g1")
    other = replace(wanted("g2", "a", "s1"), key=Key("h2", A, G2), link=LinkName("/toy/s1"))
    fleet.agent("h2").records.put(other)
    for name in ("h1", "h2"):
        fleet.agent_passes(name)
    fleet.controller_passes("c1")
    for name in ("h1", "h2"):
        fleet.agent_passes(name)
    assert owned(fleet) == (G1,)
    assert [text for text in fleet.sites["h2"].loud if "volume a" in text]
    assert not [text for text in fleet.sites["h1"].loud if "volume a" in text]


def test_what_a_dead_host_had_is_given_away_and_it_is_told_when_it_comes_back(
    fleet: ToyFleet,
) -> None:
    own(fleet)
    fleet.settle(rest=2)

    def off() -> str:
        fleet.power_off("h1")
        return "it is off"

    with pytest.raises(Refused):
        fleet.attach("g2", "a")
    fence(fleet.person, "h1", lambda *_: True, off, "n")
    fleet.attach("g2", "a")
    assert owned(fleet) == (G2,)
    fleet.power_on("h1")
    for _ in range(6):
        for name in ("h1", "h2", "h3"):
            fleet.agent_passes(name)
        fleet.controller_passes("c1")
        fleet.heals("h1")
        assert not fleet.sites["h1"].world.mounts, "it is another's"
    assert owned(fleet) == (G2,)
    assert [text for text in fleet.sites["h1"].loud if "volume a" in text]


def test_what_is_detached_there_while_it_is_claimed_is_not_owned(fleet: ToyFleet) -> None:
    """The claim counts only if the report is as it was read."""
    row = own(fleet)
    fleet.agent_passes("h1")
    ownership = Ownership(fleet.person)
    report = fleet.person.volume_report("h1", G1, A)
    assert report is not None
    change = ownership.claim_own("h1", G1, A, report)
    assert change is not None
    let_go(fleet, row)
    with pytest.raises(Conflict):
        fleet.person.commit(change)
    assert owned(fleet) == ()


def test_an_owner_of_an_earlier_version_has_each_spelling_once_it_is_reported(
    fleet: ToyFleet,
) -> None:
    fleet.attach("g1", "a")
    owner = fleet.person.volume_owner(A)
    assert owner is not None
    change = Change()
    change.put(keys.volume_owner(A), replace(owner, aliases=()))
    for alias in owner.aliases:
        change.delete(keys.place(alias))
    fleet.person.commit(change)
    fleet.settle(rest=2)
    now = fleet.person.volume_owner(A)
    assert now is not None
    assert now.places == owner.places


def test_its_guest_stays_until_it_is_the_fleets(fleet: ToyFleet) -> None:
    own(fleet)
    fleet.settle(rest=2)

    def stays() -> list[str]:
        return why_it_stays(G1, fleet.person.desired("h1"), fleet.person.reports("h1"))

    assert stays() == ["volume a is its host's own: moorline fleet attach makes it the fleet's"]
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    assert stays() == []


def test_the_fleet_is_told_at_once_of_what_a_person_vouched_for(fleet: ToyFleet) -> None:
    guard, told = fleet.agent("h1").guard, []
    guard.recorded = lambda: told.append("woken")
    guard.note(A, "the others are off")
    assert told == ["woken"]


def test_it_is_explained(fleet: ToyFleet) -> None:
    own(fleet)
    fleet.settle(rest=2)
    (told,) = Explainer(fleet.person).explain("a")
    assert (told.guest, told.host, told.seen) == ("g1", "h1", "attached")
    assert told.waits_for == "nothing: h1 has it by itself, and the fleet does not want it"
    assert "on h1: moorline detach g1 a" in told.next
