"""A person asks the fleet for what a host has by itself: he is told, never that it is no disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moorline import fleet_wiring
from moorline.cli.commands import main
from moorline.errors import NotFound, NotOurs, Refused
from moorline.fleet import keys
from moorline.fleet.fencing import fence
from moorline.fleet.fleet import Fleet
from moorline.fleet.orders import Orders
from moorline.fleet.own_reports import has_all_the_same
from moorline.fleet.record_store import Change
from moorline.model import Attachment, DiskOptions, Format, VolumeId
from tests.support.toy_fleet import ToyFleet, wanted
from tests.unit.fleet.test_fleet_operations import Person
from tests.unit.fleet.test_fleet_own_volumes import G1, A, let_go, own

ID = "3f2a9c4e-1111-4222-8333-abcdefabcdef"
HINT = f"on h1: moorline detach g1 {ID}"


@pytest.fixture
def toys() -> ToyFleet:
    toys = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    toys.settle(rest=2)
    return toys


@pytest.fixture
def fleet(toys: ToyFleet) -> Fleet:
    return Fleet(toys.person)


def ran(toys: ToyFleet, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    """What ``moorline fleet`` says."""

    @contextmanager
    def opened(*_: Any) -> Iterator[Fleet]:
        yield Fleet(toys.person)

    monkeypatch.setattr(fleet_wiring, "open_fleet", opened)
    return CliRunner().invoke(main, ["fleet", *words])


@pytest.mark.parametrize("controlled", [False, True])
@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("spelled", [ID, ID.upper(), ID[:8]])
def test_its_detach_is_no_success(
    toys: ToyFleet, fleet: Fleet, controlled: bool, dry_run: bool, spelled: str
) -> None:
    """Whether a controller has seen it or not: scripts delete the file after a success."""
    own(toys, volume=ID)
    toys.agent_passes("h1")
    if controlled:
        toys.settle(rest=2)
    with pytest.raises(NotOurs, match=f"volume {ID} is not taken from g1: h1 has it by") as told:
        fleet.detach("g1", spelled, dry_run=dry_run)
    assert told.value.hint == HINT
    assert (told.value.volume, told.value.guest) == (ID, "g1")


def test_nor_by_an_id_that_its_storage_has(toys: ToyFleet, fleet: Fleet) -> None:
    row = own(toys, volume="mine")
    toys.agent_passes("h1")
    for place in (row.place, *wanted("g1", "a", "s1").aliases):
        with pytest.raises(NotOurs) as told:
            fleet.detach("g1", place)
        assert told.value.hint == "on h1: moorline detach g1 mine"


def test_nor_of_what_the_fleet_wants_under_another_id(toys: ToyFleet, fleet: Fleet) -> None:
    row = wanted("g1", "a", "s1")
    toys.attach("g1", "a")
    toys.settle(rest=2)
    for place in (row.place, *row.aliases):
        with pytest.raises(Refused, match="is volume a of g1") as told:
            fleet.detach("g1", place)
        assert told.value.hint == "moorline fleet detach g1 a"
        assert fleet.detach("g2", place).steps == []


def test_nor_of_what_was_released_and_is_a_disk_still(toys: ToyFleet, fleet: Fleet) -> None:
    row = own(toys)
    toys.agent_passes("h1")
    toys.agent("h1").records.release(row, "/toy/s1/a")
    toys.settle(rest=2)
    with pytest.raises(NotOurs):
        fleet.detach("g1", "a")
    [view] = fleet.show("a")
    assert (view.host, view.wanted) == ("h1", "")


def test_what_was_released_and_is_another_file_is_let_go_of_otherwise(
    toys: ToyFleet, fleet: Fleet
) -> None:
    """Its host's detach does not take it: what is told is what does."""
    row = own(toys)
    toys.agent_passes("h1")
    toys.agent("h1").records.release(row, "/toy/s1/a")
    guest = toys.sites["h1"].world.guests[G1]
    for half in (guest.live, guest.defined):
        half[A] = "/toy/s1/copy"
    toys.settle(rest=2)
    with pytest.raises(NotOurs) as told:
        fleet.detach("g1", "a")
    assert "`virsh detach-disk g1" in told.value.hint
    [view] = fleet.show("a")
    assert "virsh detach-disk" in view.message
    with pytest.raises(Refused) as refused:
        toys.attach("g2", "a")
    assert refused.value.hint == told.value.hint
    del guest.live[A], guest.defined[A]
    toys.settle(rest=2)
    assert fleet.detach("g1", "a").steps == []


