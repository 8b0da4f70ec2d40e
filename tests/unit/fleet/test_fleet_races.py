"""Somebody writes between another one's look and his commit, or says what is out of date."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.errors import Busy
from moorline.fleet import keys
from moorline.fleet.fencing import fence
from moorline.fleet.ownership import Ownership
from moorline.fleet.record_store import Change
from moorline.fleet.records import Bring, GuestReport, Move, Role, VolumeReport
from moorline.model import GuestId, VolumeId
from moorline.ports import Put
from moorline.ports.moving import Presence
from moorline.testing.faults import Fault
from moorline.testing.toy_moving import MovableGuest
from tests.support.toy_fleet import ToyFleet, wanted

G1, A = GuestId("g1"), VolumeId("a")


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2", "h3"], {"g1": "h1"})
    fleet.settle(rest=2)
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    return fleet


def put(fleet: ToyFleet, key: str, value: bytes) -> None:
    fleet.store.commit([], [Put(key, value)])


def move(fleet: ToyFleet) -> None:
    put(fleet, keys.move(G1), Move(guest=G1, source="h1", destination="h3").encode())


def passes(fleet: ToyFleet, rounds: int = 1) -> None:
    for _ in range(rounds):
        for name in ("h2", "h3", "h1"):
            fleet.agent_passes(name)
        fleet.controller_passes("c1")


def role(fleet: ToyFleet, host: str) -> Role | None:
    assignment = fleet.person.assignment(host, G1)
    return assignment.role if assignment else None


def to(fleet: ToyFleet, host: str, wanted_role: Role) -> None:
    for _ in range(20):
        if role(fleet, host) is wanted_role:
            return
        passes(fleet)
    raise AssertionError(f"{host} is never {wanted_role}")


def test_a_volume_does_not_come_while_its_guest_begins_to_go(fleet: ToyFleet) -> None:
    ownership = Ownership(fleet.person)
    home = ownership.find("g1")
    fleet.faults.plan()
    fleet.faults.meanwhile = lambda: move(fleet)
    with pytest.raises(Busy):
        ownership.attach(home, wanted("g1", "b", "s1"))
    assert fleet.person.attachment("h1", G1, VolumeId("b")) is None


def test_a_volume_does_not_go_while_its_guest_begins_to_go(fleet: ToyFleet) -> None:
    fleet.faults.plan()
    fleet.faults.meanwhile = lambda: move(fleet)
    with pytest.raises(Busy):
        Ownership(fleet.person).detach(G1, A)


def test_a_volume_is_not_given_free_where_its_guest_was_before(fleet: ToyFleet) -> None:
    """It was decided upon what h1 said; meanwhile the guest, and the volume, are h3's."""
    ownership = Ownership(fleet.person)
    fleet.detach("g1", "a")
    fleet.agent_passes("h1")
    for _ in range(3):
        fleet.sites["h1"].world.tick()
        fleet.agent_passes("h1")
    home = ownership.find("g1")
    here = fleet.person.assignment("h1", G1)
    assert here is not None
    fleet.faults.plan()
    gone = replace(here, role=Role.GONE)
    fleet.faults.meanwhile = lambda: put(fleet, keys.assignment("h1", G1), gone.encode())
    assert not ownership.release(home, A)
    assert fleet.person.volume_owner(A) is not None


def test_an_older_report_hands_nothing_over(fleet: ToyFleet) -> None:
    move(fleet)
    to(fleet, "h1", Role.LEAVING)
    leaving = fleet.person.assignment("h1", G1)
    assert leaving is not None
    old = GuestReport(assignment=leaving.revision - 1, seen=Presence.ABSENT)
    put(fleet, keys.report(keys.assignment("h1", G1)), old.encode())
    fleet.controller_passes("c1")
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host == "h1"


