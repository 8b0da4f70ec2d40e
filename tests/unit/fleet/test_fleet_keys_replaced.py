"""A host whose keys were replaced: what it cannot read it tells of, and leaves as it is."""

from __future__ import annotations

import os

import pytest

from moorline.cli.fleet_queries import _state
from moorline.errors import Failed, NotFound, Unavailable
from moorline.fleet import keys
from moorline.fleet.explaining import Explainer
from moorline.fleet.fleet import Fleet
from moorline.fleet.host_threads import Following
from moorline.model import GuestId, Level, VolumeId
from moorline.ports import Put
from moorline.ports.moving import Presence
from moorline.secret import Secret
from moorline.stores.fleet_seal import BoxKey, for_controllers, for_host
from moorline.stores.key_seal import Seal
from moorline.testing.toy_store import MemoryStore
from tests.support.fleet_store import Backing
from tests.support.toy_fleet import ToyFleet
from tests.unit.fleet.test_fleet_own_volumes import own

G1, A, B = GuestId("g1"), VolumeId("a"), VolumeId("b")


class Keys:
    """The boxes of a fleet, and the keys that they are opened with."""

    def __init__(self, *hosts: str) -> None:
        self.store = MemoryStore()
        self.store.commit([], [Put(keys.EPOCH, b"1")])
        self.controllers = _new()
        self.enrolled: dict[str, BoxKey] = {}
        self.on_host: dict[str, BoxKey] = {}
        self.revoked: set[str] = set()
        for host in hosts:
            self.enrol(host)
            self.join(host)

    def enrol(self, host: str) -> None:
        """From now on what is sealed is sealed for another key of the host."""
        self.enrolled[host] = _new()
        self.store.commit([], [Put(keys.ENROLLED + host, b"{}")])

    def join(self, host: str) -> None:
        """Take the new key to the host; an agent that runs goes on with its own."""
        self.on_host[host] = self.enrolled[host]

    def revoke(self, host: str) -> None:
        """Nothing is sealed for it any more."""
        self.revoked.add(host)
        self.store.commit([], [Put(keys.ENROLLED + host, b"{}")])

    def seal_of(self, host: str) -> Seal:
        if host:
            return for_host(self.on_host[host], self.controllers.public)
        return for_controllers(
            self.controllers, lambda of: "" if of in self.revoked else self.enrolled[of].public
        )


def _new() -> BoxKey:
    return BoxKey(Secret(os.urandom(32)))


@pytest.fixture
def boxes() -> Keys:
    return Keys("h1", "h2")


@pytest.fixture
def fleet(boxes: Keys) -> ToyFleet:
    backing = Backing(boxes.store, lambda host: boxes.store, boxes.seal_of)
    fleet = ToyFleet(["h1", "h2"], {"g1": "h1", "g2": "h2"}, backing=backing)
    fleet.settle(rest=2)
    return fleet


def replace_keys(fleet: ToyFleet, boxes: Keys, *, restart: bool = True) -> None:
    boxes.enrol("h1")
    boxes.join("h1")
    if restart:
        fleet.sites["h1"].agent = None


def test_the_rest_is_obeyed_and_what_it_has_by_itself_is_reported(
    fleet: ToyFleet, boxes: Keys
) -> None:
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    replace_keys(fleet, boxes)
    fleet.attach("g1", "b")  # for the new key
    own(fleet, volume="c", name="c")
    fleet.agent_passes("h1")
    live = fleet.sites["h1"].world.guests[G1].live
    assert set(live) == {"a", "b", "c"}
    reports = fleet.person.reports("h1").volumes
    assert (reports[G1, B].seen, reports[G1, B].error) == ("attached", "")
    assert reports[G1, VolumeId("c")].own
    assert not reports[G1, A].own
    assert reports[G1, A].places  # nobody else is given it


