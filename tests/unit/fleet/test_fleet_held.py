"""Who gives a volume away reads the reports of those hosts alone that may have it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from moorline.errors import Denied, Refused
from moorline.fleet import held, keys
from moorline.fleet.local_volumes import LocalVolumes
from moorline.fleet.record_store import Book
from moorline.fleet.records import GuestReport
from moorline.model import Level, VolumeId
from moorline.ports import At, Delete, Entry, Put
from tests.support.fleet_store import Line
from tests.support.own_volumes import own
from tests.support.toy_fleet import ToyFleet
from tests.support.unheld import unheld

ASKED: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count what is asked of the store, by what it is of."""
    real_get, real_list = Line.get, Line.list

    def get(line: Line, key: str) -> Entry | None:
        ASKED[key.split("/")[2]] += 1
        return real_get(line, key)

    def listed(line: Line, prefix: str) -> tuple[list[Entry], int]:
        entries, revision = real_list(line, prefix)
        ASKED[prefix.split("/")[2]] += 1
        ASKED["entries of reports"] += len(entries) * prefix.startswith(keys.STATUS)
        return entries, revision

    monkeypatch.setattr(Line, "get", get)
    monkeypatch.setattr(Line, "list", listed)


def begun(hosts: int, volumes: int = 0) -> ToyFleet:
    names = [f"h{number + 1}" for number in range(hosts)]
    fleet = ToyFleet(names, {f"g{number + 1}": name for number, name in enumerate(names)})
    fleet.settle(rest=2)
    for number in range(volumes):
        fleet.attach("g2", f"more{number}")
    fleet.settle(rest=2)
    return fleet


def asked_by_an_attach(fleet: ToyFleet) -> Counter[str]:
    ASKED.clear()
    fleet.attach("g1", "a")
    return Counter(ASKED)


def test_an_attach_asks_as_much_of_many_hosts_with_many_volumes() -> None:
    few, many = asked_by_an_attach(begun(3)), asked_by_an_attach(begun(12, volumes=20))
    assert few == many
    assert many["status"] == 1, "of the guest's own host alone"


def test_the_reports_of_who_has_it_are_read() -> None:
    fleet = begun(4)
    own(fleet, "h3", "g3", "a")
    fleet.agent_passes("h3")
    with pytest.raises(Refused, match="h3 has it by itself"):
        asked_by_an_attach(fleet)
    assert ASKED["status"] == 2


def test_a_host_that_says_nothing_of_it_may_have_anything() -> None:
    """Its agent is of an earlier release."""
    fleet = begun(4)
    own(fleet, "h3", "g3", "a")
    fleet.agent_passes("h3")
    fleet.store.commit([], [Delete(keys.held("h3"))])
    with pytest.raises(Refused, match="h3 has it by itself"):
        asked_by_an_attach(fleet)


def test_one_with_very_many_may_have_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_MOST", 1)
    fleet = begun(4)
    own(fleet, "h3", "g3", "a")
    for _ in range(2):
        fleet.agent_passes("h3")
    assert fleet.person.held("h3").digests == ("*",)
    own(fleet, "h3", "g3", "b")
    fleet.agent_passes("h3")
    assert unheld(fleet) == []
    with pytest.raises(Refused, match="h3 has it by itself"):
        asked_by_an_attach(fleet)


def test_what_is_gone_is_forgotten() -> None:
    fleet = begun(3)
    row = own(fleet, "h3", "g3", "a")
    fleet.agent_passes("h3")
    assert held.who_may_have(fleet.person, "h1", [row.place]) == ["h1", "h3"]
    fleet.agent("h3").records.put(replace(row, want=Level.ABSENT))
    for _ in range(4):
        fleet.heals("h3")
        fleet.agent_passes("h3")
        fleet.sites["h3"].world.tick()
    assert fleet.person.held("h3").digests == ()
    assert held.who_may_have(fleet.person, "h1", [row.place]) == ["h1"]


def test_a_late_commit_takes_nothing_of_it_back() -> None:
    """One that was thought lost lands after the entry was written anew."""
    fleet = begun(2)
    book, line = fleet.person, fleet.sites["h2"].line
    holding = held.Holding(fleet.book(line, "h2"), "h2")
    desired, reports = book.desired("h2"), book.reports("h2")
    holding.begin(desired, reports)
    before = book.held("h2")
    late = At(keys.held("h2"), before.revision)
    held.Holding(fleet.book(line, "h2"), "h2").begin(desired, reports)  # what was there: as before
    with pytest.raises(Exception, match="changed"):
        fleet.store.commit([late], [Put(keys.held("h2"), b"{}")])


def test_without_the_grant_a_host_follows_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was enrolled by an earlier release; whoever asks reads all that it reports."""
    real = Book.held

    def denied(book: Book, host: str) -> object:
        if host == "h3":
            raise Denied("etcd denies it")
        return real(book, host)

    monkeypatch.setattr(Book, "held", denied)
    fleet = begun(3)
    own(fleet, "h3", "g3", "a")
    fleet.agent_passes("h3")
    assert fleet.store.get(keys.held("h3")) is None
    with pytest.raises(Refused, match="h3 has it by itself"):
        asked_by_an_attach(fleet)


def test_an_agent_that_ends_leaves_none() -> None:
    fleet = begun(2)
    assert fleet.person.held("h2") is not None
    fleet.agent("h2").fleet.end()
    assert fleet.person.held("h2") is None
    fleet.sites["h2"].agent = None
    fleet.agent_passes("h2")
    assert fleet.person.held("h2") is not None


def test_what_somebody_else_plugged_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = begun(3)

    def told(_: object, report: GuestReport, guest: str, __: object) -> GuestReport:
        more = {"looked": True, "others": ("x",), "written": ("x",)} if guest == "g3" else {}
        return replace(report, **more)

    monkeypatch.setattr(LocalVolumes, "with_other_disks", told)
    fleet.agent_passes("h3")
    assert held.who_may_have(fleet.person, "h1", ["x"]) == ["h1", "h3"]
    assert held.who_may_have(fleet.person, "h1", [held.as_own(VolumeId("x"))]) == ["h1"]
