"""Disks that hold what their volume does not: no verb takes them away, and each says what helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from moorline.api import Moorline
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Failed, MoorlineError, NotOurs, Refused
from moorline.model import Disk, DiskState, Guest, GuestId, Level, VolumeId
from moorline.testing.toys import SIZE, ToyHypervisor, ToyShare
from tests.support.environment import bare
from tests.support.rig import Rig, connection
from tests.support.toy_machines import ToyLifecycle

G1 = GuestId("g1")
COPY = "/elsewhere/copy"
See = Callable[[Disk], Disk]
SEEN: dict[str, See] = {
    "pivoted": lambda disk: replace(disk, source=COPY),
    "deleted": lambda disk: replace(disk, replaced="its file was deleted while the guest ran"),
    "snapshot": lambda disk: replace(disk, source="/above", beneath=(disk.source,)),
}


class Odd(ToyHypervisor):
    """Its guests' disks are not what they were, once *see* says so."""

    see: See = staticmethod(lambda disk: disk)
    job = 0
    """How many more detaches a block job keeps from a disk; then it is pivoted to a copy."""

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        return {volume: self.see(disk) for volume, disk in super().disks(guest).items()}

    def survey(self) -> Sequence[Guest]:
        return [
            replace(guest, disks={volume: self.see(disk) for volume, disk in guest.disks.items()})
            for guest in super().survey()
        ]

    def detach(self, guest: GuestId, volume: VolumeId) -> None:
        if self.job:
            self.job -= 1
            if not self.job:
                self.see = SEEN["pivoted"]
            raise Failed("a block job works on it", hint="virsh blockjob")
        super().detach(guest, volume)


@pytest.fixture
def odd(rig: Rig) -> Odd:
    return Odd(rig.world)


@pytest.fixture
def moorline(rig: Rig, odd: Odd) -> Moorline:
    reconciler = Reconciler(rig.records, {"toy": ToyShare(rig.world)}, odd, Locks(patience=1.0))
    machines = ToyLifecycle(rig.world)
    moorline = Moorline(rig.records, reconciler, odd, machines, environment=bare())
    moorline.attachments.attach("g1", connection())
    return moorline


def is_whole(rig: Rig) -> bool:
    guest = rig.world.guests[G1]
    return set(guest.live) == set(guest.defined) == {"a"} and not guest.leaving


@pytest.mark.parametrize("how", SEEN)
def test_it_is_not_detached_and_stays_recorded(
    rig: Rig, odd: Odd, moorline: Moorline, how: str
) -> None:
    odd.see = SEEN[how]
    before = rig.records.all()
    with pytest.raises(Refused, match="is not taken from g1") as refused:
        moorline.attachments.detach("g1", "a")
    assert "virsh block" in refused.value.hint
    assert rig.records.all() == before
    with pytest.raises(Refused, match="is not taken from g1"):
        moorline.guests.remove("g1", force=True, any=True)
    moorline.attachments.sweep()
    assert is_whole(rig)


@pytest.mark.parametrize("how", SEEN)
def test_it_is_not_detached_later_either(rig: Rig, odd: Odd, moorline: Moorline, how: str) -> None:
    (row,) = rig.records.all()
    rig.records.put(replace(row, want=Level.ABSENT))
    odd.see = SEEN[how]
    moorline.attachments.sweep()
    (told,) = moorline.attachments.list()
    assert told.next.startswith("park: ")
    with pytest.raises(Refused):
        moorline.attachments.detach("g1", "a", timeout=0)
    assert is_whole(rig)
    odd.see = Odd.see
    moorline.attachments.sweep()
    rig.settle()
    assert not rig.records.all()


