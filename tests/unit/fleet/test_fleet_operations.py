"""What a person can ask of the fleet, and what comes of it, with all others at work meanwhile."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from moorline.deadline import Clock
from moorline.errors import Busy, Failed, NotFound, Refused
from moorline.fleet import keys
from moorline.fleet.fencing_proofs import fence_agent, word
from moorline.fleet.fleet import Fleet
from moorline.fleet.records import HostRecord
from moorline.model import GuestId, VolumeId
from moorline.ports import Command, Output, Put
from moorline.secret import Secret
from tests.support.fleet_store import Line, toy_backing
from tests.support.toy_fleet import ToyFleet, wanted

G1 = GuestId("g1")


@dataclass
class Person:
    """One who waits: meanwhile everybody else does something."""

    toys: ToyFleet
    now: float = 0.0
    working: bool = True

    def fleet(self) -> Fleet:
        return Fleet(self.toys.person, Clock(lambda: self.now, self.sleep), silence=3.0)

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.2)
        if not self.working:
            return
        for name in self.toys.sites:
            self.toys.agent_passes(name)
            self.toys.sites[name].world.tick()
        self.toys.clocks["c1"] = self.toys.clocks.get("c1", 0.0) + 1.0
        self.toys.controller_passes("c1")


@pytest.fixture
def person() -> Person:
    toys = ToyFleet(["h1", "h2", "h3"], {"g1": "h1", "g2": "h2"})
    toys.settle()
    return Person(toys)


def test_attach_and_detach(person: Person) -> None:
    fleet = person.fleet()
    told = fleet.attach("g1", wanted("", "a", "s1"))
    assert (told.steps, told.guest, told.host, told.volume) == (["attach"], "g1", "h1", "a")
    assert person.toys.sites["h1"].world.guests[G1].live
    [view] = fleet.show("a")
    assert (view.guest, view.host, view.wanted, view.seen) == ("g1", "h1", "attached", "attached")
    assert fleet.detach("g1", "a").steps == ["detach"]
    assert fleet.detach("g1", "a").steps == []
    assert not fleet.attachments()
    with pytest.raises(NotFound):
        fleet.show("a")


def test_another_spelling_of_an_id_is_that_volume_or_an_error(person: Person) -> None:
    id = "3f2a9c4e-1111-4222-8333-abcdefabcdef"
    fleet = person.fleet()
    fleet.attach("g1", wanted("", id, "s1"))
    for spelled in (id.upper(), id[:8], id[:8].upper()):
        assert [view.volume for view in fleet.show(spelled)] == [id]
        assert fleet.detach("g1", spelled, dry_run=True).steps == ["detach"]
    for odd in (f"{{{id}}}", f"urn:uuid:{id}", f"{id} ", f"{id}\n"):
        with pytest.raises(Refused, match="is no volume id"):
            fleet.detach("g1", odd)
    assert fleet.detach("g1", id.upper()).volume == id
    assert not fleet.attachments()


def test_a_dry_run_changes_nothing_and_says_what_is_in_the_way(person: Person) -> None:
    fleet = person.fleet()
    before = person.toys.store.list("/moorline/")[0]
    assert not fleet.attach("g1", wanted("", "a", "s1"), dry_run=True).in_the_way
    assert not fleet.migrate("g1", "h3", dry_run=True).in_the_way
    assert fleet.drain("h1", dry_run=True).steps == ["drain"]
    assert fleet.evacuate("h1", word("off"), by="n", dry_run=True).steps == ["fence", "evacuate"]
    assert person.toys.store.list("/moorline/")[0] == before
    fleet.attach("g1", wanted("", "a", "s1"))
    told = fleet.attach("g2", wanted("", "a", "s1"), dry_run=True)
    assert told.in_the_way == ["volume a is not attached to g2: g1 on h1 has it"]


def test_what_its_host_refuses_leaves_nothing(person: Person) -> None:
    person.toys.sites["h1"].world.missing.add("/toy/s1/a")
    fleet = person.fleet()
    with pytest.raises(Refused, match="there is no file"):
        fleet.attach("g1", wanted("", "a", "s1"))
    person.toys.settle()
    assert not fleet.attachments()
    assert fleet.attach("g2", wanted("", "a", "s1")).host == "h2"


def test_who_waits_in_vain_is_told_that_it_goes_on(person: Person) -> None:
    person.working = False
    with pytest.raises(Failed, match="has not said anything yet") as told:
        person.fleet().attach("g1", wanted("", "a", "s1"), timeout=1.0)
    assert "goes on" in told.value.hint
    person.working = True
    assert person.fleet().attach("g1", wanted("", "a", "s1")).host == "h1"


@pytest.mark.parametrize("seconds", [2.0, 100.0])
def test_a_store_that_is_away_once_it_was_recorded_is_waited_for(
    person: Person, seconds: float
) -> None:
    """Unavailable would say that nothing was recorded."""
    line, at_work = person.toys.person.store, person.sleep
    assert isinstance(line, Line)

    def sleep(passed: float) -> None:
        at_work(passed)
        line.cut = person.now < seconds

    fleet = Fleet(person.toys.person, Clock(lambda: person.now, sleep), silence=3.0)
    if seconds > 10:
        with pytest.raises(Failed) as told:
            fleet.attach("g1", wanted("", "a", "s1"), timeout=10.0)
        assert "goes on" in told.value.hint
    else:
        assert fleet.attach("g1", wanted("", "a", "s1"), timeout=10.0).host == "h1"
    assert person.toys.sites["h1"].world.guests[G1].live


def test_migrate(person: Person) -> None:
    fleet = person.fleet()
    fleet.attach("g1", wanted("", "a", "s1"))
    assert fleet.migrate("g1", "h3").steps == ["migrate"]
    assert fleet.migrate("g1", "h3").steps == []
    guest = person.toys.sites["h3"].world.guests[G1]
    assert guest.running
    assert guest.live
    assert [(each.guest, each.host) for each in fleet.guests()] == [("g1", "h3"), ("g2", "h2")]
    with pytest.raises(NotFound):
        fleet.migrate("g1", "h9")


def test_a_stopped_guest_is_defined_there_when_its_move_is_done(person: Person) -> None:
    fleet = person.fleet()
    person.toys.sites["h1"].world.guests[G1].running = False
    person.toys.settle()
    assert fleet.migrate("g1", "h3").steps == ["migrate"]
    assert not person.toys.sites["h3"].world.guests[G1].running
    assert G1 not in person.toys.sites["h1"].world.guests


def test_a_move_that_fails_leaves_the_guest_where_it_is(person: Person) -> None:
    fleet = person.fleet()
    fleet.attach("g1", wanted("", "a", "s1"))
    person.toys.centre.unreachable.add("h3")  # for its peers; it reaches the store
    with pytest.raises(Failed, match="g1 stays on h1: h1: h3 does not answer"):
        fleet.migrate("g1", "h3")
    person.toys.settle()
    assert person.toys.sites["h1"].world.guests[G1].running
    assert not person.toys.sites["h3"].world.guests
    assert not person.toys.sites["h3"].world.mounts


def test_no_guest_comes_to_a_cordoned_host(person: Person) -> None:
    fleet = person.fleet()
    assert fleet.cordon("h3").steps == ["cordon"]
    assert fleet.cordon("h3").steps == []
    with pytest.raises(Refused, match="h3 is cordoned"):
        fleet.migrate("g1", "h3")
    fleet.uncordon("h3")
    assert fleet.migrate("g1", "h3").steps == ["migrate"]


def test_drain(person: Person) -> None:
    fleet = person.fleet()
    fleet.attach("g1", wanted("", "a", "s1"))
    fleet.cordon("h2")
    fleet.drain("h1")
    assert {each.guest: each.host for each in fleet.guests()} == {"g1": "h3", "g2": "h2"}
    [h1] = [each for each in fleet.hosts() if each.host == "h1"]
    assert h1.draining
    assert h1.cordoned
    assert not h1.guests


def test_evacuate(person: Person) -> None:
    fleet = person.fleet()
    fleet.attach("g1", wanted("", "a", "s1"))
    with pytest.raises(Busy, match="its agent is alive"):
        fleet.evacuate("h1", word("said too early"), by="n")
    person.toys.power_off("h1")
    with pytest.raises(Failed, match="it is locked"):
        fleet.evacuate("h1", _fails, by="n")
    assert not person.toys.person.host("h1").fenced
    fleet.evacuate("h1", word("power cut by N., ticket 4711"), by="n")
    assert {each.guest: each.host for each in fleet.guests()}["g1"] != "h1"
    [h1] = [each for each in fleet.hosts() if each.host == "h1"]
    assert (h1.fenced, h1.fenced_by) == ("power cut by N., ticket 4711", "n")
    person.toys.power_on("h1")
    person.toys.settle()
    assert not person.toys.sites["h1"].world.guests
    assert not person.toys.centre.violations
    [h1] = [each for each in fleet.hosts() if each.host == "h1"]
    assert not h1.fenced
    assert h1.cordoned


def _fails() -> str:
    raise Failed("it is locked")


@dataclass
class Recorder:
    """A host that runs nothing, and tells what it would."""

    commands: list[Command]

    def run(self, command: Command) -> Output:
        self.commands.append(command)
        return Output("", "")


def test_a_fence_agent_is_told_by_standard_input() -> None:
    host = Recorder([])
    proof = fence_agent(host, Path("/usr/sbin/fence_ipmilan"), ["ip=10.0.0.7", "password=p"])  # type: ignore[arg-type]
    assert proof() == "fence_ipmilan switched it off"
    [command] = host.commands
    assert command.argv == ("/usr/sbin/fence_ipmilan",)
    assert command.stdin is not None
    assert command.stdin.reveal().splitlines() == ["ip=10.0.0.7", "password=p", "action=off"]


@pytest.mark.parametrize("option", ["ip", "action=on", "option=on", "a=b\naction=on"])
def test_what_a_fence_agent_does_is_not_chosen(option: str) -> None:
    with pytest.raises(Refused):
        fence_agent(Recorder([]), Path("/f"), [option])  # type: ignore[arg-type]


def test_a_word_says_something() -> None:
    with pytest.raises(Refused):
        word("  ")


def test_a_guest_with_a_file_of_its_host_stays_and_it_is_said_why() -> None:
    """On another host, what has that path is another file."""
    backing = replace(toy_backing(), kinds=("toy", "local"))
    for name in ("h1", "h2"):
        backing.store.commit([], [Put(keys.host(name), HostRecord().encode())])
    toys = ToyFleet(["h1", "h2"], {"g1": "h1", "g2": "h1"}, backing=backing)
    toys.settle()
    person = Person(toys)
    fleet = person.fleet()
    row = wanted("", "a", "s1")
    data = {**row.connection.reveal(), "driver_volume_type": "local"}
    fleet.attach("g1", replace(row, backend="local", connection=Secret(data)))
    why = "volume a is a file or device of its host"
    with pytest.raises(Refused, match=why):
        fleet.migrate("g1", "h2")
    assert fleet.migrate("g1", "h2", dry_run=True).in_the_way[0].startswith(why)
    assert fleet.drain("h1", dry_run=True).in_the_way[0].startswith(f"g1: {why}")
    with pytest.raises(Failed, match=f"g1 are on h1 still; g1: {why}"):
        fleet.drain("h1", timeout=10.0)
    assert {each.guest: each.host for each in fleet.guests()} == {"g1": "h1", "g2": "h2"}
    assert toys.sites["h1"].world.guests[G1].running


@pytest.fixture
def losing(person: Person) -> Person:
    """g1 has another file open than the one at the path of its disk, and h1 has told so."""
    person.fleet().attach("g1", wanted("", "a", "s1"))
    person.toys.sites["h1"].world.guests[G1].lost.add(VolumeId("a"))
    person.toys.settle()
    return person


def test_a_guest_whose_file_was_changed_under_it_stays_and_it_is_said_why(losing: Person) -> None:
    """Another host would open what lies at the path, and what the guest wrote would be gone."""
    fleet = losing.fleet()
    why = "volume a: .*/toy/s1/a is lost"
    for told in (fleet.migrate("g1", "h3", dry_run=True), fleet.drain("h1", dry_run=True)):
        assert re.search(why, told.in_the_way[0])
    with pytest.raises(Refused, match=f"g1 stays on h1: {why}"):
        fleet.migrate("g1", "h3")
    with pytest.raises(Failed, match=f"g1 are on h1 still; g1: {why}"):
        fleet.drain("h1", timeout=10.0)
    assert losing.toys.sites["h1"].world.guests[G1].running
    fleet.uncordon("h1")
    losing.toys.sites["h1"].world.guests[G1].lost.clear()  # it is at its path again
    losing.toys.settle()
    assert fleet.migrate("g1", "h3").steps == ["migrate"]


def test_a_dead_hosts_guest_starts_with_the_file_that_is_there(losing: Person) -> None:
    """Nobody can bring another one back: what it wrote in a file without a name died with it."""
    losing.toys.power_off("h1")
    losing.now += 10.0
    losing.fleet().evacuate("h1", word("off"), by="n", timeout=100.0)
    assert {each.guest: each.host for each in losing.fleet().guests()}["g1"] != "h1"
    assert any("what it wrote last is not in its disk" in each for each in losing.toys.told)


def test_guests_that_stay_do_not_keep_others_of_a_drained_host() -> None:
    names = [f"g{number}" for number in range(1, 7)]
    toys = ToyFleet(["h1", "h2"], dict.fromkeys(names, "h1"))
    toys.settle()
    person = Person(toys)
    for number in range(1, 6):
        guest = GuestId(f"g{number}")
        person.fleet().attach(guest, wanted("", f"v{number}", f"s{number}"))
        toys.sites["h1"].world.guests[guest].lost.add(VolumeId(f"v{number}"))
    toys.settle()
    with pytest.raises(Failed, match="g1, g2, g3, g4, g5 are on h1 still"):
        person.fleet().drain("h1", timeout=20.0)
    assert {each.host for each in person.fleet().guests() if each.guest == "g6"} == {"h2"}


def test_a_disk_that_its_host_does_not_take_is_refused_with_the_hosts_words(person: Person) -> None:
    """As by that host's own command: who waits for it waits in vain."""
    fleet, guest = person.fleet(), person.toys.sites["h1"].world.guests[G1]
    fleet.attach("g1", wanted("", "a", "s1"))
    path = guest.live[VolumeId("a")]
    guest.live[VolumeId("a")] = guest.defined[VolumeId("a")] = "/copy"  # what it writes is there
    with pytest.raises(Refused, match=r"is not taken from g1 on h1: .*/copy") as told:
        fleet.detach("g1", "a", timeout=30.0)
    assert (told.value.volume, told.value.guest) == ("a", "g1")
    assert "virsh blockcopy g1" in told.value.hint
    assert told.value.hint not in told.value.message
    assert person.now < 10.0
    [view] = fleet.show("a")
    assert view.wanted == "attached", "nothing changed"
    person.toys.settle()
    assert guest.live[VolumeId("a")] == "/copy"
    guest.live[VolumeId("a")] = guest.defined[VolumeId("a")] = path  # it was brought back
    person.toys.settle()
    assert guest.live, "it is not taken later, unasked"
    assert fleet.migrate("g1", "h3").host == "h3"
    assert fleet.detach("g1", "a").steps == ["detach"]


