"""Extending: what is done about a size, on a toy host."""

from __future__ import annotations

import pytest

from moorline.api import Moorline
from moorline.errors import Failed, NotFound, Refused, Uncertain
from moorline.model import GuestId, Level, Sizes, VolumeId
from moorline.operations.extend import size_to_come
from moorline.testing.faults import Fault
from moorline.testing.toys import BASE, SIZE, ToyHypervisor
from tests.support.environment import bare
from tests.support.rig import Rig

A = VolumeId("a")
FILE = str(BASE / "s1/a")
CONNECTION = {"driver_volume_type": "toy", "data": {"share": "s1", "name": "a", "volume_id": "a"}}


@pytest.mark.parametrize(
    ("asked", "guest", "storage", "comes"),
    [
        (None, 10, 10, 10),
        (None, 10, 20, 20),
        (20, 10, 20, 20),
        (10, 10, 10, 10),
        (20, 10, None, 20),
        (10, 10, None, 10),
        (None, 10, 5, Refused),
        (None, 10, None, Refused),
        (5, 10, None, Refused),
        (5, 10, 20, Refused),
        (15, 10, 20, Refused),
        (20, 10, 10, Failed),
        (20, 10, 15, Failed),
    ],
)
def test_the_size_to_come(
    asked: int | None, guest: int, storage: int | None, comes: int | type[Exception]
) -> None:
    if isinstance(comes, int):
        assert size_to_come(A, asked, Sizes(guest, storage)) == comes
        return
    with pytest.raises(comes) as told:
        size_to_come(A, asked, Sizes(guest, storage))
    assert type(told.value) is comes


@pytest.fixture
def moorline(rig: Rig) -> Moorline:
    moorline = rig.owner()
    moorline.attachments.attach("g1", CONNECTION)
    return moorline


@pytest.mark.parametrize("asked", [None, 3 * SIZE])
def test_the_guest_is_told_once(rig: Rig, moorline: Moorline, asked: int | None) -> None:
    rig.world.sizes[FILE] = 3 * SIZE
    outcome = moorline.attachments.extend("g1", "a", asked)
    assert (outcome.steps, outcome.before, outcome.size) == (["extend"], SIZE, 3 * SIZE)
    assert outcome.view.seen == "attached"
    assert outcome.to_dict()["size"] == 3 * SIZE
    effects = rig.world.faults.count
    again = moorline.attachments.extend("g1", "a", asked)
    assert (again.steps, again.before, again.size) == ([], 3 * SIZE, 3 * SIZE)
    assert rig.world.faults.count == effects


def test_nobody_is_told_while_somebody_else_is_at_the_guest(rig: Rig) -> None:
    reconciler = rig.reconciler()
    moorline = Moorline(rig.records, reconciler, ToyHypervisor(rig.world), environment=bare())
    moorline.attachments.attach("g1", CONNECTION)
    rig.world.sizes[FILE] = 2 * SIZE
    effects = rig.world.faults.count
    with reconciler.with_guest(GuestId("g1")), pytest.raises(Failed, match="still under way"):
        moorline.attachments.extend("g1", "a", timeout=0)
    assert rig.world.faults.count == effects
    assert moorline.attachments.extend("g1", "a").steps == ["extend"]


def test_a_dry_run_tells_nobody(rig: Rig, moorline: Moorline) -> None:
    rig.world.sizes[FILE] = 2 * SIZE
    effects = rig.world.faults.count
    outcome = moorline.attachments.extend("g1", "a", dry_run=True)
    assert (outcome.steps, outcome.before, outcome.size) == (["extend"], SIZE, 2 * SIZE)
    assert rig.world.faults.count == effects


def test_storage_that_is_not_as_large_yet_is_waited_for(rig: Rig, moorline: Moorline) -> None:
    waits: list[str] = []

    def progress(why: str) -> None:
        waits.append(why)
        rig.world.sizes[FILE] = 2 * SIZE

    outcome = moorline.attachments.extend("g1", "a", 2 * SIZE, progress=progress)
    assert (outcome.size, len(waits)) == (2 * SIZE, 1)
    with pytest.raises(Failed, match=rf"only .*\({2 * SIZE} bytes\) of .*\({4 * SIZE} bytes\)"):
        moorline.attachments.extend("g1", "a", 4 * SIZE, timeout=0.1)


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.LOST, Fault.UNDONE])
def test_what_went_wrong_is_looked_at_again(rig: Rig, moorline: Moorline, fault: Fault) -> None:
    rig.world.sizes[FILE] = 2 * SIZE
    rig.world.faults.plan((0, fault))
    outcome = moorline.attachments.extend("g1", "a")
    assert (outcome.steps, outcome.before, outcome.size) == (["extend"], SIZE, 2 * SIZE)
    assert rig.world.faults.struck == 1


class Deaf(ToyHypervisor):
    """Says that it told the guest, who did not hear it."""

    def extend(self, guest: GuestId, volume: VolumeId, size: int) -> int:
        return size


class Fixed(ToyHypervisor):
    """Cannot extend: as far as the port's check can tell, it has no such method."""

    extend = None  # type: ignore[assignment]


def test_a_size_that_is_not_seen_is_uncertain(rig: Rig, moorline: Moorline) -> None:
    rig.world.sizes[FILE] = 2 * SIZE
    deaf = Moorline(rig.records, rig.reconciler(), Deaf(rig.world), environment=bare())
    with pytest.raises(Uncertain, match="was told of"):
        deaf.attachments.extend("g1", "a", timeout=0)


def test_a_hypervisor_that_cannot_is_refused(rig: Rig, moorline: Moorline) -> None:
    fixed = Moorline(rig.records, rig.reconciler(), Fixed(rig.world), environment=bare())
    with pytest.raises(Refused, match="toy guests"):
        fixed.attachments.extend("g1", "a")


def test_what_is_no_disk_is_not_extended(rig: Rig, moorline: Moorline) -> None:
    with pytest.raises(NotFound):
        moorline.attachments.extend("g2", "a")
    with pytest.raises(NotFound):
        moorline.attachments.extend("g1", "nothing-of-ours")
    rig.owner().attachments.attach(
        "g2",
        {**CONNECTION, "data": {"share": "s1", "name": "b"}},
        volume="b",
        level=Level.CONNECTED,
    )
    with pytest.raises(NotFound, match="not attached"):
        moorline.attachments.extend("g2", "b")
