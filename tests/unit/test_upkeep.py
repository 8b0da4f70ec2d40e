"""The loop on a toy host: it heals what nobody asks it to heal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from rig import Rig

from moorline.backlog import Backlog
from moorline.lanes import Lanes
from moorline.looker import Looker
from moorline.model import GuestId, Level, VolumeId
from moorline.reconciler import Reconciler
from moorline.testing.toys import ToyHypervisor, ToyShare
from moorline.upkeep import Upkeep
from moorline.worker import Worker

G = GuestId("g1")
V = VolumeId("v1")


def until(true: Callable[[], object], deadline: float = 5.0) -> None:
    end = time.monotonic() + deadline
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


class Loop:
    """An upkeep of a toy host, and the parts that tests look into."""

    def __init__(self, rig: Rig, *, every: float = 60.0, grace: float = 0.0) -> None:
        self.rig = rig
        self.lanes = Lanes()
        backends = {"toy": ToyShare(rig.world)}
        hypervisor = ToyHypervisor(rig.world)
        hurried = Reconciler(rig.records, backends, hypervisor, self.lanes.impatient())
        looking = Reconciler(rig.records, backends, hypervisor, Lanes())
        self.upkeep = Upkeep(
            rig.records,
            Worker(rig.records, hurried),
            Looker(rig.records, looking, hypervisor),
            every=every,
            grace=grace,
            backlog=Backlog(),
        )

    def has(self, guest: GuestId, volume: VolumeId) -> bool:
        toy = self.rig.world.guests[guest]
        return volume in toy.live and volume in toy.defined

    def quiet(self) -> bool:
        swept = self.upkeep.swept
        return swept is not None and not self.upkeep.pending()


@pytest.fixture
def rig() -> Rig:
    return Rig("g1", "g2")


@pytest.fixture
def loop(rig: Rig) -> Iterator[Loop]:
    loop = Loop(rig)
    yield loop
    assert loop.upkeep.stop(5)
    assert not rig.world.violations


def test_a_wish_that_is_there_at_the_start_comes_true(rig: Rig, loop: Loop) -> None:
    rig.wish("v1", "g1", Level.ATTACHED)
    loop.upkeep.start()
    until(lambda: loop.has(G, V) and loop.quiet())


def test_a_wish_that_is_made_later_is_noticed(rig: Rig, loop: Loop) -> None:
    loop.upkeep.start()
    until(loop.quiet)
    rig.wish("v1", "g1", Level.ATTACHED)
    until(lambda: loop.has(G, V))
