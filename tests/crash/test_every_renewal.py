"""Kill the owner before and after every effect while the disks of a paused guest are given anew."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from moorline.model import Level
from moorline.testing.faults import Fault
from tests.support.rig import Rig

EFFECTS = range(40)


def survives(faults: Sequence[tuple[int, Fault]]) -> int:
    """Let the client die once, with *faults*, and once more; how many of them struck."""
    rig = Rig("g1", "g2")
    rig.world.write_through = {"s1"}
    for volume, guest in (("a", "g1"), ("b", "g1"), ("c", "g2")):
        rig.attachment(volume, guest, Level.ATTACHED)
    rig.settle()
    for planned in (faults, ()):
        rig.world.dead.add("s1")
        for guest in rig.world.guests.values():
            guest.waits = True
        rig.world.faults.plan(*planned)
        rig.settle()
        for guest in rig.world.guests.values():
            assert (guest.waits, guest.lost, guest.held) == (False, set(), set()), planned
        assert rig.records.renewals() == {}
    rig.check({("a", "g1"): Level.ATTACHED, ("c", "g2"): Level.ATTACHED})
    return rig.world.faults.struck


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_every_effect(fault: Fault, record_property) -> None:
    struck = 0
    for at in EFFECTS:
        if not survives([(at, fault)]):
            break
        struck += 1
    record_property("crash_points", struck)
    assert 15 < struck < len(EFFECTS)


@pytest.mark.parametrize("faults", [(Fault.KILL_BEFORE, Fault.KILL_AFTER), (Fault.KILL_AFTER,) * 2])
def test_two_of_them(faults: tuple[Fault, Fault], record_property) -> None:
    pairs = itertools.combinations(range(16), 2)
    struck = sum(survives([*zip(at, faults, strict=True)]) for at in pairs)
    record_property("crash_points", struck)
    assert struck > 100
