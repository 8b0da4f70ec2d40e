"""What a host of a fleet lets be done, by whose word: the fleet's, or a person's."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from moorline.errors import Failed, MoorlineError, Refused, Unavailable, Uncertain
from moorline.fleet import keys
from moorline.fleet.guest_sender import Sending
from moorline.fleet.host_memory import Marks
from moorline.fleet.record_store import Change
from moorline.fleet.records import Move, Role
from moorline.fleet.unattended import Unattended
from moorline.model import GuestId, VolumeId
from moorline.ports import Put
from moorline.ports.moving import Presence, Present
from moorline.testing.toy_moving import halt
from tests.support.toy_fleet import ToyFleet

G1, STRANGER, A = GuestId("g1"), GuestId("g9"), VolumeId("a")


@pytest.fixture
def fleet() -> ToyFleet:
    fleet = ToyFleet(["h1", "h2"], {"g1": "h1"})
    fleet.settle(rest=2)
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    return fleet


def permit(
    fleet: ToyFleet, host: str, guest: GuestId = G1, *, ours: bool = True, arriving: bool = False
) -> MoorlineError | None:
    guard = fleet.agent(host).guard
    return fleet.survive(lambda: guard.permit(guest, ours=ours, arriving=arriving))


def become(fleet: ToyFleet, host: str, role: Role) -> None:
    """The fleet has *host* be that for the guest."""
    here = fleet.person.assignment("h1", G1)
    assert here is not None
    change = Change()
    change.put(keys.assignment(host, G1), replace(here, role=role, peer="h1"))
    fleet.person.commit(change)


def test_a_guest_starts_where_the_fleet_has_it(fleet: ToyFleet) -> None:
    assert permit(fleet, "h1") is None
    assert type(permit(fleet, "h2")) is Failed, "of which nothing was said there"


def test_a_guest_that_is_none_of_the_fleets_business_starts(fleet: ToyFleet) -> None:
    fleet.sites["h1"].line.cut = True
    assert permit(fleet, "h1", STRANGER, ours=False) is None
    assert permit(fleet, "h1", STRANGER, ours=False, arriving=True) is None
    assert type(permit(fleet, "h1", STRANGER)) is Failed, "it has a disk of ours"
    assert type(permit(fleet, "h1", ours=False)) is Failed, "the fleet spoke of it"


def test_a_copy_starts_where_the_fleet_has_it_come(fleet: ToyFleet) -> None:
    assert isinstance(permit(fleet, "h2", arriving=True), Refused)
    become(fleet, "h2", Role.ARRIVING)
    fleet.agent_passes("h2")
    assert isinstance(permit(fleet, "h2"), Refused), "somebody starts it there by hand"
    assert permit(fleet, "h2", arriving=True) is None
    assert permit(fleet, "h2") is None, "the process that the copy comes to"
    assert isinstance(permit(fleet, "h2"), Refused), "another one"


def test_a_copy_cannot_come_while_the_store_is_away(fleet: ToyFleet) -> None:
    become(fleet, "h2", Role.ARRIVING)
    fleet.agent_passes("h2")
    fleet.sites["h2"].line.cut = True
    assert isinstance(permit(fleet, "h2", arriving=True), Unavailable)


def test_a_volume_needs_the_fleets_word_or_a_persons(fleet: ToyFleet) -> None:
    for guard in (fleet.agent("h1").guard, unattended(fleet)):
        with pytest.raises(Refused, match="which says who gets volume a"):
            guard.demand_attach(A, vouched=False)
        guard.demand_attach(A, vouched=True)


def test_what_the_fleet_wants_is_not_taken_away_behind_its_back(fleet: ToyFleet) -> None:
    for guard in (fleet.agent("h1").guard, unattended(fleet)):
        with pytest.raises(Refused, match="the fleet wants volume a here"):
            guard.demand_release(G1, A)
        guard.demand_release(G1, VolumeId("b"))


def test_a_dry_run_of_a_start_is_not_remembered(fleet: ToyFleet) -> None:
    site = fleet.sites["h1"]
    site.line.cut = True
    marks = Marks(site.local, "h1")
    for guard in (fleet.agent("h1").guard, unattended(fleet)):
        with pytest.raises(Unavailable):
            guard.demand(G1, dry_run=True)
        guard.demand(G1, "it was off", dry_run=True)
        with pytest.raises(Unavailable):
            guard.demand(G1, dry_run=True)
    assert not marks.asked()
    assert not marks.vouched(G1)


def test_a_start_that_is_remembered_does_not_say_that_nothing_was_recorded(
    fleet: ToyFleet,
) -> None:
    site = fleet.sites["h1"]
    site.line.cut = True
    with pytest.raises(Failed, match="does not start yet") as failed:
        fleet.agent("h1").guard.demand(G1)
    assert not isinstance(failed.value, Unavailable)
    assert "it starts when that can be told" in failed.value.hint
    assert Marks(site.local, "h1").asked() == {G1}
    with pytest.raises(Unavailable):  # of which nothing is recorded
        unattended(fleet).demand(G1)


def test_who_was_started_by_hand_is_not_started_again_when_stopped(fleet: ToyFleet) -> None:
    """Somebody asked for it while the store was away, and then started it by his own word."""
    site = fleet.sites["h1"]
    guest = site.world.guests[G1]
    halt(guest)
    site.line.cut = True
    assert isinstance(permit(fleet, "h1"), Failed)
    fleet.agent("h1").guard.demand(G1, "it was off")
    fleet.start("h1")
    site.line.cut = False
    fleet.settle(rest=2)
    assert guest.running
    halt(guest)
    fleet.settle(rest=2)
    assert not guest.running


def test_a_persons_reason_is_kept(fleet: ToyFleet) -> None:
    told: list[str] = []
    guard = Unattended(Marks(fleet.sites["h1"].local, "h1"), lambda: "1", told.append)
    guard.note(A, "")
    assert told == []
    guard.note(A, "the others are off")
    guard.demand(G1, "so are these")
    assert [text.partition(": ")[2] for text in told] == ["the others are off", "so are these"]


def unattended(fleet: ToyFleet, boot: str = "1") -> Unattended:
    return Unattended(Marks(fleet.sites["h1"].local, "h1"), lambda: boot)


def test_without_an_agent_only_a_persons_word_counts(fleet: ToyFleet) -> None:
    guard = unattended(fleet)
    with pytest.raises(Unavailable, match="no agent that follows it runs here"):
        guard.permit(G1, ours=False, arriving=False)
    with pytest.raises(Unavailable, match="no agent that follows it runs here"):
        guard.permit(STRANGER, ours=True, arriving=False)
    guard.permit(STRANGER, ours=False, arriving=False)
    guard.demand(G1, "it was off")
    guard.permit(G1, ours=True, arriving=False)
    with pytest.raises(Unavailable):
        unattended(fleet, "2").permit(G1, ours=True, arriving=False)
    with pytest.raises(Unavailable):
        guard.follow()


def test_what_waits_for_the_fleet_is_the_fleets_alone(fleet: ToyFleet) -> None:
    site = fleet.sites["h1"]
    site.line.cut = True
    assert not fleet.agent("h1").guard.waits(G1, A)
    fleet.power_off("h1")
    fleet.power_on("h1")
    guard = fleet.agent("h1").guard
    assert guard.waits(G1, A)
    assert not guard.waits(G1, VolumeId("b")), "attached without the fleet's word"
    guard.vouch(G1, "it was off")
    assert not guard.waits(G1, A)


def bring_back(fleet: ToyFleet) -> None:
    fleet.store.commit([], [Put(keys.EPOCH, b"another")])


def test_a_host_follows_a_store_again_that_does_not_differ(fleet: ToyFleet) -> None:
    fleet.store.commit([], [Put(keys.EPOCH, b"first")])
    fleet.settle(rest=2)
    guard = fleet.agent("h1").guard
    assert guard.follow() == []
    bring_back(fleet)
    assert isinstance(fleet.survive(fleet.agent("h1").fleet.advance), Refused)
    assert guard.follow(dry_run=True) == []
    assert isinstance(fleet.survive(fleet.agent("h1").fleet.advance), Refused), "a dry run"
    assert guard.follow() == []
    assert fleet.survive(fleet.agent("h1").fleet.advance) is None


def test_where_a_store_differs_a_person_says_so(fleet: ToyFleet) -> None:
    fleet.store.commit([], [Put(keys.EPOCH, b"first")])
    fleet.settle(rest=2)
    guard = fleet.agent("h1").guard
    assignment = fleet.person.assignment("h1", G1)
    assert assignment is not None
    change = Change()
    change.put(keys.assignment("h1", G1), replace(assignment, role=Role.GONE))
    change.delete(keys.attachment("h1", G1, A))
    fleet.person.commit(change)
    bring_back(fleet)
    found = guard.follow(dry_run=True)
    assert len(found) == 2
    assert "was here last, and the store has it gone" in found[0]
    assert "the store does not want it" in found[1]
    with pytest.raises(Refused, match="the store has it gone"):
        guard.follow()
    assert isinstance(fleet.survive(fleet.agent("h1").fleet.advance), Refused)
    assert guard.follow(vouch="it runs on h2, I looked") == found
    assert fleet.survive(fleet.agent("h1").fleet.advance) is None


class Mover:
    """Sends one guest, as far as it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.error: MoorlineError | None = None
        self.presence = Presence.RUNNING
        self.sent = 0
        self.definition = self.define = self.undefine = self.start = self.stop = self.resume = None

    def present(self) -> dict[GuestId, Present]:
        return {G1: Present("g1", self.presence)}

    def send(self, guest: GuestId, host: str) -> None:
        self.sent += 1
        if not self.go.wait(0.05):
            raise Uncertain("half of it is sent")
        if self.error:
            raise self.error


