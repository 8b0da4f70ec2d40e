"""The toy fleet on a real etcd: each host with its own certificate, grants and sealed box."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moorline.errors import Refused, Unavailable
from moorline.fleet import keys
from moorline.fleet.fencing import fence
from moorline.fleet.record_store import Change
from moorline.fleet.records import Move
from moorline.model import GuestId
from tests.support import etcd
from tests.support.fleet_on_etcd import HOSTS, toy_fleet_on
from tests.support.own_volumes import own
from tests.support.toy_fleet import ToyFleet

G1 = GuestId("g1")


@pytest.fixture
def fleet() -> Iterator[ToyFleet]:
    with etcd.etcd_lab() as cluster, toy_fleet_on(cluster, {"g1": "h1", "g2": "h2"}) as fleet:
        yield fleet


def test_attach_migrate_evacuate_and_return(fleet: ToyFleet) -> None:
    """With nothing but its grants each does what it has to."""
    fleet.settle(rest=2)
    fleet.attach("g1", "a")
    fleet.attach("g2", "b")
    fleet.settle(rest=2)
    fleet.check({("g1", "a"): "s1", ("g2", "b"): "s1"})

    change = Change()
    change.replace(keys.move(G1), None, Move(guest=G1, source="h1", destination="h3"))
    fleet.person.commit(change)
    fleet.settle(rest=2)
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host == "h3"

    def switch_off() -> str:
        fleet.power_off("h3")
        return "switched off"

    fence(fleet.person, "h3", lambda *_: True, switch_off, "n")
    for _ in range(4):
        for name in HOSTS:
            fleet.agent_passes(name)
        fleet.controller_passes("c1")
    fleet.power_on("h3")
    fleet.settle(rest=2)
    owner = fleet.person.owner(G1)
    assert owner is not None
    assert owner.host != "h3"
    fleet.detach("g2", "b")
    fleet.settle(rest=2)
    fleet.check({("g1", "a"): "s1"})


def test_what_is_a_hosts_nobody_else_opens(fleet: ToyFleet) -> None:
    fleet.settle(rest=2)
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    for at in (keys.attachment("h1", G1, "a"), keys.definition("h1", G1)):  # type: ignore[arg-type]
        entry = fleet.store.get(at)
        assert entry is not None
        assert b"toy/s1" not in entry.value.replace(b'"place": "toy/s1', b"")
    entry = fleet.store.get(keys.definition("h1", G1))
    assert entry is not None
    with pytest.raises(Unavailable):
        fleet.backing.seal_of("h2").open(entry.key, entry.value)
    assert fleet.backing.seal_of("").open(entry.key, entry.value)


def test_hosts_that_an_earlier_release_enrolled_follow_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They may not write what their reports name: so all that they report is read."""
    from moorline.stores.etcd import grants

    real = grants.host_grants

    def earlier(host: str) -> tuple[grants.Grant, ...]:
        return tuple(each for each in real(host) if each.key != keys.held(host))

    monkeypatch.setattr(grants, "host_grants", earlier)
    with etcd.etcd_lab() as cluster, toy_fleet_on(cluster, {"g1": "h1", "g2": "h2"}) as fleet:
        fleet.settle(rest=2)
        fleet.attach("g1", "a")
        fleet.settle(rest=2)
        fleet.check({("g1", "a"): "s1"})
        assert fleet.person.held_by_hosts() == {}
        own(fleet, "h2", "g2", "b", name="b")
        fleet.agent_passes("h2")
        with pytest.raises(Refused, match="h2 has it by itself"):
            fleet.attach("g1", "b")
