"""Whether a paused guest is given its disks anew after the client of their share died."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorline.api import Moorline
from moorline.cli.output import table
from moorline.core.links import Links
from moorline.core.plan import Step
from moorline.core.renewals import demand_unchanged
from moorline.errors import MoorlineError, Refused
from moorline.loop.drift import DriftDetector
from moorline.model import (
    BlockDevice,
    Broken,
    Caching,
    CheckedAs,
    Client,
    DiskSource,
    GuestId,
    ImageFile,
    Level,
    Renewal,
    Use,
    VolumeId,
)
from moorline.ports.inspection import Finding
from moorline.testing import toy_renewal
from moorline.testing.toy_renewal import inode_of
from moorline.testing.toys import BASE, ToyGuest, ToyHypervisor
from tests.support.care_rig import ToyInventory
from tests.support.environment import bare
from tests.support.rig import Rig

G1 = GuestId("g1")
A, B = VolumeId("a"), VolumeId("b")
FILE = str(BASE / "s1/a")


@pytest.fixture
def rig() -> Rig:
    """A guest with two disks on a share whose client writes through."""
    rig = Rig("g1")
    rig.world.write_through = {"s1"}
    for volume in ("a", "b"):
        rig.attachment(volume, "g1", Level.ATTACHED)
    rig.settle()
    return rig


def die(rig: Rig) -> None:
    """The client dies while the guest writes."""
    rig.world.dead.add("s1")
    rig.world.guests[G1].waits = True


def steps(rig: Rig, volume: str = "a", most: int = 6) -> list[Step]:
    """The steps that are taken for a volume, until there is nothing more to do now."""
    (key,) = (row.key for row in rig.records.all() if row.key.volume == volume)
    taken = []
    while len(taken) < most:
        step = rig.reconciler().advance(key).step
        taken.append(step)
        if step in (Step.NOTHING, Step.PARK, Step.WAIT):
            break
    return taken


def test_the_guest_goes_on_once_after_all_its_disks(rig: Rig) -> None:
    die(rig)
    guest = rig.world.guests[G1]
    assert steps(rig, "a") == [Step.DISCONNECT, Step.CONNECT, Step.RENEW, Step.NOTHING]
    assert (guest.waits, guest.lost) == (True, {B})
    assert steps(rig, "b") == [Step.RENEW, Step.NOTHING]
    assert (guest.waits, guest.lost, guest.held) == (False, set(), set())
    assert rig.records.renewals() == {}
    guest.waits = True  # it stops again, of another error: nothing is done about that
    assert steps(rig, "a") == steps(rig, "b") == [Step.NOTHING]
    assert guest.waits


def test_a_sweep_of_two_disks_leaves_nothing_undone(rig: Rig) -> None:
    die(rig)
    assert rig.owner().attachments.sweep() == []
    assert not rig.world.guests[G1].waits


def test_without_the_operator_s_word_all_is_as_ever(rig: Rig) -> None:
    rig.world.write_through = set()
    die(rig)
    assert steps(rig) == [Step.DISCONNECT, Step.CONNECT, Step.PARK]
    assert rig.records.renewals() == {}
    rig.world.write_through = {"s1"}  # said afterwards: nobody saw the client's end for it
    assert steps(rig) == [Step.PARK]
    assert rig.world.guests[G1].waits


def test_a_word_that_is_taken_back_counts_at_once(rig: Rig) -> None:
    """A client turns out to write back later: what it had not written would be lost, silently."""
    die(rig)
    assert steps(rig, most=2) == [Step.DISCONNECT, Step.CONNECT]
    rig.world.write_through = set()
    assert steps(rig) == [Step.PARK]
    assert (rig.world.guests[G1].waits, rig.world.guests[G1].lost) == (True, {A, B})
    rig.world.write_through = {"s1"}
    assert steps(rig) == [Step.RENEW, Step.NOTHING]


@pytest.mark.parametrize("so", [{"want": Level.CONNECTED}, {"hands_off": True}], ids=str)
def test_a_disk_that_is_not_ours_to_plug_is_not_given_anew(rig: Rig, so: dict[str, Any]) -> None:
    """Its death is not recorded, nor does one count that was."""
    (row,) = (row for row in rig.records.all() if row.key.volume == A)
    die(rig)
    steps(rig, "b", most=2)
    rig.records.put(replace(row, **so))
    assert not rig.reconciler().renewals.is_allowed(replace(row, **so))
    assert Step.RENEW not in steps(rig, "a")
    assert A in rig.world.guests[G1].lost
    rig.records.note_renewal(row.key, None)
    rig.world.dead.add("s1")
    steps(rig, "b", most=1)
    assert row.key not in rig.records.renewals()


def test_a_client_that_was_not_seen_dead_is_no_reason(rig: Rig) -> None:
    """A person takes the mount away whose client may still write: it must not be renewed."""
    rig.world.guests[G1].waits = True
    rig.world.mounts.pop(str(BASE / "s1"))
    rig.world.guests[G1].lost = {A, B}
    assert steps(rig) == [Step.CONNECT, Step.PARK]
    assert rig.world.guests[G1].lost == {A, B}


@pytest.mark.parametrize("client", [each for each in Client if each is not Client.GONE])
def test_no_death_is_recorded_that_was_not_seen(rig: Rig, client: Client) -> None:
    """It may be writing what it had cached: over what the guest writes when it goes on."""
    for row in rig.records.all():
        rig.reconciler().renewals.note_death(row, Broken("it fails", client))
    assert rig.records.renewals() == {}


def test_a_client_that_is_presumed_dead_is_no_reason(rig: Rig) -> None:
    """Its connection has ended, as by an abort, and it may be where we see no processes."""
    rig.world.presumed.add("s1")
    die(rig)
    findings = rig.owner().maintenance.doctor().findings
    assert not any("give" in finding.why for finding in findings)
    assert steps(rig) == [Step.DISCONNECT, Step.CONNECT, Step.PARK]
    assert rig.records.renewals() == {}
    assert (rig.world.guests[G1].waits, rig.world.guests[G1].lost) == (True, {A, B})


def test_the_death_of_one_share_s_client_is_not_another_s(rig: Rig) -> None:
    """Else a mount that a person takes from under the other, whose client writes on, is renewed."""
    rig.world.write_through |= {"s2"}
    rig.attachment("c", "g1", Level.ATTACHED, share="s2")
    rig.settle()
    die(rig)
    steps(rig, most=1)
    assert {key.volume for key in rig.records.renewals()} == {A, B}


def test_a_guest_that_was_told_of_errors_is_refused_by_name(rig: Rig) -> None:
    die(rig)
    rig.world.guests[G1].waits = False
    with pytest.raises(Refused, match="not paused by an I/O error"):
        steps(rig)
    (view,) = rig.owner().attachments.show("a")
    assert view.next.startswith("renew")
    rig.world.guests[G1].running = False  # a restart gives it all disks anew
    rig.world.guests[G1].lost = set()
    rig.settle()
    assert rig.records.renewals() == {}


@pytest.mark.parametrize("seconds", [3.0, 600.0])
def test_a_file_that_was_changed_after_the_death_is_refused(rig: Rig, seconds: float) -> None:
    """Another host started the guest meanwhile: what that wrote would be overwritten."""
    die(rig)
    rig.world.changed[FILE] = time.time() + seconds
    with pytest.raises(Refused, match="was changed"):
        steps(rig)
    assert (rig.world.guests[G1].waits, A in rig.world.guests[G1].lost) == (True, True)
    recorded = {key.volume: renewal.inode for key, renewal in rig.records.renewals().items()}
    assert recorded == {A: inode_of(FILE), B: 0}, "what it had is recorded before anything is done"
    rig.world.dead.add("s1")  # a second death makes the first no later
    with pytest.raises(Refused, match="was changed"):
        steps(rig)
    rig.world.changed.clear()
    rig.settle()
    assert not rig.world.guests[G1].waits


def test_a_file_that_is_changed_while_its_disk_is_given_anew_is_refused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again before each call that may let the guest write."""
    die(rig)
    hold = toy_renewal._hold

    def held(guest: ToyGuest, volume: VolumeId) -> None:
        hold(guest, volume)
        rig.world.changed[FILE] = time.time() + 60

    monkeypatch.setattr(toy_renewal, "_hold", held)
    with pytest.raises(Refused, match="was changed"):
        steps(rig)
    assert (rig.world.guests[G1].waits, rig.world.guests[G1].held) == (True, {A})


