"""Guests themselves, on a toy host: launched, started, removed, and killed at each effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moorline.api import Moorline
from moorline.care.eventlog import EventLog
from moorline.errors import Busy, Failed, NotFound, NotOurs, Refused, Unavailable, Uncertain
from moorline.model import DiskState, GuestId, Level, VolumeId
from moorline.ports.guest_results import GuestOutcome
from moorline.testing.faults import Fault
from moorline.testing.toys import BASE, ToyGuest, ToyHypervisor
from tests.support.environment import bare
from tests.support.rig import Rig, connection
from tests.support.toy_machines import ToyLifecycle

S1 = str(BASE / "s1")
A, B = VolumeId("a"), VolumeId("b")


class Stage(Rig):
    """A host on which guests can be made."""

    def __init__(self, *guests: str) -> None:
        super().__init__(*guests)
        self.machines = ToyLifecycle(self.world)

    def owner(self) -> Moorline:
        hypervisor = ToyHypervisor(self.world)
        return Moorline(
            self.records, self.reconciler(), hypervisor, self.machines, environment=bare()
        )

    def launch(self, *, timeout: float = 5.0, vcpus: int | None = None) -> GuestOutcome:
        return self.owner().guests.launch(
            "web01",
            connection("a"),
            connections=[connection("b")],
            hardware={"vcpus": vcpus},
            timeout=timeout,
        )

    def remove(self, guest: str = "web01", **how: bool) -> GuestOutcome | None:
        return self.owner().guests.remove(guest, timeout=0.3, **how)

    def guest(self) -> ToyGuest:
        return self.world.guests[GuestId("id-web01")]

    def is_launched(self) -> bool:
        toy = self.guest()
        disks = ToyHypervisor(self.world).disks(GuestId("id-web01"))
        whole = {volume: disk.state is DiskState.WHOLE for volume, disk in disks.items()}
        return toy.running and whole == {A: True, B: True} and S1 in self.world.mounts

    def is_empty(self) -> bool:
        nothing = (self.world.guests, self.world.mounts, self.records.all())
        return not any(nothing) and not self.world.violations


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_it_is_defined_gets_its_disks_and_starts(stage: Stage) -> None:
    outcome = stage.launch()
    assert outcome.steps == ["define", "connect", "attach", "attach", "start"]
    assert stage.is_launched()
    boots = {row.key.volume: row.options.boot for row in stage.records.all()}
    assert boots == {A: 1, B: 0}


def test_again_is_success_and_does_nothing(stage: Stage) -> None:
    stage.launch()
    effects = stage.world.faults.count
    assert stage.launch().steps == []
    assert stage.world.faults.count == effects


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_struck_at_any_effect_the_same_command_goes_on(fault: Fault) -> None:
    """Launched and then removed, with one fault at each effect in turn; repeated until done."""
    for at in range(60):
        stage = Stage()
        stage.world.faults.plan((at, fault))
        for _ in range(3):
            stage.survive(stage.launch)
        assert stage.is_launched(), at
        for _ in range(3):
            stage.survive(lambda stage=stage: stage.remove(force=True))
        assert stage.is_empty(), at
        if not stage.world.faults.struck:
            break
    assert not stage.world.faults.struck, "there are more effects than were tried"
    assert at > 10


def test_a_guest_is_started_only_if_that_was_asked(stage: Stage) -> None:
    outcome = stage.owner().guests.launch("web01", connection("a"), start=False)
    assert (outcome.running, stage.guest().running) == (False, False)
    assert "start" not in outcome.steps


@pytest.mark.parametrize("what", ["the boot volume", "the other volume", "the hardware"])
def test_what_is_refused_leaves_nothing(stage: Stage, what: str) -> None:
    stage.world.missing = {"the boot volume": {f"{S1}/a"}, "the other volume": {f"{S1}/b"}}.get(
        what, set()
    )
    with pytest.raises(Refused):
        stage.launch(vcpus=99 if what == "the hardware" else None)
    assert stage.is_empty()


def test_what_is_refused_later_leaves_the_guest_as_it_was(stage: Stage) -> None:
    stage.launch()
    stage.world.missing = {f"{S1}/c"}
    with pytest.raises(Refused):
        stage.owner().guests.launch("web01", connection("a"), connections=[connection("c")])
    assert stage.is_launched()
    with pytest.raises(Refused, match="boots from volume a already"):
        stage.owner().guests.launch("web01", connection("c"))
    assert stage.is_launched()


@pytest.mark.parametrize("what", ["started it", "gave it a disk", "made it his own"])
def test_a_refused_launch_leaves_a_guest_that_somebody_took_up_meanwhile(
    stage: Stage, what: str
) -> None:
    def meanwhile(_: str) -> None:
        guest = stage.guest()
        if what == "started it":
            guest.running = True
        elif what == "gave it a disk":
            guest.defined[VolumeId("theirs")] = "/elsewhere/disk"
        else:
            stage.machines.launched.clear()

    stage.world.missing = {f"{S1}/a"}
    with pytest.raises(Refused):
        stage.owner().guests.launch("web01", connection("a"), progress=meanwhile)
    assert stage.guest().name == "web01"
    assert stage.records.all() == []


def test_nothing_is_done_to_a_guest_while_somebody_else_is_at_it(stage: Stage) -> None:
    stage.launch()
    reconciler = stage.reconciler()
    hypervisor = ToyHypervisor(stage.world)
    guests = Moorline(
        stage.records, reconciler, hypervisor, stage.machines, environment=bare()
    ).guests
    with reconciler.with_guest(GuestId("id-web01")), pytest.raises(Busy):
        guests.remove("web01", force=True)
    assert stage.is_launched()
    stage.machines.stop(GuestId("id-web01"), force=True)
    for volume in "ab":
        stage.owner().attachments.detach("web01", volume)
    with reconciler.with_guest(GuestId("id-web01")):
        with pytest.raises(Busy):
            guests.start("web01")
        with pytest.raises(Busy):
            guests.remove("web01")
    assert not stage.guest().running


@pytest.mark.parametrize("state", ["empty", "unfinished"])
def test_a_guest_that_an_earlier_call_made_survives_a_refusal(stage: Stage, state: str) -> None:
    stage.world.hung = {"s1"}
    with pytest.raises(Failed):
        stage.launch(timeout=0.1)
    stage.world.hung = set()
    if state == "empty":
        for volume in "ab":
            stage.owner().attachments.detach("web01", volume)
    before = stage.records.all()
    stage.world.missing = {f"{S1}/c"}
    with pytest.raises(Refused):
        stage.owner().guests.launch("web01", connection("c"))
    assert stage.guest().name == "web01"
    assert stage.records.all() == before


def test_a_volume_that_cannot_be_had_is_waited_for_and_the_guest_not_started(stage: Stage) -> None:
    stage.world.hung = {"s1"}
    with pytest.raises(Failed):
        stage.launch(timeout=0.2)
    assert not stage.guest().running
    stage.world.hung = set()
    assert stage.launch().steps == ["connect", "attach", "attach", "start"]


class Away(ToyLifecycle):
    """The hypervisor goes away just before a guest is started or removed."""

    def start(self, guest: GuestId) -> None:
        raise Unavailable("the hypervisor does not answer")

    def remove(self, guest: GuestId) -> None:
        raise Unavailable("the hypervisor does not answer")


def test_with_attachments_recorded_a_hypervisor_that_is_away_is_a_failure(stage: Stage) -> None:
    """Unavailable says that nothing was recorded."""
    stage.machines = Away(stage.world)
    with pytest.raises(Failed, match="does not answer") as error:
        stage.launch()
    assert type(error.value) is Failed
    assert {row.want for row in stage.records.all()} == {Level.ATTACHED}
    with pytest.raises(Failed, match="does not answer") as error:
        stage.remove(force=True)
    assert type(error.value) is Failed


def test_a_guest_of_somebody_else_is_left_alone() -> None:
    stage = Stage("web01")
    with pytest.raises(NotOurs):
        stage.launch()
    with pytest.raises(NotOurs):
        stage.remove()
    assert stage.world.guests[GuestId("web01")].running
    assert stage.records.all() == []
    assert stage.remove(any=True)
    assert stage.is_empty()


def test_start_brings_the_volumes_back_first(stage: Stage) -> None:
    stage.launch()
    stage.machines.stop(GuestId("id-web01"), force=True)
    del stage.world.mounts[S1]
    assert stage.owner().guests.start("web01").steps == ["connect", "start"]
    assert stage.is_launched()
    assert stage.owner().guests.start("web01").steps == []


def test_links_are_made_ready_without_the_hypervisor(stage: Stage) -> None:
    stage.launch()
    stage.machines.stop(GuestId("id-web01"), force=True)
    del stage.world.mounts[S1]
    stage.world.blind = True
    guests = stage.owner().guests
    assert guests.unready("id-web01") == ["a", "b"]
    assert guests.ready("id-web01", timeout=1) == ["a"]
    assert (guests.unready("id-web01"), guests.ready("id-web01")) == ([], [])
    assert guests.ready("id-of-nobody") == []
    stage.world.dead = {"s1"}
    assert guests.ready("id-web01", timeout=1) == ["a"], "nothing is lost with what is dead"
    stage.world.failing = {"s1"}
    with pytest.raises(Failed, match="moorline start"):
        guests.ready("id-web01", timeout=0.1)


def test_a_guest_that_does_not_shut_down_is_not_removed(stage: Stage) -> None:
    stage.launch()
    stage.machines.stubborn = {GuestId("id-web01")}
    with pytest.raises(Failed, match="still runs"):
        stage.remove()
    assert stage.is_launched()
    assert stage.remove(force=True)
    assert stage.is_empty()


def test_a_guest_that_outlives_its_power_is_not_removed_either(stage: Stage) -> None:
    stage.launch()
    stage.machines.undying = {GuestId("id-web01")}
    with pytest.raises(Failed, match="had its power cut and still runs") as failure:
        stage.remove(force=True)
    assert "--force" not in str(failure.value)
    assert stage.is_launched()


class Silent(ToyLifecycle):
    """Its answers to *stops* requests to stop a guest never come; the last one's effect does."""

    stops = 1

    def stop(self, guest: GuestId, *, force: bool) -> None:
        if self.stops:
            self.stops -= 1
            raise Uncertain("the hypervisor did not answer")
        super().stop(guest, force=force)


