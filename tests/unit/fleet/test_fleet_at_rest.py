"""A controller looks at a host once something changed there: nearly all are at rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from moorline.errors import Unavailable
from moorline.fleet import hosts_at_rest, keys
from moorline.fleet.hosts_at_rest import PASSES_PER_BEAT, PASSES_PER_ROUND, ChangedHosts
from moorline.fleet.record_store import Book, OfHost
from moorline.model import GuestId
from moorline.ports import Delete, Event, Put
from moorline.testing.toy_store import MemoryStore
from tests.support.etcd import until
from tests.support.toy_fleet import SILENCE, ToyFleet

HOSTS = [f"h{number}" for number in range(12)]
READ: list[str] = []


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> ToyFleet:
    fleet = ToyFleet(HOSTS, {"g1": "h1", "g2": "h2"}, beats_count=False)
    fleet.settle(rest=2)
    fleet.attach("g1", "a")
    fleet.settle(rest=2)
    READ.clear()
    real: Callable[[Book, str], OfHost] = Book.reports
    monkeypatch.setattr(
        Book, "reports", lambda book, host: (READ.append(host), real(book, host))[1]
    )
    return fleet


def test_hosts_at_rest_are_read_once_in_a_round(fleet: ToyFleet) -> None:
    for _ in range(PASSES_PER_ROUND):
        fleet.controller_passes("c1")
    assert sorted(READ) == sorted(HOSTS)


def test_a_host_where_something_changed_is_read(fleet: ToyFleet) -> None:
    fleet.controller_passes("c1")
    READ.clear()
    fleet.attach("g2", "b")
    fleet.controller_passes("c1")
    assert "h2" in READ
    assert len(READ) < 4


def test_what_is_to_be_let_go_is_looked_at_until_it_is(fleet: ToyFleet) -> None:
    fleet.detach("g1", "a")
    for _ in range(3):
        READ.clear()
        fleet.controller_passes("c1")
        assert "h1" in READ
    fleet.settle(rest=2)
    fleet.check({})


def test_a_controller_that_starts_looks_at_a_few_at_a_time(
    fleet: ToyFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And sends no guest anywhere before it knows all."""
    monkeypatch.setattr(hosts_at_rest, "MOST_AT_ONCE", 4)
    fleet.change_host("h2", draining=True, cordoned=True)
    del fleet.controllers["c1"]  # killed
    fleet.controller_passes("c1")
    fleet.clocks["c1"] += 2 * SILENCE  # since when nobody leads
    for looks in (1, 2):
        fleet.controller_passes("c1")
        assert len({*READ} - {"h2"}) == 4 * looks
        assert fleet.person.moves() == {}
    fleet.controller_passes("c1")
    assert {*READ} == {*HOSTS}
    assert [move.source for move in fleet.person.moves().values()] == ["h2"]


def test_a_host_that_lives_is_not_silent_for_being_asked_seldom(fleet: ToyFleet) -> None:
    controller = fleet.controller("c1")[0]
    for _ in range(3 * PASSES_PER_BEAT):
        for host in HOSTS:
            fleet.agent_passes(host)
        fleet.clocks["c1"] += 2.0
        assert controller.look().silent == frozenset()


def test_a_host_that_died_is_silent(fleet: ToyFleet) -> None:
    controller = fleet.controller("c1")[0]
    fleet.power_off("h7")
    for _ in range(2 * PASSES_PER_BEAT):
        for host in HOSTS:
            fleet.agent_passes(host)
        fleet.clocks["c1"] += 2.0
        silent = controller.look().silent
    assert silent == {"h7"}


class Deaf(MemoryStore):
    """Its watches end."""

    deaf = True

    def watch(self, prefix: str, after: int, stop: threading.Event) -> Iterator[Event]:
        if self.deaf:
            raise Unavailable("it does not answer")
        return super().watch(prefix, after, stop)


@pytest.fixture
def store() -> Deaf:
    return Deaf()


@pytest.fixture
def changed(store: Deaf) -> Iterator[ChangedHosts]:
    with ChangedHosts(store) as told:
        yield told


def test_nothing_is_told_while_nothing_is_watched(store: Deaf, changed: ChangedHosts) -> None:
    """Nor right afterwards: what came meanwhile was missed."""
    at = keys.assignment("h/1", GuestId("g"))
    for _ in range(3):
        assert changed() is None
    store.deaf = False
    until(lambda: changed() == set())
    store.commit([], [Put(at, b"")])
    until(lambda: changed() == {"h/1"})
    store.commit([], [Put(keys.report(at), b"")])
    until(lambda: changed() == {"h/1"})
    store.commit([], [Delete(at)])
    until(lambda: changed() == {"h/1"})
    assert changed() == set()
