"""Whether a guest is let go on, and from when on what its disks have may be its own."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, cast

import pytest

from moorline.core.renewals import Renewals
from moorline.errors import Refused
from moorline.model import GuestId, Level, Renewal, VolumeId
from moorline.testing.faults import Fault, Killed
from moorline.testing.toy_renewal import ToyDiskRenewal
from moorline.testing.toys import BASE
from tests.support.rig import Rig

G1 = GuestId("g1")
FILE = str(BASE / "s1/a")


def killed(*, goes_on: bool) -> Rig:
    """Of a guest that may go on, and does or does not yet, when the owner is killed.

    The death was long ago.
    """
    for at in range(20):
        rig = dead()
        for key, renewal in rig.records.renewals().items():
            rig.records.note_renewal(key, replace(renewal, seen_dead=5.0))
        rig.world.faults.plan((at, Fault.KILL_BEFORE))
        with pytest.raises(Killed):
            advance(rig)
        known = list(rig.records.renewals().values())
        may = goes_on or all(renewal.let_go for renewal in known)
        if known and may and rig.world.guests[G1].waits != goes_on:
            return rig
    raise AssertionError("it is not killed there")


def dead() -> Rig:
    """The client died under a guest, and its share was mounted anew."""
    rig = Rig("g1")
    rig.world.write_through = {"s1"}
    rig.attachment("a", "g1", Level.ATTACHED)
    rig.settle()
    die(rig)
    for _ in range(2):
        advance(rig)
    return rig


def die(rig: Rig) -> None:
    rig.world.dead.add("s1")
    rig.world.guests[G1].waits = True


def advance(rig: Rig) -> None:
    (row,) = rig.records.all()
    rig.reconciler().advance(row.key)


def test_what_it_wrote_since_is_its_own_at_the_next_death() -> None:
    rig = killed(goes_on=True)
    rig.world.changed[FILE] = time.time()
    die(rig)
    rig.settle()
    assert (rig.world.guests[G1].waits, rig.records.renewals()) == (False, {})


def test_while_it_is_still_paused_its_file_is_looked_at_again() -> None:
    rig = killed(goes_on=False)
    rig.world.changed[FILE] = time.time()
    with pytest.raises(Refused, match="was changed"):
        advance(rig)
    assert rig.world.guests[G1].waits


def test_who_lost_nothing_and_stopped_of_something_else_stays_so() -> None:
    """It was started anew, and its new disk is full, say."""
    rig = dead()
    rig.world.guests[G1].lost = set()
    rig.world.missing.add(FILE)  # which is no reason to keep what was recorded
    advance(rig)
    assert (rig.world.guests[G1].waits, rig.records.renewals()) == (True, {})


def test_it_waits_for_a_disk_of_which_it_cannot_be_told_what_it_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = dead()
    rig.attachment("b", "g1", Level.ATTACHED)
    (other,) = (row.key for row in rig.records.all() if row.key.volume == "b")
    rig.records.note_renewal(other, Renewal(5.0))
    rig.world.guests[G1].lost.add(other.volume)
    told = ToyDiskRenewal.lost_file

    def lost_file(self: ToyDiskRenewal, guest: GuestId, volume: VolumeId) -> int | None:
        if volume == other.volume:
            raise Refused("it cannot be told")
        return told(self, guest, volume)

    monkeypatch.setattr(ToyDiskRenewal, "lost_file", lost_file)
    rig.reconciler().advance(next(row.key for row in rig.records.all() if row.key != other))
    assert rig.world.guests[G1].waits
    assert other in rig.records.renewals()


def test_a_hypervisor_that_gives_no_disk_anew_is_allowed_none() -> None:
    rig = dead()
    parts, none = rig.reconciler(), cast(Any, object())
    renewals = Renewals(rig.records, none, parts._links, parts.files)
    (row,) = rig.records.all()
    assert rig.reconciler().renewals.is_allowed(row)
    assert not renewals.is_allowed(row)
    with pytest.raises(Refused, match="not said to write through"):
        renewals.foresee(row)
