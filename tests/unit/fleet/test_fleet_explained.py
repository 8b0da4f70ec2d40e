"""moorline fleet explain: what is not as wanted is told with who holds it up, and what helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.errors import NotFound, Refused
from moorline.fleet import keys
from moorline.fleet.fleet import Fleet
from moorline.fleet.record_store import Change
from moorline.fleet.records import Move
from moorline.fleet.results import FleetExplanation
from moorline.model import GuestId
from tests.support.toy_fleet import ToyFleet

G1 = GuestId("g1")
ID = "3f2a9c4e-1111-4222-8333-abcdefabcdef"


@pytest.fixture
def toys() -> ToyFleet:
    toys = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    toys.settle()
    return toys


def explain(toys: ToyFleet, name: str = "g1") -> list[FleetExplanation]:
    return Fleet(toys.person).explain(name)


def begin_move(toys: ToyFleet, to: str = "h2") -> None:
    change = Change()
    change.replace(keys.move(G1), None, Move(guest=G1, source="h1", destination=to))
    toys.person.commit(change)


def test_what_is_as_wanted_waits_for_nothing(toys: ToyFleet) -> None:
    toys.attach("g1", ID)
    toys.settle()
    guest, volume = explain(toys)
    assert (guest.host, guest.volume, guest.wanted, guest.seen) == ("h1", "", "here", "running")
    assert (volume.volume, volume.wanted, volume.seen) == (ID, "attached", "attached")
    assert not any(each.waits_for or each.next for each in (guest, volume))
    assert guest.heard > 0
    assert explain(toys, ID[:8].upper()) == [volume]


def test_a_host_that_says_nothing_is_named(toys: ToyFleet) -> None:
    toys.attach("g1", ID)
    [volume] = explain(toys, ID)
    assert volume.waits_for == "h1, which has not said anything of it yet"
    assert volume.next == "moorline fleet hosts"


def test_what_a_host_says_is_told_and_where_to_look(toys: ToyFleet) -> None:
    toys.attach("g1", ID)
    toys.agent_passes("h1")
    row = toys.attach("g1", ID)
    report = toys.person.volume_report("h1", G1, row.key.volume)
    assert report is not None
    change = Change()
    at = keys.report(keys.attachment("h1", G1, row.key.volume))
    change.replace(at, report, replace(report, seen="", error="failed", message="no route"))
    toys.person.commit(change)
    [volume] = explain(toys, ID)
    assert (volume.seen, volume.waits_for) == ("", "no route")
    assert volume.next == f"on h1: moorline explain {ID}"


def test_each_phase_of_a_move_says_whose_turn_it_is(toys: ToyFleet) -> None:
    """From its beginning to its end there is never nothing that it waits for."""
    toys.attach("g1", ID)
    toys.settle()
    begin_move(toys)
    seen: list[str] = []
    for _ in range(60):
        guest = explain(toys)[0]
        if toys.person.move(G1) is None:
            break
        assert "to go to h2" in guest.wanted
        assert guest.waits_for
        assert guest.next
        seen.append(guest.waits_for)
        for name in toys.sites:
            toys.agent_passes(name)
            toys.sites[name].world.tick()
        toys.clocks["c1"] = toys.clocks.get("c1", 0.0) + 1.0
        toys.controller_passes("c1")
    assert any("a controller" in text for text in seen)
    toys.settle()
    assert [(each.host, each.waits_for) for each in explain(toys)] == [("h2", ""), ("h2", "")]


def test_a_fenced_host_is_the_reason_and_nothing_else(toys: ToyFleet) -> None:
    toys.attach("g1", ID)
    toys.change_host("h2", cordoned=True)
    toys.change_host("h3", cordoned=True)
    toys.power_off("h1")
    record = toys.person.host("h1")
    assert record is not None
    change = Change()
    change.replace(keys.host("h1"), record, replace(record, fenced="power cut"))
    toys.person.commit(change)
    guest, volume = explain(toys)
    assert guest.waits_for == "a controller that finds it another host"
    assert "fenced: power cut" in volume.waits_for


def test_a_guest_that_no_controller_registered_is_told(toys: ToyFleet) -> None:
    new = ToyFleet(["h1"], {"g7": "h1"})
    new.agent_passes("h1")
    [guest] = explain(new, "g7")
    assert (guest.wanted, guest.seen) == ("", "running")
    assert "a controller" in guest.waits_for


def test_what_nobody_knows_is_an_error(toys: ToyFleet) -> None:
    with pytest.raises(NotFound, match="no guest and no volume g9"):
        explain(toys, "g9")
    for n in "12":
        toys.attach("g1", f"3f2a9c4e-1111-4222-8333-abcdefabcde{n}")
    with pytest.raises(Refused, match="is the beginning of"):
        explain(toys, "3f2a")


def test_a_list_is_of_a_guest_or_a_host_that_there_is(toys: ToyFleet) -> None:
    toys.attach("g1", "a")
    toys.attach("g2", "b")
    fleet = Fleet(toys.person)
    assert [each.volume for each in fleet.attachments(guest="g2")] == ["b"]
    assert not fleet.attachments("h1", "g2")
    for wrong in ({"host": "h9"}, {"guest": "g9"}):
        with pytest.raises(NotFound):
            fleet.attachments(**wrong)
