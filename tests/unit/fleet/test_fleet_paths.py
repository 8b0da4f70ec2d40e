"""A guest goes only where its volumes are at the same paths: QEMU opens what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline.errors import Failed
from moorline.fleet.fencing_proofs import word
from moorline.fleet.records import VolumeReport
from moorline.model import GuestId, LinkName
from moorline.testing.toys import BASE
from tests.support.toy_fleet import ToyFleet, wanted
from tests.unit.fleet.test_fleet_operations import Person

G1 = GuestId("g1")


@pytest.fixture
def person() -> Person:
    """One host mounts shares elsewhere, and something else is at the path of the other's share."""
    toys = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h3"})
    toys.sites["h2"].base = Path("/elsewhere")
    toys.sites["h2"].world.mounts[LinkName(str(BASE / "s1"))] = "another"
    toys.settle()
    person = Person(toys)
    person.fleet().attach("g1", wanted("", "a", "s1"))
    return person


def where(person: Person) -> dict[str, str]:
    return {each.guest: each.host for each in person.fleet().guests()}


@pytest.mark.parametrize("running", [True, False])
def test_a_guest_stays_and_the_volume_and_both_paths_are_named(
    person: Person, running: bool
) -> None:
    toys = person.toys
    if not running:
        toys.mover("h1").stop(G1)
        toys.settle()
    with pytest.raises(Failed, match="g1 stays on h1: h2: volume a is at /elsewhere/s1/a there"):
        person.fleet().migrate("g1", "h2")
    toys.settle()
    assert where(person)["g1"] == "h1"
    assert toys.sites["h1"].world.guests[G1].running is running
    assert G1 not in toys.sites["h2"].world.guests
    assert LinkName("/elsewhere/s1") not in toys.sites["h2"].world.mounts, "nothing is left there"
    assert not toys.centre.violations
    assert person.fleet().migrate("g1", "h3").host == "h3"


def test_a_dead_hosts_guest_goes_where_its_paths_are(person: Person) -> None:
    toys = person.toys
    toys.power_off("h1")
    person.now += 10.0
    person.fleet().evacuate("h1", word("off"), by="n", timeout=100.0)
    toys.settle()
    assert where(person)["g1"] == "h3"
    assert toys.sites["h3"].world.guests[G1].running
    assert not toys.centre.violations


def test_what_is_not_known_is_not_written() -> None:
    """Controllers of an earlier release read it, too."""
    assert "path" not in VolumeReport().encode().decode()