def test_a_stop_without_an_answer_is_told_while_it_is_waited_for(stage: Stage) -> None:
    stage.launch()
    stage.machines = silent = Silent(stage.world)
    silent.launched, silent.stops = {GuestId("id-web01")}, 1000
    told: list[str] = []
    with pytest.raises(Uncertain, match=r"not known whether it stopped: .* did not answer"):
        stage.owner().guests.remove("web01", force=True, timeout=1.5, progress=told.append)
    assert "the hypervisor did not answer; waiting for it" in told
    assert stage.is_launched()
    silent.stops = 1
    stage.owner().guests.remove("web01", force=True, timeout=5)
    assert stage.is_empty()


def test_saved_memory_is_not_lost_unasked(stage: Stage) -> None:
    stage.launch()
    stage.machines.stop(GuestId("id-web01"), force=True)
    stage.machines.saved = {GuestId("id-web01")}
    with pytest.raises(Refused, match="saved"):
        stage.remove()
    assert len(stage.records.all()) == 2
    assert stage.remove(force=True)


def test_a_guest_that_is_gone_already_leaves_its_volumes_to_be_taken_away(stage: Stage) -> None:
    stage.launch()
    del stage.world.guests[GuestId("id-web01")]
    assert stage.remove()
    assert stage.is_empty()
    with pytest.raises(NotFound):  # as of a name that nobody ever had
        stage.remove()
    assert stage.remove("3f2a9c4e-1111-4222-8333-abcdefabcdef") is None