def test_a_file_whose_last_change_is_not_told_is_refused() -> None:
    with pytest.raises(Refused, match="was changed"):
        demand_unchanged(CheckedAs(Path(FILE), 51, 7, 0.0), Renewal(5.0, 7))
    demand_unchanged(CheckedAs(Path(FILE), 51, 7, 4.0), Renewal(5.0, 7))


def test_a_file_that_was_replaced_is_refused(rig: Rig) -> None:
    die(rig)
    rig.world.replaced.add(FILE)
    with pytest.raises(Refused, match="another file"):
        steps(rig)
    assert A in rig.world.guests[G1].lost


def test_a_file_that_another_guest_has_got_meanwhile_is_refused(rig: Rig) -> None:
    die(rig)
    steps(rig, most=2)
    others = {Use(FILE, "raw")}
    rig.world.guests[GuestId("g2")] = ToyGuest("g2", foreign={FILE}, uses=others)
    with pytest.raises(Refused, match="g2"):
        steps(rig)
    assert (rig.world.guests[G1].waits, A in rig.world.guests[G1].lost) == (True, True)


@pytest.mark.parametrize(
    "what", [BlockDevice(Path(FILE), Caching.DIRECT), ImageFile(Path(FILE), "raw")], ids=str
)
def test_what_is_no_file_that_was_looked_at_is_not_given(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, what: DiskSource
) -> None:
    die(rig)
    steps(rig, most=2)
    monkeypatch.setattr(Links, "verified", lambda self, row, link=None: what)
    with pytest.raises(Refused, match="is no file"):
        steps(rig)
    assert A in rig.world.guests[G1].lost