def test_an_older_report_makes_nothing_ready(fleet: ToyFleet) -> None:
    """The link was there in an earlier stay, and is not now."""
    fleet.sites["h3"].world.hung.add("s1")
    move(fleet)
    passes(fleet, 3)
    row = fleet.person.attachment("h3", G1, A)
    assert row is not None
    old = VolumeReport(attachment=row.revision - 1, seen=str(row.want))
    put(fleet, keys.report(keys.attachment("h3", G1, A)), old.encode())
    fleet.controller_passes("c1")
    assert role(fleet, "h1") is Role.HERE


def test_what_the_source_says_now_counts_and_not_what_it_said(fleet: ToyFleet) -> None:
    """It said that it is without the guest, and says otherwise before the hand-over."""
    move(fleet)
    to(fleet, "h1", Role.LEAVING)
    fleet.agent_passes("h1")
    fleet.agent_passes("h3")
    report = fleet.person.guest_report("h1", G1)
    assert report is not None
    assert report.seen is Presence.ABSENT
    at = keys.report(keys.assignment("h1", G1))
    fleet.faults.plan()
    fleet.faults.meanwhile_at = 1  # after the lead is renewed
    fleet.faults.meanwhile = lambda: put(fleet, at, replace(report, seen=Presence.RUNNING).encode())
    fleet.controller_passes("c1")
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host == "h1"


def test_a_move_that_is_given_up_in_that_moment_does_not_begin(fleet: ToyFleet) -> None:
    move(fleet)
    fleet.faults.plan()
    fleet.faults.meanwhile_at = 1
    given_up = Move(guest=G1, source="h1", destination="h3", given_up="no")
    fleet.faults.meanwhile = lambda: put(fleet, keys.move(G1), given_up.encode())
    fleet.controller_passes("c1")
    assert role(fleet, "h3") is None
    fleet.settle(rest=2)
    assert role(fleet, "h1") is Role.HERE
    assert fleet.person.move(G1) is None


def test_a_fenced_host_makes_and_starts_nothing(fleet: ToyFleet) -> None:
    """Though it was told to, before it was fenced."""
    here = fleet.person.assignment("h1", G1)
    assert here is not None

    def off() -> str:
        fleet.power_off("h1")
        return "off"

    fence(fleet.person, "h1", lambda *_: True, off, "n")
    world = fleet.sites["h1"].world
    del world.guests[G1]
    start = replace(here, bring=Bring.RUNNING)
    put(fleet, keys.assignment("h1", G1), start.encode())
    fleet.power_on("h1")
    for _ in range(3):
        fleet.agent_passes("h1")
    assert not world.guests
    assert not world.mounts


def test_a_stopped_guest_goes_only_when_its_definition_is_kept(fleet: ToyFleet) -> None:
    found = fleet.sites["h1"].world.guests[G1]
    found.running = False
    found.live.clear()
    fleet.settle(rest=2)
    move(fleet)
    to(fleet, "h1", Role.LEAVING)
    found.name = "renamed at the last moment"
    fleet.agent_passes("h1")
    assert G1 in fleet.sites["h1"].world.guests, "what is kept is not what it is now"
    fleet.settle(rest=2)
    assert fleet.sites["h3"].world.guests[G1].name == "renamed at the last moment"


def test_what_is_uncertain_promises_nothing(fleet: ToyFleet) -> None:
    """It may go on: only what surely did not happen keeps the guest."""
    move(fleet)
    to(fleet, "h1", Role.LEAVING)
    fleet.faults.plan((3, Fault.LOST))  # the first of sending: a copy that is begun over there
    fleet.agent_passes("h1")
    assert G1 in fleet.sites["h3"].world.guests
    fleet.faults.plan()
    report = fleet.person.guest_report("h1", G1)
    assert report is not None
    assert not report.error
    fleet.settle(rest=2)
    assert not fleet.centre.violations