def test_a_released_disk_whose_file_was_replaced_is_told_as_such(
    odd: Odd, moorline: Moorline
) -> None:
    """What doctor names is not refused when it is done, and a dry run says what would come."""
    moorline.maintenance.release("g1", "a")
    told = {each.check for each in moorline.maintenance.doctor().findings}
    assert "unwanted-disk" in told
    odd.see = SEEN["deleted"]
    found = {each.check: each for each in moorline.maintenance.doctor().findings}
    assert "unwanted-disk" not in found
    assert "was deleted while the guest ran" in found["replaced-image"].what
    assert "detach" not in found["replaced-image"].next
    repair = moorline.maintenance.repair
    foreseen = repair(disks=True, boot_disks=True, dry_run=True)[0]
    made = repair(disks=True, boot_disks=True)[0]
    assert foreseen == made
    assert "is not taken from g1" in foreseen.problem


@pytest.mark.parametrize(
    ("how", "check", "error"),
    [("pivoted", "other-disk", NotOurs), ("snapshot", "snapshot", Refused)],
)
def test_a_released_disk_that_is_another_file_since_is_told_with_what_helps(
    odd: Odd, moorline: Moorline, how: str, check: str, error: type[MoorlineError]
) -> None:
    """Detach does not take it, so it is not named as the way out."""
    moorline.maintenance.release("g1", "a")
    odd.see = SEEN[how]
    found = {each.check: each for each in moorline.maintenance.doctor().findings}
    assert "unwanted-disk" not in found
    assert odd.see(Disk(DiskState.WHOLE, source="/mnt/s1/a")).source in found[check].what
    assert found[check].subject == "g1/a"
    with pytest.raises(error) as told:
        moorline.attachments.detach("g1", "a")
    assert told.value.hint in (found[check].next, found[check].why.partition(": ")[2])
    assert told.value.hint.strip("`").startswith("virsh ")
    made = moorline.maintenance.repair(disks=True, boot_disks=True)
    assert all(each.problem for each in made if each.action == "detach")
    odd.see = Odd.see
    assert "unwanted-disk" in {each.check for each in moorline.maintenance.doctor().findings}


def test_what_a_block_job_made_of_it_is_looked_at(rig: Rig, odd: Odd, moorline: Moorline) -> None:
    odd.job = 2
    before = rig.records.all()[0]
    with pytest.raises(Refused, match=COPY):
        moorline.attachments.detach("g1", "a")
    assert is_whole(rig)
    (after,) = rig.records.all()
    assert replace(after, revision=before.revision) == before, "as if it had not been asked for"


@pytest.mark.parametrize("how", ["deleted", "snapshot"])
def test_one_that_was_released_is_not_taken(
    rig: Rig, odd: Odd, moorline: Moorline, how: str
) -> None:
    moorline.maintenance.release("g1", "a")
    odd.see = SEEN[how]
    with pytest.raises(Refused, match="is not taken from g1"):
        moorline.attachments.detach("g1", "a")
    with pytest.raises(Refused, match="is not taken from g1"):
        moorline.guests.remove("g1", force=True, any=True)
    for repair in moorline.maintenance.repair(disks=True, boot_disks=True):
        assert repair.action != "detach" or repair.problem
    assert is_whole(rig)


def test_a_block_job_of_one_that_was_released(rig: Rig, odd: Odd, moorline: Moorline) -> None:
    moorline.maintenance.release("g1", "a")
    odd.job = 2
    with pytest.raises(NotOurs, match=COPY):
        moorline.attachments.detach("g1", "a")
    assert is_whole(rig)


@pytest.mark.parametrize("how", ["pivoted", "deleted"])
def test_it_is_not_extended(rig: Rig, odd: Odd, moorline: Moorline, how: str) -> None:
    rig.world.sizes["/mnt/s1/a"] = rig.world.sizes[COPY] = 2 * SIZE
    odd.see = SEEN[how]
    with pytest.raises(Refused, match="is not extended"):
        moorline.attachments.extend("g1", "a")
    assert not rig.world.guests[G1].told


def test_a_guest_that_was_asked_before_is_waited_for(
    rig: Rig, odd: Odd, moorline: Moorline
) -> None:
    """What is closed already has no name either: that is no reason to give up."""
    rig.world.guests[G1].deaf = True
    with pytest.raises(Failed, match="not yet gone"):
        moorline.attachments.detach("g1", "a", timeout=1.2)
