"""What a pass leaves alone: what somebody else is at, needs, or writes above."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from moorline.core.locks import Locks
from moorline.core.plan import Step
from moorline.core.reconciler import Reconciler
from moorline.errors import Busy, Refused
from moorline.model import Attachment, Disk, GuestId, Held, Level, Seen, Unlinked, VolumeId
from moorline.testing.toys import BASE, ToyHypervisor, ToyShare
from tests.support.rig import Rig

SHARE = str(BASE / "s1")
G1 = GuestId("g1")


@pytest.fixture
def rig() -> Rig:
    rig = Rig("g1", "g2")
    for guest in rig.world.guests.values():
        guest.running = False
    return rig


# --- locks


LOCKS: dict[str, tuple[str, Callable[[Reconciler, Attachment], object]]] = {
    "a pass": ("guest g1", lambda owner, row: owner.advance(row.key)),
    "a pass that changes the link": (f"link {SHARE}", lambda owner, row: owner.advance(row.key)),
    "the link alone": (f"link {SHARE}", lambda owner, row: owner.connect(row)),
    "a new connection": (f"link {SHARE}", lambda owner, row: owner.prepare(row)),
    "what is left": (
        f"link {SHARE}",
        lambda owner, row: owner.tidy(row, Seen(Unlinked(), held=Held.FREE)),
    ),
}


@pytest.mark.parametrize("what", LOCKS)
def test_nothing_is_done_where_somebody_else_is_at_it(rig: Rig, what: str) -> None:
    name, act = LOCKS[what]
    rig.attachment("a", "g1", Level.ATTACHED)
    (row,) = rig.records.all()
    locks = Locks(patience=0.05)
    backends = {"toy": ToyShare(rig.world)}
    owner = Reconciler(rig.records, backends, ToyHypervisor(rig.world), locks)
    with locks.hold(name), pytest.raises(Busy):
        act(owner, row)
    assert rig.world.faults.count == 1, "but for the record that was made"
    act(owner, row)


# --- others


@pytest.mark.parametrize("hands_off", [False, True])
def test_a_link_that_another_attachment_wants_stays_though_no_guest_names_it(
    rig: Rig, hands_off: bool
) -> None:
    for volume, guest in (("a", "g1"), ("b", "g2")):
        rig.attachment(volume, guest, Level.CONNECTED)
    rig.settle()
    (row,) = [row for row in rig.records.all() if row.key.volume == "a"]
    rig.records.put(replace(row, want=Level.ABSENT, hands_off=hands_off))
    assert rig.reconciler().advance(row.key).step is Step.FORGET
    assert SHARE in rig.world.mounts


# --- snapshots


class Snapshots(ToyHypervisor):
    """The guest writes to a file above each of its volumes."""

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        found = super().disks(guest)
        return {
            volume: replace(disk, source=f"{disk.source}.snap", beneath=(disk.source,))
            for volume, disk in found.items()
        }


@pytest.mark.parametrize("linked", [True, False])
def test_a_disk_above_its_volume_stays_whether_its_link_is_there_or_not(
    rig: Rig, linked: bool
) -> None:
    rig.attachment("a", "g1", Level.ATTACHED)
    rig.settle()
    if not linked:
        rig.world.mounts.clear()  # the guest is off, and the host was started anew
    hypervisor = Snapshots(rig.world)
    owner = Reconciler(rig.records, {"toy": ToyShare(rig.world)}, hypervisor, Locks())
    (row,) = rig.records.all()
    with pytest.raises(Refused, match="external snapshot above the volume"):
        owner.demand_takeable(row)
    row = rig.records.put(replace(row, want=Level.ABSENT))
    assert owner.advance(row.key).step is Step.PARK
    assert rig.world.guests[G1].defined
