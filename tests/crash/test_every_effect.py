"""Kill the owner before and after every effect of every short history of two volumes."""

from __future__ import annotations

import itertools

import pytest

from moorline.model import Level
from moorline.testing.faults import Fault
from tests.support.rig import Rig

STORIES = list(itertools.product(itertools.product(Level, repeat=2), repeat=3))
EFFECTS = range(14)


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_two_volumes_of_one_share_converge(fault: Fault, record_property) -> None:
    runs = struck = 0
    for story in STORIES:
        for at in EFFECTS:
            rig = Rig("g1", "g2")
            rig.world.faults.plan((at, fault))
            for first, second in story:
                rig.survive(lambda w=first, r=rig: r.attachment("a", "g1", w))
                rig.survive(lambda w=second, r=rig: r.attachment("b", "g2", w))
                rig.settle()
            # A kill may have eaten the last attachment before it was acknowledged.
            rig.world.faults.plan()
            rig.attachment("a", "g1", story[-1][0])
            rig.attachment("b", "g2", story[-1][1])
            rig.settle()
            rig.check({("a", "g1"): story[-1][0], ("b", "g2"): story[-1][1]})
            runs += 1
            struck += rig.world.faults.struck
            if not rig.world.faults.struck:
                break  # the history has fewer effects than that
    record_property("histories", runs)
    record_property("crash_points", struck)
    assert struck > 1000


@pytest.mark.parametrize("faults", list(itertools.product(Fault, repeat=2)))
def test_two_faults_in_one_history_converge(faults: tuple[Fault, Fault], record_property) -> None:
    runs = struck = 0
    for first, second in itertools.combinations(range(10), 2):
        rig = Rig("g1", "g2")
        rig.world.faults.plan((first, faults[0]), (second, faults[1]))
        for want in (Level.ATTACHED, Level.ABSENT, Level.ATTACHED):
            rig.survive(lambda w=want, r=rig: r.attachment("a", "g1", w))
            rig.survive(lambda w=want, r=rig: r.attachment("b", "g2", w))
            rig.settle()
        rig.world.faults.plan()
        rig.attachment("a", "g1", Level.ABSENT)
        rig.attachment("b", "g2", Level.ATTACHED)
        rig.settle()
        rig.check({("a", "g1"): Level.ABSENT, ("b", "g2"): Level.ATTACHED})
        runs += 1
        struck += rig.world.faults.struck
    record_property("histories", runs)
    record_property("crash_points", struck)
    assert struck