def sending(mover: Mover) -> tuple[Sending, threading.Event]:
    made, ended = Sending(mover), threading.Event()  # type: ignore[arg-type]
    made.ended = ended.set
    return made, ended


def test_a_guest_is_sent_beside_the_passes() -> None:
    mover = Mover()
    made, ended = sending(mover)
    for _ in range(3):
        with pytest.raises(Uncertain, match=r"on its way|half of it"):
            made.send(G1, "h2")
    mover.go.set()
    assert ended.wait(10)
    assert mover.sent < 100


def test_why_a_guest_does_not_go_is_told_once_and_of_that_host_alone() -> None:
    mover = Mover()
    mover.go.set()
    for host, expected in (("h2", Failed), ("h3", Uncertain)):
        mover.error = Failed("no route")
        made, ended = sending(mover)
        with pytest.raises(Uncertain):
            made.send(G1, "h2")
        assert ended.wait(10)
        mover.error = None
        with pytest.raises(expected):
            made.send(G1, host)


def test_a_copy_that_is_left_paused_is_not_waited_for() -> None:
    mover = Mover()
    mover.presence = Presence.SENT
    made, ended = sending(mover)
    with pytest.raises(Uncertain):
        made.send(G1, "h2")
    assert ended.wait(10), "a pass lets it run"


