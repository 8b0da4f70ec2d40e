"""Each guard on its own: what would be, were it not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from moorline.deadline import Clock
from moorline.errors import Busy, Failed, MoorlineError, Refused
from moorline.fleet import keys
from moorline.fleet.fencing import fence
from moorline.fleet.liveness import Expiry, Leadership
from moorline.fleet.ownership import Ownership
from moorline.fleet.record_store import Change
from moorline.fleet.records import Move, Role, VolumeReport
from moorline.model import GuestId, VolumeId
from moorline.ports import Delete, Put
from moorline.ports.moving import Presence
from moorline.testing.toy_moving import MovableGuest
from tests.support.toy_fleet import ToyFleet

G1, A = GuestId("g1"), VolumeId("a")


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2", "h3"], {"g1": "h1"})
    fleet.settle(rest=2)
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    return fleet


def move(fleet: ToyFleet, host: str = "h3") -> None:
    change = Change()
    change.replace(keys.move(G1), None, Move(guest=G1, source="h1", destination=host))
    fleet.person.commit(change)


def until(fleet: ToyFleet, role: Role, host: str = "h1") -> None:
    """Go on until *host* is told to be that for the guest, and has not heard it yet."""
    for _ in range(20):
        assignment = fleet.person.assignment(host, G1)
        if assignment is not None and assignment.role is role:
            return
        for name in ("h2", "h3", "h1"):
            fleet.agent_passes(name)
        fleet.controller_passes("c1")
    raise AssertionError(f"{host} is never {role}")


def switched_off(fleet: ToyFleet) -> Callable[[], str]:
    def proof() -> str:
        fleet.power_off("h1")
        return "off"

    return proof


def evacuate(fleet: ToyFleet) -> None:
    fence(fleet.person, "h1", lambda *_: True, switched_off(fleet), "n")


def guest(fleet: ToyFleet, host: str = "h1") -> MovableGuest | None:
    found = fleet.sites[host].world.guests.get(G1)
    assert found is None or isinstance(found, MovableGuest)
    return found


def demand(fleet: ToyFleet, host: str = "h1") -> MoorlineError | None:
    return fleet.survive(lambda: fleet.agent(host).guard.demand(G1))


def test_nothing_starts_before_the_agent_was_heard(fleet: ToyFleet) -> None:
    """Fenced and evacuated meanwhile, or about to be: its word from before it booted is old."""
    fleet.power_off("h1")
    fleet.power_on("h1")
    found = guest(fleet)
    assert found is not None
    assert not found.running
    fleet.settle(rest=2)
    assert found.running


def test_who_is_fenced_starts_nothing_though_it_is_at_home(fleet: ToyFleet) -> None:
    evacuate(fleet)
    fleet.power_on("h1")
    fleet.agent_passes("h1")
    assert fleet.person.assignment("h1", G1).role is Role.HERE
    error = demand(fleet)
    assert type(error) is Failed, "it is remembered"
    assert "once this host is let in again" in error.hint
    guard = fleet.agent("h1").guard
    assert isinstance(fleet.survive(lambda: guard.demand(G1, dry_run=True)), Refused)
    assert isinstance(fleet.survive(lambda: guard.demand(G1, "a word")), Failed)
    fleet.start("h1")
    assert not guest(fleet).running
    fleet.controller_passes("c1")  # it is back, and nothing was evacuated
    fleet.settle()
    assert not fleet.centre.violations


def test_who_lost_a_guest_does_not_start_it(fleet: ToyFleet) -> None:
    move(fleet)
    until(fleet, Role.GONE)
    fleet.sites["h1"].world.guests[G1] = MovableGuest("g1", running=False)  # defined by hand
    assert isinstance(demand(fleet), Refused)
    fleet.start("h1")
    fleet.settle()
    assert guest(fleet, "h3").running
    assert guest(fleet) is None
    assert not fleet.centre.violations


def test_who_sends_a_guest_does_not_start_it(fleet: ToyFleet) -> None:
    """Stopped, it may be handed over at any moment."""
    found = guest(fleet)
    found.running = False
    found.live.clear()
    fleet.settle(rest=2)
    move(fleet)
    until(fleet, Role.LEAVING)
    assert isinstance(demand(fleet), Refused)
    until(fleet, Role.ARRIVING, "h3")
    assert isinstance(demand(fleet, "h3"), Refused)


def test_a_guest_of_which_nothing_was_said_waits(fleet: ToyFleet) -> None:
    world = fleet.sites["h2"].world
    world.guests[GuestId("g9")] = MovableGuest("g9", running=False)
    fleet.start("h2")
    assert not world.guests[GuestId("g9")].running
    fleet.settle(rest=2)
    assert world.guests[GuestId("g9")].running, "the fleet has said since that it is of h2"


def test_a_person_may_vouch_only_while_the_store_is_away(fleet: ToyFleet) -> None:
    fleet.power_off("h1")
    fleet.sites["h1"].line.cut = True
    fleet.power_on("h1")
    assert type(demand(fleet)) is Failed
    fleet.agent("h1").guard.vouch(G1, "it was off")
    assert demand(fleet) is None
    fleet.power_off("h1")
    fleet.power_on("h1")
    assert type(demand(fleet)) is Failed, "he said so before it booted"
    fleet.agent("h1").guard.vouch(G1, "it was off")
    fleet.sites["h1"].line.cut = False
    fleet.agent_passes("h1")
    evacuate(fleet)
    fleet.settle(rest=2)
    fleet.power_on("h1")
    fleet.agent("h1").guard.vouch(G1, "it was off")
    fleet.agent_passes("h1")
    assert "was fenced" in str(demand(fleet)), "the store knows better"


def test_links_are_healed_while_the_store_is_away_but_not_after_a_boot(fleet: ToyFleet) -> None:
    site = fleet.sites["h1"]
    site.line.cut = True
    site.world.dead.add("s1")
    fleet.heals("h1")
    assert not site.world.dead
    assert site.world.mounts
    site.agent = None  # killed, and started anew
    site.world.dead.add("s1")
    fleet.heals("h1")
    assert not site.world.dead
    fleet.power_off("h1")
    fleet.power_on("h1")
    fleet.heals("h1")
    assert not site.world.mounts


def test_a_host_that_came_back_meanwhile_is_not_fenced(fleet: ToyFleet) -> None:
    def off_and_on() -> str:
        fleet.power_off("h1")
        fleet.power_on("h1")
        fleet.agent_passes("h1")  # it is heard, and starts its guests
        fleet.agent_passes("h1")
        return "off"

    with pytest.raises(Busy, match="came back"):
        fence(fleet.person, "h1", lambda *_: True, off_and_on, "n")
    assert guest(fleet).running
    fleet.settle()
    assert not fleet.centre.violations


def test_a_host_that_is_heard_is_not_fenced(fleet: ToyFleet) -> None:
    with pytest.raises(Busy, match="alive"):
        fence(fleet.person, "h1", lambda *_: False, switched_off(fleet), "n")
    assert guest(fleet).running


def test_a_fenced_host_that_lives_stops_its_copies_first(fleet: ToyFleet) -> None:
    """Its storage was taken away. Before it has said that nothing runs, it is not let in."""

    def revoke() -> str:
        fleet.centre.revoked.add("h1")
        return "revoked"

    fence(fleet.person, "h1", lambda *_: True, revoke, "n")
    fleet.controller_passes("c1")
    assert fleet.person.host("h1").fenced, "it has said nothing yet"
    fleet.agent_passes("h1")
    assert not guest(fleet).running
    assert any("fenced" in text for text in fleet.sites["h1"].loud)


def test_a_copy_that_arrives_does_not_run(fleet: ToyFleet) -> None:
    move(fleet)
    until(fleet, Role.LEAVING)
    fleet.agent_passes("h1")
    assert guest(fleet) is None
    for _ in range(3):
        fleet.agent_passes("h3")
    assert guest(fleet, "h3").copy is Presence.ARRIVED
    fleet.settle(rest=2)
    assert guest(fleet, "h3").writes
    assert guest(fleet, "h3").live


def test_a_source_that_is_cut_off_while_it_sends_keeps_its_guest(fleet: ToyFleet) -> None:
    move(fleet)
    until(fleet, Role.LEAVING)
    fleet.sites["h1"].line.cut = True
    fleet.clocks["c1"] += 100
    for _ in range(3):
        fleet.clocks["c1"] += 100
        fleet.agent_passes("h3")
        fleet.controller_passes("c1")
    owner = fleet.person.owner(G1)
    assert owner.host == "h1"
    assert fleet.person.assignment("h1", G1).role is Role.LEAVING


def test_a_send_that_failed_is_not_tried_again_under_the_same_word(fleet: ToyFleet) -> None:
    """It was promised that the guest stays: the fleet may have said already that it does."""
    move(fleet)
    until(fleet, Role.LEAVING)
    fleet.centre.unreachable.add("h3")
    fleet.agent_passes("h1")
    fleet.centre.unreachable.clear()
    fleet.agent_passes("h1")
    fleet.agent_passes("h1")
    assert guest(fleet).running
    fleet.settle()
    assert guest(fleet).running
    assert guest(fleet, "h3") is None


@pytest.mark.parametrize("key", [keys.guest_owner(G1), keys.assignment("h1", G1), keys.host("h1")])
def test_a_hand_over_expects_all_that_it_was_decided_by(fleet: ToyFleet, key: str) -> None:
    move(fleet)
    until(fleet, Role.LEAVING)
    fleet.agent_passes("h1")
    fleet.agent_passes("h3")
    fleet.agent_passes("h3")
    entry = fleet.store.get(key)
    assert entry is not None
    fleet.faults.plan()
    fleet.faults.meanwhile = lambda: fleet.store.commit([], [Put(key, entry.value)])
    fleet.faults.meanwhile_at = 1  # the lead is renewed before
    fleet.controller_passes("c1")
    assert fleet.person.owner(G1).host == "h1"
    fleet.settle(rest=2)
    assert fleet.person.owner(G1).host == "h3"


def test_an_older_report_gives_no_volume_free(fleet: ToyFleet) -> None:
    fleet.detach("g1", "a")
    row = fleet.person.attachment("h1", G1, A)
    assert row is not None
    old = VolumeReport(attachment=row.revision - 1, seen="absent")
    at = keys.report(keys.attachment("h1", G1, A))
    fleet.store.commit([], [Put(at, old.encode())])
    ownership = Ownership(fleet.person)
    assert not ownership.release(ownership.find("g1"), A)


def test_a_restored_store_is_followed_no_more(fleet: ToyFleet) -> None:
    """Whatever it lacks: nothing is stopped, nothing is detached."""
    for entry in fleet.store.list(keys.desired("h1"))[0]:
        fleet.store.commit([], [Delete(entry.key)])
    fleet.store.commit([], [Put(keys.EPOCH, b"2")])
    error = fleet.survive(fleet.agent("h1").fleet.advance)
    assert isinstance(error, Refused)
    assert "restored" in str(error)
    assert type(demand(fleet)) is Failed, "what it says of this host may be old as well"
    assert guest(fleet).running
    assert guest(fleet).live


def test_a_store_that_lost_its_entries_stops_nothing(fleet: ToyFleet) -> None:
    for entry in fleet.store.list(keys.desired("h1"))[0]:
        fleet.store.commit([], [Delete(entry.key)])
    for _ in range(4):
        fleet.agent_passes("h1")
        fleet.heals("h1")
    assert guest(fleet).running
    assert guest(fleet).live


def test_a_destination_that_is_stuck_does_not_get_a_guest_twice(fleet: ToyFleet) -> None:
    """A guest that was evacuated to h3, which is cut off then, is still h3's."""
    fleet.change_host("h2", cordoned=True)
    evacuate(fleet)
    until(fleet, Role.HERE, "h3")
    fleet.sites["h3"].line.cut = True
    fleet.change_host("h2", cordoned=False)
    for _ in range(8):
        fleet.clocks["c1"] += 2
        fleet.controller_passes("c1")
        fleet.agent_passes("h2")
    assert fleet.person.owner(G1).host == "h3"