def test_a_refused_detach_is_told_as_such_when_it_is_repeated(person: Person) -> None:
    fleet, guest = person.fleet(), person.toys.sites["h1"].world.guests[G1]
    fleet.attach("g1", wanted("", "a", "s1"))
    guest.live[VolumeId("a")] = guest.defined[VolumeId("a")] = "/copy"
    person.toys.detach("g1", "a")  # by who was interrupted
    person.toys.settle()
    with pytest.raises(Refused):
        fleet.detach("g1", "a")
    assert [view.wanted for view in fleet.show("a")] == ["attached"]


def test_errors_bear_the_volume_and_the_guest(person: Person) -> None:
    fleet = person.fleet()
    fleet.attach("g1", wanted("", "a", "s1"))
    person.toys.sites["h1"].world.missing.add("/toy/s1/b")
    for who, volume in (("g2", "a"), ("g9", "a"), ("g1", "b")):
        with pytest.raises(Refused) as told:
            fleet.attach(who, wanted("", volume, "s1"))
        assert (told.value.volume, told.value.guest) in ((volume, who), (volume, ""))
    person.working = False
    with pytest.raises(Failed) as late:
        fleet.detach("g1", "a", timeout=1.0)
    assert (late.value.volume, late.value.guest) == ("a", "g1")


@pytest.mark.parametrize("dry_run", [True, False])
def test_who_was_never_heard_is_not_evacuated(person: Person, dry_run: bool) -> None:
    """It may have guests, and "evacuated" would be believed."""
    person.toys.store.commit([], [Put(keys.host("h9"), HostRecord().encode())])
    with pytest.raises(Refused, match="h9 was never heard") as error:
        person.fleet().evacuate("h9", word("off"), by="n", dry_run=dry_run)
    assert "moorline fleet revoke h9" in error.value.hint
    record = person.toys.person.host("h9")
    assert record is not None
    assert not record.fenced