def test_of_two_agents_of_one_host_one_follows(fleet: ToyFleet) -> None:
    """Its credentials were copied, or joined twice: both would start what is brought there."""
    site = fleet.sites["h1"]
    first = fleet.agent("h1")
    second = fleet._agent(site)
    assert fleet.survive(second.fleet.advance) is None, "as after a restart"
    for _ in range(3):
        error = fleet.survive(first.fleet.advance)
        assert isinstance(error, Refused)
        assert "another agent follows the fleet as h1" in str(error)
        assert fleet.survive(second.fleet.advance) is None
        assert type(fleet.survive(lambda: first.guard.demand(G1))) is Failed
    assert isinstance(fleet.survive(first.fleet.advance), Refused)
    assert fleet.survive(first.fleet.advance) is None, "the other one ended"
    assert fleet.survive(lambda: first.guard.demand(G1)) is None


def test_a_word_is_over_once_the_fleet_has_the_guest_elsewhere() -> None:
    """Else who defines it here again starts it a second time, while the store is away."""
    fleet = ToyFleet(["h1", "h2"], {"g1": "h1"})
    fleet.settle(rest=2)
    line, guard = fleet.sites["h1"].line, fleet.agent("h1").guard
    line.cut = True
    guard.vouch(G1, "h2 is off")
    assert fleet.survive(lambda: guard.demand(G1)) is None
    line.cut = False
    change = Change()
    change.replace(keys.move(G1), None, Move(guest=G1, source="h1", destination="h2"))
    fleet.person.commit(change)
    fleet.settle(rest=2)
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host == "h2"
    line.cut = True
    assert isinstance(fleet.survive(lambda: guard.demand(G1)), Failed)
