"""In which order guests leave a host, and how many at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moorline.errors import Failed, NotFound, Refused
from moorline.fleet.fencing_proofs import word
from moorline.fleet.records import HostRecord
from moorline.model import GuestId
from tests.support.toy_fleet import ToyFleet, wanted
from tests.unit.fleet.test_fleet_operations import Person

NAMES = [f"g{number}" for number in range(1, 6)]


@pytest.fixture
def person() -> Person:
    toys = ToyFleet(["h1", "h2", "h3"], dict.fromkeys(NAMES, "h1"))
    toys.settle()
    return Watching(toys)


class Watching(Person):
    """Sees after each thing that happens which guests have yet to run, and who ran when."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        elsewhere = [self.toys.sites[name].world.guests for name in ("h2", "h3")]
        ran = {str(id) for guests in elsewhere for id, each in guests.items() if each.running}
        if not hasattr(self, "order"):
            self.order: list[str] = []
            self.most = 0
        self.order += sorted(ran - set(self.order))
        owners = self.toys.person.owners()
        moving = {str(guest) for guest in self.toys.person.moves()}
        gone = {str(guest) for guest, owner in owners.items() if owner.host != "h1"}
        self.most = max(self.most, len((moving | gone) - ran))


def record(person: Person, host: str = "h1") -> HostRecord:
    found = person.toys.person.host(host)
    assert found is not None
    return found


def dead(person: Person) -> None:
    person.toys.power_off("h1")
    person.now += 10.0


@pytest.mark.parametrize("most", [1, 2])
def test_an_evacuation_starts_so_many_at_once_in_the_order_that_was_said(
    person: Watching, most: int
) -> None:
    dead(person)
    first = ["g4", "g2"]
    person.fleet().evacuate("h1", word("off"), by="n", first=first, at_once=most, timeout=900.0)
    while len(person.order) < len(NAMES):
        person.sleep(0.2)
    assert person.most == most
    wanted_order = ["g4", "g2", "g1", "g3", "g5"]
    if most == 1:
        assert person.order == wanted_order
    else:
        assert set(person.order[:2]) == {"g4", "g2"}
    assert not person.toys.centre.violations


def test_a_drain_takes_the_same(person: Watching) -> None:
    person.fleet().drain("h1", first=["g5", "g3", "g5"], at_once=1, timeout=900.0)
    while len(person.order) < len(NAMES):
        person.sleep(0.2)
    assert person.order[:2] == ["g5", "g3"]
    assert person.most == 1


def test_one_that_cannot_start_keeps_no_other_waiting(person: Watching) -> None:
    person.fleet().attach("g1", wanted("", "v1", "s1"))
    for name in ("h2", "h3"):
        person.toys.sites[name].world.missing.add("/toy/s1/v1")
    dead(person)
    person.fleet().evacuate("h1", word("off"), by="n", first=["g1"], at_once=1, timeout=900.0)
    for _ in range(20):
        person.sleep(0.2)
    assert sorted(person.order) == ["g2", "g3", "g4", "g5"]
    [volume] = person.fleet().show("v1")
    assert (volume.host == "h1", volume.error) == (False, "refused")


def test_one_that_no_host_takes_keeps_no_other_waiting(person: Watching) -> None:
    person.fleet().attach("g1", wanted("", "v1", "s1"))
    for name in ("h2", "h3"):
        person.toys.sites[name].base = Path("/elsewhere")
        person.toys.sites[name].agent = None
    with pytest.raises(Failed, match="g1 are on h1 still"):
        person.fleet().drain("h1", first=["g1"], at_once=1, timeout=60.0)
    assert sorted(person.order) == ["g2", "g3", "g4", "g5"]


def test_what_was_said_stays_until_it_is_said_anew_or_over(person: Person) -> None:
    fleet = person.fleet()
    person.working = False
    with pytest.raises(Failed):
        fleet.drain("h1", first=["g2"], at_once=1, timeout=1.0)
    with pytest.raises(Failed):
        fleet.drain("h1", timeout=1.0)
    assert (record(person).first, record(person).at_once) == (("g2",), 1)
    with pytest.raises(Failed):
        fleet.drain("h1", at_once=9, timeout=1.0)
    assert (record(person).first, record(person).at_once) == (("g2",), 9)
    fleet.uncordon("h1")
    assert record(person).first == ()
    with pytest.raises(Failed):
        fleet.drain("h1", timeout=1.0)
    assert record(person).at_once == 0
    with pytest.raises(Failed):
        fleet.drain("h1", at_once=2, timeout=1.0)
    person.working = True
    dead(person)
    fleet.evacuate("h1", word("off"), by="n", timeout=900.0)
    assert record(person).at_once == 0, "an evacuation is not what the drain was"
    fleet.evacuate("h1", word("off"), by="n", at_once=3, timeout=900.0)
    assert record(person).at_once == 3
    person.toys.power_on("h1")
    person.toys.settle()
    assert record(person) == HostRecord(cordoned=True, revision=record(person).revision)


def test_wrong_words_change_nothing(person: Person) -> None:
    before = record(person)
    for at_once in (0, -1, 101):
        with pytest.raises(Refused, match="between 1 and 100"):
            person.fleet().drain("h1", at_once=at_once)
    for dry_run in (True, False):
        with pytest.raises(NotFound):
            person.fleet().drain("h1", first=["g1", "g9"], dry_run=dry_run)
        with pytest.raises(NotFound):
            person.fleet().evacuate("h1", word("off"), by="n", first=["g9"], dry_run=dry_run)
    assert record(person) == before


def test_the_usual_is_not_written() -> None:
    """Controllers of an earlier release read the record, too."""
    assert {"first", "at_once"}.isdisjoint(json.loads(HostRecord(draining=True).encode()))
    said = HostRecord(first=(GuestId("g1"),), at_once=2)
    assert json.loads(said.encode())["first"] == ["g1"]