def test_a_guest_that_was_renamed_is_not_meant_by_its_old_name(stage: Stage) -> None:
    stage.launch()
    stage.guest().name = "db01"
    with pytest.raises(NotFound):
        stage.remove()
    assert stage.is_launched()
    assert stage.remove("db01", force=True)
    assert stage.is_empty()


def test_a_guest_that_is_named_as_the_id_of_another_is_not_meant_by_that(stage: Stage) -> None:
    stage.launch()
    stage.world.guests[GuestId("g2")] = ToyGuest("id-web01")
    stage.owner().attachments.attach("g2", connection("c"))
    stage.machines.stop(GuestId("id-web01"), force=True)
    stage.world.guests[GuestId("g2")].live = {}
    stage.world.mounts.clear()
    guests = stage.owner().guests
    assert guests.unready("id-web01") == ["a", "b"]
    assert [view.guest_id for view in guests.start("web01").attachments] == ["id-web01"] * 2
    stage.owner().attachments.attach("g2", connection("c"))
    assert stage.remove("web01", force=True)
    assert [row.key.guest for row in stage.records.all()] == ["g2"]
    assert VolumeId("c") in stage.world.guests[GuestId("g2")].live


def test_a_hypervisor_without_machines_is_refused_plainly() -> None:
    rig = Rig("g1")
    with pytest.raises(Refused, match="does not make, start or remove toy guests"):
        rig.owner().guests.launch("web01", connection("a"))
    rig.attachment("a", "g1", Level.ATTACHED)
    with pytest.raises(Refused):
        rig.owner().guests.remove("g1", any=True)
    assert len(rig.records.all()) == 1


def test_steps_on_the_guest_itself_are_in_the_event_log(stage: Stage, tmp_path: Path) -> None:
    event_log = EventLog(tmp_path)
    guests = Moorline(
        stage.records,
        stage.reconciler(),
        ToyHypervisor(stage.world),
        stage.machines,
        environment=replace(bare(), event_log=event_log),
    ).guests
    guests.launch("web01", connection("a"))
    stage.machines.stubborn.add(GuestId("id-web01"))
    with pytest.raises(Failed):
        guests.remove("web01", timeout=0.1)
    guests.remove("web01", force=True)
    told = [(each.step, each.outcome, each.guest) for each in event_log.read()]
    assert told == [
        ("define", "done", "web01"),
        ("start", "done", "web01"),
        ("stop", "failed", "web01"),
        ("stop", "done", "web01"),
        ("undefine", "done", "web01"),
    ]


def test_what_it_boots_from_must_be_given(stage: Stage) -> None:
    with pytest.raises(Refused, match="boot from a volume"):
        stage.owner().guests.launch("web01")
    assert stage.is_empty()