def test_what_is_silent_is_told_by_ones_own_clock() -> None:

    now = [0.0]
    expiry = Expiry(Clock(lambda: now[0]), 3.0)
    assert not expiry.expired("h", 7)
    now[0] = 2.9
    assert not expiry.expired("h", 7)
    now[0] = 3.0
    assert expiry.expired("h", 7)
    assert not expiry.expired("h", 8)


def test_one_leads_and_another_takes_over_when_it_is_silent(fleet: ToyFleet) -> None:

    now = [0.0]
    clock = Clock(lambda: now[0])
    fleet.store.commit([], [Delete(keys.LEADER)])
    one, two = (Leadership(fleet.person, name, Expiry(clock, 3.0)) for name in ("one", "two"))
    assert one.leads()
    assert not two.leads()
    now[0] = 2.0
    assert one.leads()
    assert not two.leads()
    now[0] = 4.9
    assert not two.leads()
    now[0] = 5.0
    assert two.leads()
    assert not one.leads()


def test_records_keep_what_older_releases_did_not_write(fleet: ToyFleet) -> None:
    record = fleet.person.host("h1")
    assert record is not None
    fleet.store.commit([], [Put(keys.host("h1"), b'{"fenced": "x", "new": 1}')])
    assert replace(fleet.person.host("h1"), revision=0) == replace(record, fenced="x", revision=0)


def test_a_guest_waits_while_another_one_of_its_host_has_its_file(fleet: ToyFleet) -> None:
    """It was given by hand, say, while the share of a guest that was stopped was away."""
    world = fleet.sites["h1"].world
    path = world.guests[G1].defined[A]
    fleet.power_off("h1")
    other = MovableGuest("g9", running=True)
    other.live[VolumeId("other")] = other.defined[VolumeId("other")] = path
    world.guests[GuestId("g9")] = other
    fleet.power_on("h1")
    for _ in range(20):
        fleet.agent_passes("h1")
    assert not world.guests[G1].running
    del world.guests[GuestId("g9")]
    for _ in range(20):
        fleet.agent_passes("h1")
    assert world.guests[G1].running
