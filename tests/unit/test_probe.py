"""The pool of looking children and its quarantine, with children made of threads."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from moorline.deadline import Clock
from moorline.errors import Refused, Uncertain
from moorline.host.probe.pool import MAX_PAUSE_SECONDS, Probe


class World:
    """Shares that hang, children that look at them, and a clock."""

    def __init__(self) -> None:
        self.hung: set[str] = set()
        self.undying = False
        self.now = 1000.0
        self.mounts: dict[str, int] = {}
        self.children: list[Child] = []
        self.asked: list[str] = []
        self.busy: Callable[[], None] = lambda: None
        """What a child that is started from now on does before it answers."""
        self.probe = Probe(
            self.start,
            deadline=2.0,
            incarnation=lambda share: self.mounts.get(share, 0),
            clock=Clock(lambda: self.now),
        )

    def start(self) -> Child:
        self.children.append(Child(self))
        return self.children[-1]

    def ask(self, share: str = "/a", **question: Any) -> dict[str, Any]:
        return self.probe.ask(share, {"share": share, **question})

    def is_uncertain(self, share: str = "/a") -> bool:
        try:
            self.ask(share)
        except Uncertain:
            return True
        return False


class Child:
    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = False
        self.busy: Callable[[], None] = world.busy

    def ask(self, question: bytes, deadline: float) -> bytes:
        asked = json.loads(question)
        self.world.asked.append(asked["share"])
        if self.dead:
            raise EOFError
        if asked["share"] in self.world.hung:
            raise TimeoutError
        self.busy()
        return json.dumps(asked.get("answer", {"size": 0})).encode()

    def kill(self) -> None:
        self.dead = not self.world.undying

    def gone(self) -> bool:
        return self.dead


@pytest.fixture
def world() -> World:
    return World()


def test_one_child_serves_many_questions(world: World) -> None:
    for share in ("/a", "/b", "/a"):
        assert world.ask(share) == {"size": 0}
    assert len(world.children) == 1


def test_a_hung_share_costs_one_deadline_and_is_then_answered_at_once(world: World) -> None:
    world.hung.add("/a")
    assert all(world.is_uncertain() for _ in range(100))
    assert world.asked == ["/a"], "one child tried, and nobody waited again"
    assert world.children[0].dead


def test_other_shares_are_not_slowed(world: World) -> None:
    world.hung.add("/a")
    world.is_uncertain("/a")
    assert world.ask("/b") == {"size": 0}


def test_a_share_that_recovers_is_found_out(world: World) -> None:
    world.hung.add("/a")
    world.is_uncertain()
    world.hung.clear()
    assert world.is_uncertain(), "not before the pause is over"
    world.now += 2.0
    assert world.ask() == {"size": 0}
    assert world.ask() == {"size": 0}


def test_pauses_grow_up_to_a_limit(world: World) -> None:
    world.hung.add("/a")
    for _ in range(2000):
        world.is_uncertain()
        world.now += 0.5
    tries = len(world.asked)
    assert 1000 / MAX_PAUSE_SECONDS - 5 <= tries <= 1000 / MAX_PAUSE_SECONDS + 10


def test_while_a_child_cannot_die_no_other_is_sent_after_it(world: World) -> None:
    world.hung.add("/a")
    world.undying = True
    for _ in range(100):
        assert world.is_uncertain()
        world.now += 60
    assert world.asked == ["/a"]
    world.hung.clear()
    assert world.is_uncertain(), "the stuck child is the proof that it hangs still"
    world.children[0].dead = True
    assert world.ask() == {"size": 0}


def test_another_mount_at_the_same_path_starts_afresh(world: World) -> None:
    world.hung.add("/a")
    world.undying = True
    world.is_uncertain()
    world.hung.clear()
    world.mounts["/a"] = 7
    assert world.ask() == {"size": 0}


def test_a_child_that_ended_while_idle_is_replaced_once(world: World) -> None:
    world.ask()
    world.children[0].dead = True
    assert world.ask() == {"size": 0}
    assert len(world.children) == 2


def test_children_that_always_end_are_uncertain(world: World) -> None:
    original = world.start

    def stillborn() -> Child:
        child = original()
        child.dead = True
        return child

    probe = Probe(stillborn, deadline=1)
    with pytest.raises(Uncertain, match="ended"):
        probe.ask("/a", {"share": "/a"})


def test_a_replacement_that_hangs_is_quarantined_too(world: World) -> None:
    world.ask()
    world.children[0].dead = True
    world.hung.add("/a")
    assert world.is_uncertain()
    assert world.children[1].dead
    asked = len(world.asked)
    assert world.is_uncertain()
    assert len(world.asked) == asked


def test_refusals_and_errors_come_through(world: World) -> None:
    with pytest.raises(Refused, match="why") as refusal:
        world.ask(answer={"refused": "why", "hint": "do"})
    assert refusal.value.hint == "do"
    with pytest.raises(FileNotFoundError, match="/x"):
        world.ask(answer={"errno": 2, "text": "no", "path": "/x"})


def test_one_question_at_a_time_about_a_share(world: World) -> None:
    together, most = 0, 0
    lock = threading.Lock()

    def busy() -> None:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.005)
        with lock:
            together -= 1

    original = world.start

    def start() -> Child:
        child = original()
        child.busy = busy
        return child

    probe = Probe(start, deadline=5)

    def ask(share: str) -> None:
        probe.ask(share, {"share": share})

    def most_at_once(shares: Sequence[str]) -> int:
        nonlocal most
        most = 0
        threads = [threading.Thread(target=ask, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return most

    assert most_at_once("aaaaaaaa") == 1
    assert most_at_once("abcdefgh") > 1


def test_twenty_quick_questions_at_once_need_few_children(world: World) -> None:
    # A child that is started costs more than most looks: twenty shares that are mounted at once
    # were slowed by the children that looked at them.
    world.busy = lambda: time.sleep(0.005)
    probe = Probe(world.start, deadline=60, patience=60)
    together = threading.Barrier(20)

    def ask(n: int) -> dict[str, Any]:
        together.wait()
        return probe.ask(f"/{n}", {"share": f"/{n}"})

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == [{"size": 0}] * 20
    assert 1 < len(world.children) <= 4


def test_who_asks_while_all_children_look_at_slow_shares_gets_one_of_its_own(world: World) -> None:
    together, done = threading.Barrier(5), threading.Event()

    def slowly() -> None:
        together.wait()
        done.wait()

    world.busy = slowly
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(world.ask, f"/slow{n}") for n in range(4)]
        together.wait()
        world.busy = lambda: None
        try:
            assert world.ask("/quick") == {"size": 0}
        finally:
            done.set()
        assert [each.result() for each in slow] == [{"size": 0}] * 4


def test_closing_kills_the_children(world: World) -> None:
    world.ask()
    world.probe.close()
    assert world.children[0].dead