def test_what_cannot_be_read_is_told_wherever_somebody_looks(fleet: ToyFleet, boxes: Keys) -> None:
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    assert [_state(view) for view in Fleet(fleet.person).hosts()] == ["ready", "ready"]
    replace_keys(fleet, boxes)
    for _ in range(2):
        fleet.agent_passes("h1")
    [h1, _] = Fleet(fleet.person).hosts()
    assert (h1.unread, _state(h1)) == (1, "cannot read 1 of its volumes")
    [volume] = Explainer(fleet.person).explain("a")
    assert "/moorline/desired/h1/g1/a is sealed for another key" in volume.waits_for
    assert "restart" in volume.waits_for
    [told] = fleet.sites["h1"].loud  # once
    assert "volume a of guest g1 cannot be read here" in told


def test_its_passes_fail_and_say_why(fleet: ToyFleet, boxes: Keys) -> None:
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    replace_keys(fleet, boxes)
    following = Following(fleet.agent("h1").fleet, "h1", boxes.store)
    assert not following._pass()
    assert "sealed for another key" in following.trouble


def test_its_volume_is_neither_made_anew_nor_undone(fleet: ToyFleet, boxes: Keys) -> None:
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    replace_keys(fleet, boxes)
    fleet.agent_passes("h1")
    fleet.power_off("h1")
    fleet.power_on("h1")
    for _ in range(3):
        fleet.agent_passes("h1")
        fleet.heals("h1")
    agent = fleet.agent("h1")
    assert agent.guard.may_heal()  # all else
    assert agent.guard.waits(G1, A)
    assert not fleet.sites["h1"].world.mounts
    assert [row.want for row in agent.records.all()] == [Level.ATTACHED]
    assert not fleet.sites["h1"].world.guests[G1].running  # it waits for its volume


def test_a_controller_seals_anew_what_was_sealed_before(fleet: ToyFleet, boxes: Keys) -> None:
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    replace_keys(fleet, boxes)
    fleet.attach("g1", "b")
    fleet.settle(rest=3)
    assert set(fleet.agent("h1").fleet._book.desired("h1").attachments) == {(G1, A), (G1, B)}
    fleet.check({("g1", "a"): "s1", ("g1", "b"): "s1"})
    [h1, _] = Fleet(fleet.person).hosts()
    assert (h1.unread, _state(h1)) == (0, "ready")
    fleet.detach("g1", "a")
    fleet.settle(rest=2)
    fleet.check({("g1", "b"): "s1"})


def test_it_waits_for_the_agent_that_goes_on_with_the_old_key(fleet: ToyFleet, boxes: Keys) -> None:
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    replace_keys(fleet, boxes, restart=False)
    fleet.settle(rest=3)
    [h1, _] = Fleet(fleet.person).hosts()
    assert h1.unread == 1
    assert fleet.sites["h1"].world.guests[G1].live  # as it was
    fleet.sites["h1"].agent = None
    fleet.settle(rest=3)
    assert Fleet(fleet.person).hosts()[0].unread == 0
    fleet.check({("g1", "a"): "s1"})


def test_another_controller_looks_through_all_once(fleet: ToyFleet, boxes: Keys) -> None:
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    del fleet.controllers["c1"]
    replace_keys(fleet, boxes)
    fleet.settle(rest=3)
    assert Fleet(fleet.person).hosts()[0].unread == 0
    fleet.check({("g1", "a"): "s1"})


def test_a_dry_run_of_a_move_tells_of_what_cannot_be_read(fleet: ToyFleet, boxes: Keys) -> None:
    """The move would wait for the keys: of the host that has the guest, or of the other one."""
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    asked = Fleet(fleet.person)
    for guest, host in (("g1", "h2"), ("g2", "h1")):
        assert asked.migrate(guest, host, dry_run=True).in_the_way == []
    replace_keys(fleet, boxes, restart=False)
    fleet.settle(rest=3)
    for guest, host in (("g1", "h2"), ("g2", "h1")):
        *_, told = asked.migrate(guest, host, dry_run=True).in_the_way
        assert told.startswith("h1 cannot read its volumes: ")
        assert "is sealed for another key" in told
    fleet.sites["h1"].agent = None
    fleet.settle(rest=3)
    for guest, host in (("g1", "h2"), ("g2", "h1")):
        assert asked.migrate(guest, host, dry_run=True).in_the_way == []