def test_nor_of_what_is_disputed(toys: ToyFleet, fleet: Fleet) -> None:
    toys.attach("g2", "a")
    own(toys, guest="g1")
    for _ in range(2):
        toys.agent_passes("h1")
        toys.agent_passes("h2")
        toys.controller_passes("c1")
    with pytest.raises(NotOurs):
        fleet.detach("g1", "a")
    by_host = {view.host: view for view in fleet.show("a")}
    assert by_host["h2"].wanted == "attached"
    assert (by_host["h1"].wanted, by_host["h1"].error) == ("", "notours")
    assert "on h1: moorline detach g1 a" in by_host["h1"].message
    explained = {each.host: each for each in fleet.explain("a")}
    assert "h1 has it by itself" in explained["h1"].waits_for


def test_nor_where_another_host_than_its_guests_has_it(toys: ToyFleet, fleet: Fleet) -> None:
    """As of a guest that was defined on two hosts before they joined."""
    own(toys, host="h3", guest="g1")
    toys.agent_passes("h3")
    with pytest.raises(NotOurs) as told:
        fleet.detach("g1", "a")
    assert told.value.hint == "on h3: moorline detach g1 a"
    assert [view.host for view in fleet.show("a")] == ["h3"]


def test_nor_is_that_of_the_fleets_if_another_host_has_it_as_well(
    toys: ToyFleet, fleet: Fleet
) -> None:
    toys.attach("g1", "a")
    toys.settle(rest=2)
    own(toys, host="h3", guest="g1")
    toys.agent_passes("h3")
    person = Person(toys)
    for _ in range(2):
        with pytest.raises(NotOurs) as told:
            person.fleet().detach("g1", "a")
        assert told.value.hint == "on h3: moorline detach g1 a"
    assert [(view.host, view.wanted) for view in fleet.show("a")] == [("h3", "")]


def test_it_is_success_once_it_is_gone_there_and_for_guests_that_never_had_it(
    toys: ToyFleet, fleet: Fleet
) -> None:
    row = own(toys)
    toys.settle(rest=2)
    assert fleet.detach("g2", "a").steps == []
    let_go(toys, row)
    assert fleet.detach("g1", "a").steps == []
    with pytest.raises(NotFound):
        fleet.show("a")


def test_a_fenced_host_whose_guest_is_elsewhere_has_nothing_more(
    toys: ToyFleet, fleet: Fleet
) -> None:
    own(toys)
    toys.settle(rest=2)

    def off() -> str:
        toys.power_off("h1")
        return "it is off"

    fence(toys.person, "h1", lambda *_: True, off, "n")
    toys.settle(rest=2)
    with pytest.raises(NotOurs):
        fleet.detach("g1", "a")
    # As it is where a controller brought it that knew nothing of what a host has by itself.
    assert has_all_the_same(toys.person, "h2", G1, "g1", A) is None


def test_what_the_fleet_wants_by_now_is_taken_away(toys: ToyFleet, fleet: Fleet) -> None:
    """Whatever its host has said before."""
    own(toys)
    toys.agent_passes("h1")
    toys.attach("g1", "a")
    assert fleet.detach("g1", "a", dry_run=True).steps == ["detach"]
    [view] = fleet.show("a")
    assert view.wanted == "attached"