def test_the_first_death_counts_until_the_guest_has_gone_on(rig: Rig) -> None:
    """Else a change between two deaths of the client would be taken for the guest's own."""
    die(rig)
    steps(rig, most=1)
    first = rig.records.renewals()
    key = next(key for key in first if key.volume == A)
    rig.records.note_renewal(key, replace(first[key], seen_dead=5.0))
    rig.world.changed[FILE] = 100.0
    for _ in range(2):
        with pytest.raises(Refused, match="was changed"):
            steps(rig)
        rig.world.dead.add("s1")
    assert rig.records.renewals()[key].seen_dead == 5.0
    rig.records.note_renewal(key, Renewal(5.0, 7, done=True))  # it waits for its other disk
    steps(rig, most=1)
    assert rig.records.renewals()[key] == Renewal(5.0, 7)
    steps(rig, most=1)  # it is mounted anew
    rig.world.dead.add("s1")
    rig.records.note_renewal(key, Renewal(5.0, 7, done=True, let_go=True))  # that one is over
    steps(rig, most=1)
    assert rig.records.renewals()[key].seen_dead > 100.0


def test_a_file_that_was_changed_while_the_guest_waited_for_its_other_disk_is_refused(
    rig: Rig,
) -> None:
    """Or while nobody went on, after whoever gave it its disks was killed."""
    die(rig)
    assert steps(rig, "a")[-2:] == [Step.RENEW, Step.NOTHING]
    rig.world.changed[FILE] = time.time() + 60
    with pytest.raises(Refused, match="was changed"):
        steps(rig, "b")
    guest = rig.world.guests[G1]
    assert (guest.waits, guest.lost, guest.held) == (True, set(), set())
    assert not any(renewal.let_go for renewal in rig.records.renewals().values())
    with pytest.raises(Refused, match="was changed"):
        steps(rig, "a")
    rig.world.changed.clear()
    rig.settle()
    assert (guest.waits, rig.records.renewals()) == (False, {})


def test_a_volume_that_is_not_plugged_yet_keeps_no_guest_paused(rig: Rig) -> None:
    rig.world.missing.add(str(BASE / "s1/c"))
    rig.attachment("c", "g1", Level.ATTACHED)
    die(rig)
    assert steps(rig, "a")[-2:] == steps(rig, "b") == [Step.RENEW, Step.NOTHING]
    assert not rig.world.guests[G1].waits
    assert rig.records.renewals() == {}


