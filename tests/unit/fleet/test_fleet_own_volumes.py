"""What a host has without the fleet: from before it was one of it, or by a person's word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.errors import Refused
from moorline.fleet import keys
from moorline.fleet.ownership import Ownership
from moorline.model import Attachment, GuestId, Key, Level, LinkName, VolumeId
from tests.support.toy_fleet import ToyFleet, wanted

G1, G2, A, B = GuestId("g1"), GuestId("g2"), VolumeId("a"), VolumeId("b")


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    fleet.settle(rest=2)
    return fleet


def own(
    fleet: ToyFleet,
    host: str = "h1",
    guest: str = "g1",
    volume: str = "a",
    *,
    name: str = "a",
    shared: bool = False,
) -> Attachment:
    """The host records an attachment by itself, and its loop has it done."""
    row = wanted(guest, name, "s1", shared=shared)
    key = Key(host, VolumeId(volume), GuestId(guest))
    agent = fleet.agent(host)
    row = agent.records.put(replace(row, key=key, link=LinkName("/toy/s1"), aliases=()))
    fleet.heals(host)
    return row


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


def test_what_is_of_one_host_alone_is_reported_nowhere(fleet: ToyFleet) -> None:
    row = own(fleet)
    fleet.agent("h1").records.put(replace(row, backend="local"))
    fleet.agent_passes("h1")
    assert not list(fleet.person.reported())
