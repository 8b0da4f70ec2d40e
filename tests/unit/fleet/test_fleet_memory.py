"""A guest goes where its memory is, as far as hosts tell what they have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.errors import Refused
from moorline.fleet import keys
from moorline.fleet.fleet import Fleet
from moorline.fleet.record_store import Change
from moorline.fleet_wiring import memory_for_guests
from moorline.model import GuestId
from tests.support.toy_fleet import ToyFleet

NEEDS, HAS = 800, 1024


@pytest.fixture
def toys() -> ToyFleet:
    """Two guests on h1 that are to go, and two hosts of which each has room for one."""
    toys = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h1"})
    toys.settle()
    for host in ("h2", "h3"):
        tell_memory(toys, host, HAS)
    for guest in ("g1", "g2"):
        report = toys.person.guest_report("h1", GuestId(guest))
        assert report is not None
        change = Change()
        at = keys.report(keys.assignment("h1", GuestId(guest)))
        change.replace(at, report, replace(report, memory=NEEDS))
        toys.person.commit(change)
    return toys


def tell_memory(toys: ToyFleet, host: str, memory: int) -> None:
    heartbeat = toys.person.heartbeat(host)
    assert heartbeat is not None
    change = Change()
    change.replace(keys.heartbeat(host), heartbeat, replace(heartbeat, memory=memory))
    toys.person.commit(change)


def destinations(toys: ToyFleet) -> list[str]:
    """Where guests are sent once h1 is to be emptied."""
    toys.change_host("h1", draining=True, cordoned=True)
    toys.controller_passes("c1")
    return sorted(move.destination for move in toys.person.moves().values())


def test_those_that_go_in_one_pass_are_counted_together(toys: ToyFleet) -> None:
    assert destinations(toys) == ["h2", "h3"]


def test_one_for_which_nobody_has_the_memory_stays(toys: ToyFleet) -> None:
    toys.change_host("h3", cordoned=True)
    assert destinations(toys) == ["h2"]


def test_a_host_that_does_not_tell_is_taken_to_have_it(toys: ToyFleet) -> None:
    """It is of an earlier release."""
    toys.change_host("h3", cordoned=True)
    tell_memory(toys, "h2", 0)
    assert destinations(toys) == ["h2", "h2"]


def test_a_person_may_bring_a_guest_where_it_does_not_fit(toys: ToyFleet) -> None:
    tell_memory(toys, "h2", 1)
    assert Fleet(toys.person).migrate("g1", "h2", dry_run=True).in_the_way == []


def test_what_a_host_has_is_said_or_found() -> None:
    assert memory_for_guests("4096") == 4096
    assert memory_for_guests("") > 0
    for wrong in ("0", "-1", "4 GiB", "1e3"):
        with pytest.raises(Refused, match="agent_fleet_memory"):
            memory_for_guests(wrong)
