"""A backup of a real etcd is brought back under a fleet, and nobody says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moorline.errors import Failed, MoorlineError, Refused
from moorline.model import GuestId, VolumeId
from tests.support import etcd
from tests.support.fleet_on_etcd import HOSTS, toy_fleet_on
from tests.support.toy_fleet import ToyFleet

if TYPE_CHECKING:
    from lab.etcd import Cluster

G1, G2 = GuestId("g1"), GuestId("g2")
A = VolumeId("a")
GUESTS = {"g1": "h1", "g2": "h2"}
SAME_SERVERS = "moorline-lab"
"""The token that the cluster was made with: its id does not change."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with etcd.etcd_lab() as cluster:
        yield cluster


@pytest.fixture
def restored(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[[str, bool], ToyFleet]]:
    """By the backup, the volume is g1's; it was given to g2, on another host, since."""
    with toy_fleet_on(cluster, GUESTS) as fleet:
        fleet.settle(rest=2)
        fleet.attach("g1", "a")
        fleet.settle(rest=2)
        cluster.save(tmp_path / "backup")
        fleet.detach("g1", "a")
        fleet.settle(rest=2)
        fleet.attach("g2", "a")
        for _ in range(14):  # a sign of life is noted once in twelve
            fleet.settle(rest=1)
        fleet.check({("g2", "a"): "s1"})

        def restore(token: str, restarted: bool) -> ToyFleet:
            cluster.restore(tmp_path / "backup", token=token)
            if restarted:
                for site in fleet.sites.values():
                    site.agent = None
            etcd.until(lambda: etcd.answered(lambda: fleet.person.hosts()))
            return fleet

        yield restore


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("token", ["another", SAME_SERVERS], ids=["new id", "same id"])
def test_hosts_do_nothing_of_the_past(
    restored: Callable[[str, bool], ToyFleet], token: str, restarted: bool
) -> None:
    """Else two guests would write to one file."""
    fleet = restored(token, restarted)
    assert fleet.person.attachment("h1", G1, A) is not None
    for _ in range(5):
        for name in HOSTS:
            error = passes(fleet, name)
            assert isinstance(error, Refused), (name, error)
            assert "restored" in error.message
            fleet.heals(name)
    assert not fleet.centre.violations
    guests = {name: fleet.sites[name].world.guests for name in HOSTS}
    assert A in guests["h2"][G2].live
    assert A not in guests["h1"][G1].live
    guard = fleet.agent("h1").guard
    assert isinstance(fleet.survive(lambda: guard.demand(G1)), Failed), "it may have gone since"


def test_a_person_has_a_host_follow_again(restored: Callable[[str, bool], ToyFleet]) -> None:
    fleet = restored("another", False)
    error = passes(fleet, "h3")
    assert error is not None
    assert "moorline fleet restored" in error.hint
    assert fleet.agent("h3").guard.follow() == []
    assert passes(fleet, "h3") is None
    guard = fleet.agent("h1").guard
    with pytest.raises(Refused, match="the store wants it, and it is not here"):
        guard.follow()
    assert passes(fleet, "h1") is not None
    guard.follow(vouch="g2 was shut down")
    assert passes(fleet, "h1") is None


def passes(fleet: ToyFleet, name: str) -> MoorlineError | None:
    """What a host's next pass ends in."""
    return fleet.survive(fleet.agent(name).fleet.advance)
