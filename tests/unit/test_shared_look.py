"""One look for all who asked before it began, and for nobody who asked later."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from moorline.errors import Uncertain
from moorline.shared_look import SharedLook

ASKERS = 5
SECONDS = 10


class Looks:
    """A look that ends when it is told to; its answer is its number."""

    def __init__(self) -> None:
        self.number = 0
        self.begun = threading.Semaphore(0)
        self.end = threading.Semaphore(0)
        self.errors: dict[int, BaseException] = {}
        self.asked: list[Sequence[str]] = []
        self.shared = SharedLook(self.look)

    def look(self, asked: Sequence[str]) -> int:
        self.asked.append(sorted(asked))
        self.number += 1
        number = self.number
        self.begun.release()
        assert self.end.acquire(timeout=SECONDS)
        if number in self.errors:
            raise self.errors[number]
        return number


@pytest.fixture
def looks() -> Looks:
    return Looks()


@contextmanager
def one_under_way(looks: Looks) -> Iterator[tuple[Future[int], list[Future[int]]]]:
    """A look, and others who ask while it is made. At the end it has its answer."""
    with ThreadPoolExecutor(ASKERS + 1) as pool:
        first = pool.submit(looks.shared.ask, "first")
        assert looks.begun.acquire(timeout=SECONDS)
        waiting = threading.Barrier(ASKERS + 1)

        def ask(n: int) -> int:
            waiting.wait(SECONDS)
            return looks.shared.ask(f"other {n}")

        others = [pool.submit(ask, n) for n in range(ASKERS)]
        waiting.wait(SECONDS)
        while len(looks.shared._changed._waiters) < ASKERS:  # type: ignore[attr-defined]
            pass
        yield first, others
        for _ in range(ASKERS):
            looks.end.release()


def test_who_asks_while_one_is_under_way_is_given_the_next(looks: Looks) -> None:
    with one_under_way(looks) as (first, others):
        assert not any(other.done() for other in others)
        looks.end.release()
        assert first.result(SECONDS) == 1
    assert [other.result(SECONDS) for other in others] == [2] * ASKERS
    assert looks.number == 2
    assert looks.asked == [["first"], [f"other {n}" for n in range(ASKERS)]]


def test_one_after_the_other_each_has_a_look_of_his_own(looks: Looks) -> None:
    for number in (1, 2, 3):
        looks.end.release()
        assert looks.shared.ask() == number


def test_an_error_is_told_to_all_who_waited_for_it_and_to_nobody_else(looks: Looks) -> None:
    looks.errors[2] = Uncertain("libvirt did not answer")
    with one_under_way(looks) as (first, others):
        looks.end.release()
        assert first.result(SECONDS) == 1
    for other in others:
        with pytest.raises(Uncertain):
            other.result(SECONDS)
    looks.end.release()
    assert looks.shared.ask() == 3


def test_one_that_is_interrupted_leaves_the_others_to_look_themselves(looks: Looks) -> None:
    looks.errors[1] = looks.errors[2] = KeyboardInterrupt()
    with one_under_way(looks) as (first, others):
        looks.end.release()
        with pytest.raises(KeyboardInterrupt):
            first.result(SECONDS)
    outcomes = [other.exception(SECONDS) for other in others]
    assert sum(isinstance(each, KeyboardInterrupt) for each in outcomes) == 1
    assert {other.result() for other in others if other.exception() is None} == {3}
    assert looks.asked[2] == looks.asked[1], "what was asked is asked again"