def test_a_report_that_comes_late_undoes_no_newer_one(fleet: ToyFleet) -> None:
    """What was said before the guest was sent lands after it went."""
    move(fleet)
    to(fleet, "h1", Role.LEAVING)
    fleet.faults.plan((2, Fault.UNDONE))  # after the heartbeat and the mark: that it begins
    fleet.agent_passes("h1")
    line = fleet.sites["h1"].line
    assert line.late
    assert G1 in fleet.sites["h1"].world.guests, "it does not go before that is written"
    fleet.agent_passes("h1")
    line.land()
    report = fleet.person.guest_report("h1", G1)
    assert report is not None
    assert report.seen is Presence.ABSENT


def test_a_copy_keeps_its_disks_until_it_is_at_home(fleet: ToyFleet) -> None:
    move(fleet)
    to(fleet, "h1", Role.LEAVING)
    fleet.agent_passes("h1")
    for _ in range(4):
        fleet.agent_passes("h3")
        fleet.heals("h3")
    copy = fleet.sites["h3"].world.guests[G1]
    assert A in copy.live
    assert not copy.leaving


def test_what_it_lost_is_a_hosts_to_clean_up_until_it_says_so(fleet: ToyFleet) -> None:
    move(fleet)
    to(fleet, "h1", Role.LEAVING)
    fleet.agent_passes("h1")
    fleet.agent_passes("h3")
    fleet.controller_passes("c1")
    assert role(fleet, "h1") is Role.GONE
    for _ in range(3):
        fleet.agent_passes("h3")
        fleet.controller_passes("c1")
    assert role(fleet, "h1") is Role.GONE
    assert fleet.sites["h1"].world.mounts
    fleet.settle(rest=2)
    assert role(fleet, "h1") is None
    assert not fleet.sites["h1"].world.mounts


def test_of_two_who_report_a_guest_one_has_it() -> None:
    fleet = ToyFleet(["h1", "h2"], {"g1": "h1"})
    fleet.sites["h2"].world.guests[G1] = MovableGuest("g1", running=False)
    fleet.settle(rest=2)
    roles = [role(fleet, name) for name in ("h1", "h2")]
    assert roles.count(Role.HERE) == 1


def test_what_a_fenced_host_stopped_runs_again_when_it_is_back(fleet: ToyFleet) -> None:
    """Nobody could take its guest meanwhile."""
    for name in ("h2", "h3"):
        fleet.change_host(name, cordoned=True)

    def revoke() -> str:
        fleet.centre.revoked.add("h1")
        return "revoked"

    fence(fleet.person, "h1", lambda *_: True, revoke, "n")
    fleet.agent_passes("h1")
    assert not fleet.sites["h1"].world.guests[G1].running
    for _ in range(3):
        fleet.agent_passes("h1")
        fleet.controller_passes("c1")
    fleet.centre.revoked.clear()
    fleet.settle(rest=2)
    assert fleet.sites["h1"].world.guests[G1].running


def test_signs_of_life_are_of_one_process(fleet: ToyFleet) -> None:
    """What an agent wrote before it was killed does not land after its successor was heard."""
    site = fleet.sites["h1"]
    before = fleet.person.heartbeat("h1")
    assert before is not None
    fleet.faults.plan((0, Fault.UNDONE))
    fleet.agent_passes("h1")
    assert site.line.late
    site.agent = None
    fleet.agent_passes("h1")
    heard = fleet.person.heartbeat("h1")
    assert heard is not None
    site.line.land()
    assert fleet.person.heartbeat("h1") == heard
    assert heard.session != before.session


def test_a_registration_does_not_take_a_guest_from_whoever_has_it(fleet: ToyFleet) -> None:
    fleet.sites["h2"].world.guests[G1] = MovableGuest("g1", running=False)
    fleet.settle(rest=2)
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host == "h1"
    fleet.start("h2")
    fleet.settle(rest=2)
    assert not fleet.centre.violations


def test_a_change_names_each_key_once(fleet: ToyFleet) -> None:
    change = Change()
    change.put("k", b"1")
    change.put("k", b"2")
    fleet.person.commit(change)
    entry = fleet.store.get("k")
    assert entry is not None
    assert entry.value == b"2"