def test_nothing_is_sealed_for_a_host_that_was_revoked(fleet: ToyFleet, boxes: Keys) -> None:
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    before = fleet.store.get(keys.attachment("h1", G1, A))
    boxes.revoke("h1")
    fleet.settle(rest=2)
    assert fleet.store.get(keys.attachment("h1", G1, A)) == before


def test_its_guest_moves_after_that(fleet: ToyFleet, boxes: Keys) -> None:
    """The host has sealed its definition with the key that it had: nobody takes that any more."""
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    replace_keys(fleet, boxes)
    fleet.settle(rest=3)
    fleet.change_host("h1", draining=True, cordoned=True)
    fleet.settle(rest=3)
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host == "h2"
    fleet.check({("g1", "a"): "s1"})


def test_keys_that_are_replaced_while_a_guest_moves_leave_it_nowhere_paused(
    fleet: ToyFleet, boxes: Keys
) -> None:
    """Nobody takes what the old key has sealed: whoever the guest came to keeps its definition."""
    fleet.change_host("h1", draining=True, cordoned=True)
    for _ in range(20):
        fleet.controller_passes("c1")
        fleet.agent_passes("h1")
        fleet.agent_passes("h2")
        report = fleet.person.guest_report("h2", G1)
        if report is not None and report.seen is Presence.ARRIVED:
            break
    else:
        raise AssertionError("it did not arrive")
    replace_keys(fleet, boxes)
    fleet.settle(rest=3)
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host == "h2"
    assert fleet.person.definition("h2", G1) is not None
    fleet.check({})


@pytest.mark.parametrize("running", [True, False])
def test_a_guest_goes_once_its_host_has_sealed_it_anew_and_keeps_no_other(
    fleet: ToyFleet, boxes: Keys, running: bool
) -> None:
    fleet.sites["h1"].world.guests[G1].running = running
    fleet.settle(rest=2)
    replace_keys(fleet, boxes, restart=False)
    fleet.change_host("h1", draining=True, cordoned=True)
    fleet.attach("g2", "b")
    fleet.settle(rest=3)
    assert fleet.person.move(G1) is not None
    assert set(fleet.sites["h2"].world.guests[GuestId("g2")].live) == {"b"}
    fleet.controller("c1")[0].advance()
    fleet.sites["h1"].agent = None
    fleet.settle(rest=3)
    assert fleet.person.move(G1) is None
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host == "h2"


def test_a_guest_whose_host_died_before_it_was_restarted_stays_and_it_is_said_why(
    fleet: ToyFleet, boxes: Keys
) -> None:
    replace_keys(fleet, boxes, restart=False)
    fleet.power_off("h1")
    person = Fleet(fleet.person, silence=0.01)
    (told,) = person.evacuate("h1", lambda: "it is off", by="", dry_run=True).in_the_way
    why = "sealed with keys of h1 that were replaced since: it goes once the agent there"
    assert why in told
    said: list[str] = []
    with pytest.raises(Failed, match=why):
        person.evacuate("h1", lambda: "it is off", by="", timeout=0.1, progress=said.append)
    assert any(why in each for each in said)
    fleet.controller_passes("c1")
    assert fleet.person.move(G1) is None
    [g1, _] = person.guests()
    assert (g1.host, why in g1.note) == ("h1", True)
    [explained] = person.explain("g1")
    assert why in explained.waits_for
    assert explained.next == "on h1: systemctl restart moorline-agent"


def test_a_host_that_was_never_heard_is_told(fleet: ToyFleet, boxes: Keys) -> None:
    boxes.enrol("h9")
    person = Fleet(fleet.person)
    assert [(v.host, _state(v)) for v in person.hosts()][2:] == [("h9", "enrolled, never heard")]
    with pytest.raises(Unavailable, match="no controller has taken it into the fleet yet"):
        person.cordon("h9")
    fleet.controller_passes("c1")
    assert [_state(v) for v in person.hosts()][2:] == ["enrolled, never heard"]
    with pytest.raises(NotFound, match="h9 was never heard"):
        person.drain("h9")
    assert person.cordon("h9").steps == ["cordon"]
