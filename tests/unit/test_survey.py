"""A look at this host that is shared by one call, and by nobody else."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from moorline.core.links import Links
from moorline.core.survey import Survey
from moorline.model import Guest, GuestId
from tests.support.rig import Rig

SECONDS = 10


def test_nobody_waits_for_a_look_of_somebody_else() -> None:
    """Of a hypervisor that hangs, each has his own deadline."""
    rig, hangs, asked = Rig("g1"), threading.Event(), threading.Event()

    def never() -> Sequence[Guest]:
        asked.set()
        assert hangs.wait(SECONDS)
        return []

    stuck, other = (Survey(rig.records, look, Links({})) for look in (never, list))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: stuck.disks(GuestId("g1")))
        assert asked.wait(SECONDS)
        second = pool.submit(lambda: (other.disks(GuestId("g1")), other.guests, other.rows))
        try:
            assert second.result(SECONDS / 2) == ({}, [], [])
        finally:
            hangs.set()
        assert first.result(SECONDS) == {}


def test_each_thing_is_looked_at_once() -> None:
    rig, looks = Rig("g1"), []

    def look() -> Sequence[Guest]:
        looks.append(1)
        return [Guest(GuestId("g1"), "g1", True, {}, frozenset())]

    survey = Survey(rig.records, look, Links({}))
    for _ in range(2):
        assert survey.disks(GuestId("g1")) == survey.disks(GuestId("g2")) == {}
        assert [guest.id for guest in survey.guests] == ["g1"]
    assert looks == [1]
