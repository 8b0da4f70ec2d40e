"""moorline fleet events: what hosts' event logs have, and what was decided, for people."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from moorline.care.eventlog import EventLog
from moorline.deadline import Clock
from moorline.errors import Conflict, NotFound
from moorline.fleet import keys
from moorline.fleet.controller import KEPT_DECISIONS, Controller
from moorline.fleet.event_sender import EventSender
from moorline.fleet.fencing_proofs import word
from moorline.fleet.fleet import Fleet
from moorline.fleet.record_store import Book, Change
from moorline.fleet.records import Decision, HostEvent
from moorline.model import GuestId
from moorline.ports import Put
from moorline.ports.results import EventLogEntry
from tests.support.toy_fleet import ToyFleet

G1 = GuestId("g1")


@dataclass
class Host:
    """One that keeps an event log, and tells of it."""

    book: Book
    log: EventLog
    sender: EventSender = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.sender = EventSender(self.book, "h1", self.log.news)

    def beat(self) -> int:
        """How many entries it told."""
        change = Change()
        self.sender.add_to(change)
        self.book.commit(change)
        self.sender.done()
        return len(change.then)

    def told(self) -> list[str]:
        return [event.message for event in self.book.events("h1")]


@pytest.fixture
def toys() -> ToyFleet:
    toys = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    toys.settle()
    return toys


@pytest.fixture
def host(toys: ToyFleet, tmp_path: Path) -> Host:
    return Host(toys.person, EventLog(tmp_path))


def test_what_is_new_is_told_once(host: Host) -> None:
    host.log.saw("one", volume="v", guest="web01")
    host.log.saw("two")
    assert (host.beat(), host.beat()) == (2, 0)
    host.log.saw("three")
    assert host.beat() == 1
    host.restart()
    assert host.beat() == 0
    assert host.told() == ["one", "two", "three"]


def test_what_was_not_committed_is_told_again(host: Host) -> None:
    host.log.saw("one")
    host.sender.add_to(Change())
    assert host.beat() == 1


def test_the_fleet_has_a_bounded_number_of_a_hosts_entries(host: Host) -> None:
    for n in range(3 * keys.EVENTS_PER_HOST):
        host.log.saw(str(n))
        if n % 10 == 0:
            host.beat()
    host.beat()
    told = host.told()
    assert len(told) == keys.EVENTS_PER_HOST
    assert told == [str(n) for n in range(2 * len(told), 3 * len(told))]


def test_more_than_one_commit_takes_are_the_latest(host: Host) -> None:
    for n in range(1000):
        host.log.saw(str(n))
    assert 0 < host.beat() <= 100
    assert host.told()[-1] == "999"


def test_a_host_with_a_new_state_directory_tells_from_its_first_entry_on(
    host: Host, tmp_path: Path
) -> None:
    for n in range(5):
        host.log.saw(f"old {n}")
    host.beat()
    host.log = EventLog(tmp_path / "new")
    (tmp_path / "new").mkdir()
    host.restart()
    host.log.saw("new")
    assert host.beat() == 1
    assert "new" in host.told()


def test_an_entry_has_all_that_the_event_log_has() -> None:
    assert {f.name for f in fields(HostEvent)} - {"revision"} == {
        f.name for f in fields(EventLogEntry)
    }


def test_events_are_of_a_host_a_guest_a_volume_or_since_a_time(toys: ToyFleet, host: Host) -> None:
    id = "3f2a9c4e-1111-4222-8333-abcdefabcdef"
    host.log.saw("a disk", volume=id, guest="g1")
    host.log.saw("another", volume="b", guest="g2")
    host.beat()
    fleet = Fleet(toys.person)
    assert [e.message for e in fleet.events("h1")] == ["a disk", "another"]
    assert not fleet.events("h2")
    assert [e.message for e in fleet.events(guest="g1")] == ["a disk"]
    assert [(e.host, e.message) for e in fleet.events(volume="3F2A")] == [("h1", "a disk")]
    assert not fleet.events(since=fleet.events()[-1].at + 1)
    assert [e.message for e in fleet.events(most=1)] == ["another"]
    for wrong in ({"host": "h9"}, {"guest": "g9"}, {"volume": "ffff"}):
        with pytest.raises(NotFound):
            fleet.events(**wrong)  # type: ignore[arg-type]


def test_who_fenced_a_host_is_known_after_it_came_back(toys: ToyFleet) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += max(seconds, 0.2)
        toys.agent_passes("h2")
        toys.agent_passes("h3")
        toys.clocks["c1"] = toys.clocks.get("c1", 0.0) + 1.0
        toys.controller_passes("c1")

    fleet = Fleet(toys.person, Clock(lambda: now[0], sleep), silence=3.0)
    toys.power_off("h1")
    fleet.evacuate("h1", word("power cut, ticket 4711"), by="n.n.")
    toys.power_on("h1")
    toys.settle()
    told = [(e.step, e.guest, e.message) for e in fleet.events("h1")]
    assert ("fence", "", "power cut, ticket 4711 (says n.n.)") in told
    assert [step for step, *_ in told] == ["fence", "migrate", "return"]
    [came] = [e for e in fleet.events() if e.step == "hand over"]
    assert (came.guest, came.message) == ("g1", "from h1")
    assert came.host in ("h2", "h3")


def test_a_decision_is_written_with_what_it_decides(toys: ToyFleet) -> None:
    """Neither without the other."""
    change = Change()
    change.expect(keys.host("h1"), None)
    change.note("cordon", "h1")
    with pytest.raises(Conflict):
        toys.person.commit(change)
    assert not toys.person.decisions()
    fleet = Fleet(toys.person)
    fleet.cordon("h1")
    fleet.cordon("h1")
    fleet.uncordon("h1", dry_run=True)
    assert [e.step for e in fleet.events()] == ["cordon"]


def test_old_decisions_are_forgotten(toys: ToyFleet) -> None:
    for n in range(KEPT_DECISIONS + 5):
        said = Decision(at=n, step="cordon", host="h1", message=str(n))
        toys.store.commit([], [Put(keys.decision(n, "w"), said.encode())])
    now = [0.0]
    controller = Controller(toys.person, "c2", Clock(lambda: now[0]), 3.0)
    for _ in range(5):
        now[0] += 2.0
        controller.advance()
    kept = list(toys.person.decisions().values())
    assert (kept[0].message, len(kept)) == ("5", KEPT_DECISIONS)
