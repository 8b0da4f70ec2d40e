"""When a host of a fleet takes its passes."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Iterator

import pytest

from moorline.deadline import Clock
from moorline.fleet import keys
from moorline.fleet.host_look import Pace
from moorline.fleet.host_threads import Following
from moorline.ports import Put
from moorline.testing.toy_store import MemoryStore

PATIENCE_SECONDS = 30.0
"""Of a test that fails."""
REST_SECONDS = 3600.0


class Host:
    """One that only tells of its passes."""

    pace = Pace.AT_REST

    def __init__(self) -> None:
        self.passes: queue.Queue[None] = queue.Queue()

    def advance(self) -> None:
        self.passes.put(None)

    def beat(self) -> None:
        pass


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def host(store: MemoryStore) -> Iterator[Host]:
    """It follows, and finds that hours have passed whenever it looks at its clock."""
    host, hours = Host(), itertools.count(0, 10 * REST_SECONDS)
    clock = Clock(lambda: float(next(hours)))
    following = Following(host, "h1", store, clock=clock, rest=REST_SECONDS)  # type: ignore[arg-type]
    following.start()
    yield host
    assert following.stop()


def test_who_rested_acts_at_the_first_word(host: Host, store: MemoryStore) -> None:
    """Not after yet another rest, which would be the longest part of an attach."""
    for _ in range(2):  # the first one, and that for what was wanted by then
        host.passes.get(timeout=PATIENCE_SECONDS)
    store.commit([], [Put(f"{keys.desired('h1')}g1", b"{}")])
    host.passes.get(timeout=PATIENCE_SECONDS)
