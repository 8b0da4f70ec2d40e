"""The plug-in's patience with the agent: how long it waits, and for whom."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from moorline_nova.agent import Agent
from moorline_nova.pending import Use

from moorline.deadline import Clock
from moorline.errors import Busy, MoorlineError, Refused, Unavailable, Uncertain

USES = [Use("7b1d2f6e-3a0c-4b5e-9d8f-0a1b2c3d4e5f", name) for name in "abcdefgh"]
A = USES[0]


class World:
    """A clock, and an agent behind a socket that does as it is told."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.does: Callable[[float], None] = lambda longest: None
        self.calls: list[tuple[str, float, dict[str, Any]]] = []
        self.agent = Agent("/s", client=self.client, clock=Clock(lambda: self.clock, self.passes))

    def client(self, socket: str, longest: float) -> Any:
        return SimpleNamespace(attachments=Attachments(self, longest))

    def passes(self, seconds: float) -> None:
        self.clock += seconds

    def took(self, act: Callable[[], Any], error: type[MoorlineError] | None = None) -> float:
        begun = self.clock
        if error is None:
            act()
        else:
            with pytest.raises(error):
                act()
        return self.clock - begun

    def is_away(self, longest: float) -> None:
        raise Unavailable("no agent answers")

    def hangs(self, longest: float) -> None:
        self.clock += longest
        raise Uncertain("no answer")


class Attachments:
    """Those of the agent's client, as far as they are used."""

    def __init__(self, world: World, longest: float) -> None:
        self.world = world
        self._longest = longest

    def attach(self, *args: Any, **named: Any) -> Any:
        self._call("attach", named)
        return SimpleNamespace(view=SimpleNamespace(source={"type": "ImageFile"}))

    def detach(self, *args: Any, **named: Any) -> Any:
        self._call("detach", named)
        return SimpleNamespace(view=SimpleNamespace(seen="absent"))

    def list(self) -> list[Any]:
        self._call("list", {})
        wanted = zip(USES, ("attached", "connected", "absent"), strict=False)
        return [
            SimpleNamespace(guest_id=use.instance, volume=use.volume, wanted=level)
            for use, level in wanted
        ]

    def _call(self, name: str, named: dict[str, Any]) -> None:
        self.world.calls.append((name, self._longest, named))
        self.world.does(self._longest)


@pytest.fixture
def world() -> World:
    return World()


def attach(world: World, use: Use = A, timeout: float = 120.0) -> Callable[[], Any]:
    return lambda: world.agent.attach(use, {}, timeout, shared=False)


@pytest.mark.parametrize("timeout", [1.0, 5.0, 120.0])
def test_an_agent_that_hangs_costs_the_time_out_and_no_more(world: World, timeout: float) -> None:
    world.does = world.hangs
    assert world.took(attach(world, timeout=timeout), Uncertain) <= timeout
    assert world.took(lambda: world.agent.detach(A, timeout), Uncertain) <= timeout
    for name, longest, named in world.calls:
        if name == "attach":  # it has time left to say why it was not done
            assert 0 < named["timeout"] < longest


def test_one_that_is_lost_again_and_again_costs_no_more_either(world: World) -> None:
    def lost(longest: float) -> None:
        world.clock += min(longest, 40)
        raise Uncertain("the connection ended")

    world.does = lost
    assert world.took(attach(world), Uncertain) <= 120


def test_one_that_is_lost_and_away_then_is_waited_for_until_the_end(world: World) -> None:
    def lost(longest: float) -> None:
        world.does = world.is_away
        raise Uncertain("the connection ended")

    world.does = lost
    assert 119 <= world.took(attach(world), Unavailable) <= 120.5


def test_a_restart_is_waited_for_once_for_all_volumes(world: World) -> None:
    world.does = world.is_away
    waited = [world.took(lambda use=use: world.agent.detach(use, 120), Unavailable) for use in USES]
    assert 5 <= waited[0] < 7
    assert waited[1:] == [0] * 7


def test_several_threads_wait_for_the_same_restart(world: World) -> None:
    world.does = world.is_away
    ends: list[float] = []

    def run(use: Use) -> None:
        world.took(lambda: world.agent.detach(use, 120), Unavailable)
        ends.append(world.clock)

    threads = [threading.Thread(target=run, args=[use]) for use in USES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(ends) - 1000 < 12  # 40 one after the other


@pytest.mark.parametrize("answer", [None, Refused("no"), Busy("later")])
def test_once_it_answered_the_next_restart_is_waited_for(
    world: World, answer: MoorlineError | None
) -> None:
    world.does = world.is_away
    world.took(attach(world), Unavailable)

    def answers(longest: float) -> None:
        if answer:
            raise answer

    world.does = answers
    world.took(attach(world), type(answer) if answer else None)
    world.does = world.is_away
    assert world.took(attach(world), Unavailable) >= 5


def test_an_absence_of_long_ago_is_another_one(world: World) -> None:
    world.does = world.is_away
    world.took(attach(world), Unavailable)
    world.passes(600)
    assert world.took(attach(world), Unavailable) >= 5


def test_telling_later_has_no_patience(world: World) -> None:
    world.does = world.is_away
    assert world.took(lambda: world.agent.tell(A), Unavailable) == 0


def test_what_is_ending_is_no_use(world: World) -> None:
    assert world.agent.uses() == USES[:2]