def test_what_is_recorded_goes_with_its_attachment(rig: Rig) -> None:
    die(rig)
    steps(rig, most=2)
    assert len(rig.records.renewals()) == 2
    rig.world.guests[G1].waits = False
    rig.attachment("a", "g1", Level.ABSENT)
    rig.attachment("b", "g1", Level.ABSENT)
    rig.settle()
    assert rig.records.renewals() == {}


def test_another_guest_on_the_share_is_not_disturbed(rig: Rig) -> None:
    rig.world.guests[GuestId("g2")] = ToyGuest("g2")
    rig.attachment("c", "g2", Level.ATTACHED)
    rig.settle()
    die(rig)
    with pytest.raises(MoorlineError):
        steps(rig, "c")  # g2 is told of errors
    assert steps(rig, "a") == [Step.RENEW, Step.NOTHING]
    assert steps(rig, "b") == [Step.RENEW, Step.NOTHING]
    assert not rig.world.guests[G1].waits


def test_the_doctor_says_why_a_paused_guest_waits(rig: Rig) -> None:
    """And not that its disk be detached and attached again, which a paused guest cannot do."""
    die(rig)
    rig.world.changed[FILE] = time.time() + 60
    rig.owner().attachments.sweep()
    found = {each.check: each for each in rig.owner().maintenance.doctor().findings}
    assert "was changed" in found["not-renewed"].what
    assert "stale-disk" not in found


def test_list_says_which_guest_is_paused_and_by_what(rig: Rig) -> None:
    assert {view.paused for view in rig.owner().attachments.list()} == {""}
    die(rig)
    views = rig.owner().attachments.list()
    why = f"g1 is paused by an I/O error of toy-a on the dead share {BASE / 's1'}"
    assert [view.paused for view in views] == [why, why.replace("toy-a", "toy-b")]
    assert rig.owner().attachments.show("a")[0].paused == why
    shown = table(views).splitlines()
    assert shown[-2].startswith(why)
    assert len(table([replace(view, paused="") for view in views]).splitlines()) == 3
    rig.world.dead.clear()
    (other, _) = rig.owner().attachments.list()
    assert "or for want of space" in other.paused
    rig.world.hung.add("s1")
    assert "which does not work" in rig.owner().attachments.list()[0].paused
    rig.world.guests[G1].waits = False
    assert {view.paused for view in rig.owner().attachments.list()} == {""}


def test_guests_that_are_paused_are_named_for_the_alert(rig: Rig) -> None:
    rig.world.guests[GuestId("g2")] = ToyGuest("g2", waits=True)  # nothing of it is ours

    def paused() -> Mapping[str, str]:
        hypervisor = ToyHypervisor(rig.world)
        return DriftDetector(rig.records, rig.reconciler(), hypervisor).everywhere().paused

    assert paused() == {}
    die(rig)
    why = f"g1 is paused by an I/O error of toy-{{}} on the dead share {BASE / 's1'}"
    assert paused() == {"g1": "; ".join(map(why.format, "ab"))}


def test_a_guest_that_goes_on_by_itself_is_not_to_be_destroyed_nor_resumed(rig: Rig) -> None:
    """The one would lose what it has not written, the other only make it stop again."""
    die(rig)
    inventory = ToyInventory()
    text = "there was an I/O error of its disk vda"
    inventory.findings = [Finding("paused-guest", "g1", text, "resume it", "virsh resume g1")]
    environment = replace(bare(), inventory=inventory)
    hypervisor = ToyHypervisor(rig.world)

    def found() -> dict[str, str]:
        owner = Moorline(rig.records, rig.reconciler(), hypervisor, environment=environment)
        assert owner.maintenance.explain("a")[0].next in ("moorline sweep", "virsh resume g1")
        return {each.check: each.next for each in owner.maintenance.doctor().findings}

    assert found() == {"dead-share": "moorline sweep", "paused-guest": "moorline sweep"}
    rig.world.changed[FILE] = time.time() + 60
    rig.owner().attachments.sweep()
    assert found() == {"not-renewed": "moorline sweep", "paused-guest": "moorline sweep"}
    rig.world.changed.clear()
    rig.settle()
    assert found() == {"paused-guest": "virsh resume g1"}, "another error, of another disk"
