"""A volume that moves to another datastore, on a toy whose shares are datastores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from moorline.api import Moorline
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Busy, NotFound, Refused, Uncertain
from moorline.model import DatastoreDisk, GuestId, Level, VolumeId
from moorline.testing.faults import Fault
from moorline.testing.toys import BASE, ToyHypervisor, ToyShare
from tests.support.environment import bare
from tests.support.rig import Rig


class Mover(ToyHypervisor):
    """Disks can move between its shares."""

    blind_then = False
    """It answers no question any more once it has done something."""
    moved = 0

    def relocate(
        self,
        guest: GuestId,
        volume: VolumeId,
        datastore: str,
        *,
        round_up: bool = False,
        progress: Callable[[int], None],
        dry_run: bool = False,
    ) -> DatastoreDisk:
        if dry_run:
            return DatastoreDisk("s1", "a")
        self.moved += 1
        toy = self._world.guests[guest]
        self._world.mounts[str(BASE / datastore)] = datastore
        toy.live[volume] = toy.defined[volume] = path = f"{BASE}/{datastore}/a"
        toy.uses = {replace(use, path=path) for use in toy.uses}
        self._world.blind = self.blind_then
        return DatastoreDisk(datastore, "a")


@pytest.fixture
def rig() -> Rig:
    return Rig("g1")


@pytest.fixture
def hypervisor(rig: Rig) -> Mover:
    return Mover(rig.world)


@pytest.fixture
def locks() -> Locks:
    return Locks(patience=0.05)


@pytest.fixture
def moorline(rig: Rig, hypervisor: Mover, locks: Locks) -> Moorline:
    """With the volume ``a`` attached to the guest."""
    backends = {"toy": ToyShare(rig.world)}
    reconciler = Reconciler(rig.records, backends, hypervisor, locks)
    moorline = Moorline(rig.records, reconciler, hypervisor, environment=bare())
    data = {"share": "s1", "name": "a", "volume_id": "a"}
    moorline.attachments.attach("g1", {"driver_volume_type": "toy", "data": data})
    return moorline


def test_a_volume_that_moved_and_is_recorded_where_it_was(rig: Rig, moorline: Moorline) -> None:
    rig.world.faults.plan((0, Fault.FAIL))
    with pytest.raises(Uncertain, match="volume a is on s2 now, and then: a fault"):
        moorline.attachments.relocate("g1", "a", "s2")
    (row,) = rig.records.all()
    assert row.link == str(BASE / "s1")
    view = moorline.attachments.relocate("g1", "a", "s2")
    assert (view.link, view.seen) == (str(BASE / "s2"), "attached")


def test_a_volume_that_moved_and_is_recorded_has_moved(
    rig: Rig, moorline: Moorline, hypervisor: Mover
) -> None:
    hypervisor.blind_then = True
    view = moorline.attachments.relocate("g1", "a", "s2")
    assert (view.link, view.seen) == (str(BASE / "s2"), "unknown")
    assert [row.link for row in rig.records.all()] == [view.link]


def test_only_what_is_attached_moves(rig: Rig, moorline: Moorline, hypervisor: Mover) -> None:
    for guest, volume in (("g1", "3f2a9c4e-1111-4222-8333-abcdefabcdef"), ("g2", "a")):
        with pytest.raises(NotFound):
            moorline.attachments.relocate(guest, volume, "s2")
    (row,) = rig.records.all()
    for want in (Level.CONNECTED, Level.ABSENT):
        row = rig.records.put(replace(row, want=want))
        with pytest.raises(NotFound, match="is not attached to g1"):
            moorline.attachments.relocate("g1", "a", "s2")
    assert not hypervisor.moved


def test_nothing_moves_while_somebody_else_is_at_its_guest(
    moorline: Moorline, hypervisor: Mover, locks: Locks
) -> None:
    with locks.hold("guest g1"), pytest.raises(Busy):
        moorline.attachments.relocate("g1", "a", "s2")
    assert not hypervisor.moved


def test_a_hypervisor_that_has_no_datastores_refuses(rig: Rig, moorline: Moorline) -> None:
    with pytest.raises(Refused, match="disks of toy guests lie on no datastore"):
        rig.owner().attachments.relocate("g1", "a", "s2")
