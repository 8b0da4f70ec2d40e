"""What is advised, and refused, where a disk may be given anew."""

from __future__ import annotations

import pytest

from moorline.errors import Refused
from moorline.model import GuestId, Level, VolumeId
from tests.support.rig import Rig

G1, A = GuestId("g1"), VolumeId("a")


@pytest.fixture
def rig() -> Rig:
    rig = Rig("g1")
    rig.world.write_through = {"s1"}
    rig.attachment("a", "g1", Level.ATTACHED)
    rig.settle()
    rig.world.dead.add("s1")
    return rig


def detach(rig: Rig, *, dry_run: bool = False) -> None:
    rig.owner().attachments.detach("g1", "a", timeout=0, dry_run=dry_run)


def wanted(rig: Rig) -> Level:
    (row,) = rig.records.all()
    return row.want


@pytest.mark.parametrize("is_back", [False, True])
def test_a_disk_that_a_paused_guest_is_to_get_anew_is_not_detached(
    rig: Rig, *, is_back: bool
) -> None:
    """Else it is to go, and so is given anew no more: the guest could only be destroyed."""
    guest = rig.world.guests[G1]
    guest.waits = True
    if is_back:
        rig.world.missing.add("/toy/s1/a")
        rig.owner().attachments.sweep()
        assert (guest.lost, guest.waits) == ({A}, True)
    for dry_run in (False, True):
        with pytest.raises(Refused, match="is to be given volume a anew"):
            detach(rig, dry_run=dry_run)
    assert wanted(rig) is Level.ATTACHED
    rig.world.missing.clear()
    rig.settle()
    assert (guest.lost, guest.waits) == (set(), False)
    rig.survive(lambda: detach(rig))
    assert wanted(rig) is Level.ABSENT


def test_of_a_guest_that_was_given_up_it_is_detached(rig: Rig) -> None:
    guest = rig.world.guests[G1]
    guest.waits = guest.running = False
    guest.live.clear()
    detach(rig)
    assert rig.records.all() == []


@pytest.mark.parametrize("so", ["running", "paused otherwise", "not said to write through"])
def test_what_would_not_be_given_anew_is_to_go(rig: Rig, so: str) -> None:
    if so != "running":
        rig.world.guests[G1].waits = True
    if so == "paused otherwise":
        rig.world.dead.clear()
    if so == "not said to write through":
        rig.world.write_through.clear()
    rig.survive(lambda: detach(rig))
    assert [row.want for row in rig.records.all()] in ([], [Level.ABSENT])


def test_a_guest_that_was_told_of_errors_is_not_promised_its_disk(rig: Rig) -> None:
    """No sweep gives it to it: it was attached without --on-error stop."""
    rig.world.guests[G1].told_of_errors = {A}
    rig.owner().attachments.sweep()
    (finding,) = rig.owner().maintenance.doctor().findings
    assert (finding.check, finding.next) == ("stale-disk", "moorline detach g1 a")
    rig.world.guests[G1].told_of_errors = set()  # it stands still at its first error
    (finding,) = rig.owner().maintenance.doctor().findings
    assert finding.check == "not-renewed"