def test_it_is_shown_and_listed(toys: ToyFleet, fleet: Fleet) -> None:
    own(toys, volume=ID)
    toys.agent_passes("h1")
    for found in (
        fleet.show(ID[:4]),
        fleet.attachments(),
        fleet.attachments("h1"),
        fleet.attachments(guest="g1"),
        Orders(fleet, _parse, lambda: "n").show(ID),
    ):
        [view] = found
        assert (view.volume, view.guest, view.guest_id, view.host) == (ID, "g1", "g1", "h1")
        assert (view.wanted, view.seen, view.error) == ("", "attached", "")
        assert view.message == f"h1 has it by itself, and the fleet does not want it: {HINT}"
    assert fleet.attachments("h2") == []
    assert [each.host for each in fleet.explain(ID)] == ["h1"]


def test_two_guests_on_one_host_that_share_it_are_shown_once(toys: ToyFleet, fleet: Fleet) -> None:
    own(toys, shared=True)
    own(toys, shared=True, guest="g3")
    toys.agent_passes("h1")
    toys.controller_passes("c1")
    assert sorted(view.guest_id for view in fleet.show("a")) == ["g1", "g3"]


def test_commands_say_so(toys: ToyFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    own(toys, volume=ID)
    toys.settle(rest=2)
    for dry_run in ([], ["--dry-run"]):
        told = ran(toys, monkeypatch, "detach", "g1", ID, "--output", "json", *dry_run)
        assert told.exit_code == 7
        assert told.stdout == ""
        error = json.loads(told.stderr)
        assert (error["error"], error["hint"], error["volume"]) == ("notours", HINT, ID)
    shown = ran(toys, monkeypatch, "show", ID)
    assert shown.exit_code == 0
    assert "h1 has it by itself" in shown.stdout
    assert "seen attached" not in shown.stdout, "the fleet did not want it"
    assert "h1 has it by itself" in ran(toys, monkeypatch, "list").stdout
    quiet = ran(toys, monkeypatch, "list", "--not-as-wanted", "--output", "json")
    assert json.loads(quiet.stdout) == []


def test_what_is_typed_as_a_url_or_a_path_is_no_success(
    toys: ToyFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(toys)
    toys.settle(rest=2)
    for typed in ("toy://s1/a", "/toy/s1/a", "./a"):
        assert ran(toys, monkeypatch, "detach", "g1", typed).exit_code == 3
        assert ran(toys, monkeypatch, "show", typed).exit_code == 4


def test_orders_over_http_are_refused_as_well(toys: ToyFleet, fleet: Fleet) -> None:
    own(toys, volume=ID)
    toys.settle(rest=2)
    for dry_run in (False, True):
        with pytest.raises(NotOurs):
            Orders(fleet, _parse, lambda: "n").detach("g1", ID, dry_run=dry_run)


def test_a_claim_of_what_is_reported_no_more_is_told_of_nowhere(
    toys: ToyFleet, fleet: Fleet
) -> None:
    """Its host has let go; a controller has yet to see that."""
    own(toys)
    toys.settle(rest=2)
    change = Change()
    change.delete(keys.report(keys.attachment("h1", G1, A)))
    toys.person.commit(change)
    assert fleet.detach("g1", "a").steps == []
    assert fleet.attachments() == []


def _parse(connection: Any, _: Format | None, volume: str | None, __: DiskOptions) -> Attachment:
    row = wanted("", str(connection), "s1")
    return replace(row, key=row.key._replace(volume=VolumeId(volume or "a")))


@pytest.mark.parametrize(
    "words", [("detach", "g1"), ("show",), ("explain",), ("events", "--volume")]
)
@pytest.mark.parametrize("url", ["smb://me:s3cr3t@nas/s/disk.raw", "smb://nas/s/disk.raw?p=s3cr3t"])
def test_a_typed_url_may_have_a_password(
    toys: ToyFleet, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], url: str
) -> None:
    done = ran(toys, monkeypatch, *words, url)
    assert done.exit_code in (2, 3, 4), done.output
    assert "s3cr3t" not in done.output
