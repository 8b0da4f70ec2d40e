"""What a host has by itself on storage that no other host has: told, and in nobody's way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorline.errors import Failed, NotOurs
from moorline.fleet import keys
from moorline.fleet.explaining import Explainer
from moorline.fleet.fleet import Fleet
from moorline.fleet.host_choice import why_it_stays
from moorline.fleet.records import HostRecord
from moorline.model import GuestId, Level, VolumeId
from moorline.ports import Put
from tests.support.fleet_store import toy_backing
from tests.support.own_volumes import own
from tests.support.toy_fleet import ToyFleet

G1, A = GuestId("g1"), VolumeId("a")
WHOSE = "has it by itself, on storage that no other host has"


@pytest.fixture
def fleet() -> ToyFleet:
    backing = replace(toy_backing(), kinds=("toy", "local"))
    for name in ("h1", "h2"):
        backing.store.commit([], [Put(keys.host(name), HostRecord().encode())])
    fleet = ToyFleet(["h1", "h2"], {"g1": "h1", "g2": "h2"}, backing=backing)
    fleet.settle(rest=2)
    for host, guest in (("h1", "g1"), ("h2", "g2")):  # the same path on both
        row = own(fleet, host, guest)
        fleet.agent(host).records.put(replace(row, backend="local"))
    fleet.settle(rest=2)
    return fleet


def test_it_is_listed_shown_and_explained_as_the_hosts_own(fleet: ToyFleet) -> None:
    person = Fleet(fleet.person)
    for views in (person.attachments("h1"), person.attachments(guest="g1"), person.show("a")[:1]):
        (told,) = views
        assert (told.volume, told.guest_id, told.host) == (A, G1, "h1")
        assert (told.wanted, told.seen, told.error) == ("", "attached", "")
        assert told.message == f"h1 {WHOSE}: on h1: moorline detach g1 a"
    assert [view.host for view in person.show("a")] == ["h1", "h2"]
    explained = Explainer(fleet.person).explain("a")
    assert [each.waits_for for each in explained] == [f"nothing: {h} {WHOSE}" for h in ("h1", "h2")]
    assert explained[0].next == "on h1: moorline detach g1 a"


def test_nobody_owns_it_and_no_other_host_is_refused_what_has_its_path(fleet: ToyFleet) -> None:
    assert not fleet.person.volumes()
    assert not fleet.person.own_claims()
    assert [host.disputed for host in fleet.person.hosts().values()] == [(), ()]
    fleet.attach("g2", "a")
    owner = fleet.person.volume_owner(A)
    assert owner is not None
    assert owner.guests == ("g2",)


def test_what_the_fleet_is_asked_to_detach_is_there_still(fleet: ToyFleet) -> None:
    with pytest.raises(NotOurs, match="h1 has it by itself") as told:
        Fleet(fleet.person).detach("g1", "a")
    assert told.value.hint == "on h1: moorline detach g1 a"


def test_its_guest_stays(fleet: ToyFleet) -> None:
    """On another host, what has that path is another file."""
    person = Fleet(fleet.person)
    why = "volume a is its host's own, and not on storage that others have"
    with pytest.raises(Failed, match=f"g1 are on h1 still; g1: {why}"):
        person.drain("h1", timeout=0.1)
    fleet.settle(rest=2)
    assert fleet.person.move(G1) is None
    assert why in why_it_stays(G1, fleet.person.desired("h1"), fleet.person.reports("h1"))[0]


def test_what_is_detached_there_is_told_no_more(fleet: ToyFleet) -> None:
    agent = fleet.agent("h1")
    (row,) = agent.records.all()
    agent.records.put(replace(row, want=Level.ABSENT))
    fleet.settle(rest=2)
    assert not agent.records.all()
    assert not Fleet(fleet.person).attachments("h1")


def test_an_earlier_release_takes_it_for_nothing_of_the_fleets(fleet: ToyFleet) -> None:
    report = fleet.person.volume_report("h1", G1, A)
    assert report is not None
    assert (report.own, report.places) == (False, ())
    assert b'"local"' not in replace(report, local=()).encode()
