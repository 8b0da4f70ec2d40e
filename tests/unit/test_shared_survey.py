"""Attaches that wait at the same time share one look, which begins after each of them asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from moorline.api import Moorline
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Refused
from moorline.model import Guest, GuestId, GuestName, Level
from moorline.testing.toys import BASE, ToyHypervisor, ToyShare
from tests.support.environment import bare
from tests.support.rig import Rig, connection

ATTACHES = 100
SECONDS = 30


class Gated(ToyHypervisor):
    """Its looks at all guests are counted; the first one ends when it is told to."""

    surveys = 0

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.world)
        self.begun = threading.Event()
        self.end = threading.Event()

    def find(self, guest: str) -> GuestName:
        return GuestName(GuestId(guest), guest)

    def survey(self) -> Sequence[Guest]:
        self.surveys += 1
        seen = super().survey()
        if self.surveys == 1:
            self.begun.set()
            assert self.end.wait(SECONDS)
        return seen


class Crowd:
    """Many guests of one host, and a volume of one share for each."""

    def __init__(self) -> None:
        self.rig = Rig(*(f"g{n}" for n in range(ATTACHES)))
        self.rig.attachment("held", "g0", Level.CONNECTED)
        self.rig.settle()
        self.hypervisor = Gated(self.rig)
        shares = {"toy": ToyShare(self.rig.world)}
        self.reconciler = Reconciler(
            self.rig.records, shares, self.hypervisor, Locks(patience=SECONDS)
        )
        self.owner = Moorline(
            self.rig.records, self.reconciler, self.hypervisor, environment=bare()
        )
        self._pool = ThreadPoolExecutor(ATTACHES)

    def attach(self, n: int) -> Future[str]:
        """Begin to attach a volume."""
        attach = self.owner.attachments.attach
        return self._pool.submit(lambda: attach(f"g{n}", connection(f"v{n}"), timeout=0).view.seen)

    def waiting(self) -> int:
        """How many attaches wait for the next look."""
        following = self.reconciler.files._everyone._next
        return 0 if following is None else len(following.asked)

    def close(self) -> None:
        self.hypervisor.end.set()
        self._pool.shutdown()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    made = Crowd()
    yield made
    made.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_hundred_attaches_at_once_have_two_looks_at_all_guests(crowd: Crowd) -> None:
    """The first one's, and one for all who asked while that was made."""
    attaches = [crowd.attach(0)]
    assert crowd.hypervisor.begun.wait(SECONDS)
    attaches += [crowd.attach(n) for n in range(1, ATTACHES)]
    until(lambda: crowd.waiting() == ATTACHES - 1)
    crowd.hypervisor.end.set()
    assert {each.result(SECONDS) for each in attaches} == {"attached"}
    assert crowd.hypervisor.surveys == 2


def test_what_came_while_a_look_was_made_is_seen_by_who_asked_meanwhile(crowd: Crowd) -> None:
    first = crowd.attach(0)
    assert crowd.hypervisor.begun.wait(SECONDS)
    crowd.rig.world.guests[GuestId("g7")].foreign.add(f"{BASE}/s1/v1")
    second, third = crowd.attach(1), crowd.attach(2)
    until(lambda: crowd.waiting() == 2)
    crowd.hypervisor.end.set()
    assert (first.result(SECONDS), third.result(SECONDS)) == ("attached", "attached")
    with pytest.raises(Refused, match=f"g7 has {BASE}/s1/v1 already"):
        second.result(SECONDS)
