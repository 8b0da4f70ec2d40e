"""What Nova needs no more and could not be told the agent: remembered, delivered, forgotten.

None of it needs Nova: only the plug-in's own modules are loaded here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moorline_nova import controller
from moorline_nova.controller import Controller
from moorline_nova.pending import Pending, Use

from moorline.deadline import Clock
from moorline.errors import Failed, NotOurs, Refused, Uncertain
from tests.support.nova_agent import A, B, Told, away, nobody, process


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "moorline" / "host"


def test_names_come_back_as_they_were(directory: Path) -> None:
    pending = Pending(directory)
    assert pending.all() == set()
    odd = Use(A.instance, "../x_y%/ü\n")
    for use in (A, B, odd, A):
        pending.add(use)
    assert Pending(directory).all() == {A, B, odd}
    assert {path.parent for path in directory.parent.rglob("*_*")} == {directory}
    for use in (A, odd, odd):
        pending.discard(use)
    assert Pending(directory).all() == {B}


def test_what_is_not_ours_in_the_directory_is_left_alone(directory: Path) -> None:
    Pending(directory).add(A)
    (directory / "README").touch()
    assert Pending(directory).all() == {A}


def test_what_the_agent_was_not_told_is_told_when_it_is_back(directory: Path) -> None:
    agent = Told(A, B)
    nova = process(agent, directory)
    agent.away = away()
    for use in (A, B):
        nova.not_needed(use)
    assert not nova.look()
    agent.away = None
    assert nova.look()
    assert agent.kept == set()
    assert Pending(directory).all() == set()


@pytest.mark.parametrize("error", [away(), Uncertain("no answer"), Refused("not you")])
def test_what_was_not_heard_stays_pending(directory: Path, error: Exception) -> None:
    agent = Told(A)
    nova = process(agent, directory)
    nova.not_needed(A)
    agent.away = error
    assert not nova.look()
    assert Pending(directory).all() == {A}


@pytest.mark.parametrize("error", [Failed("the share is busy"), NotOurs("a stranger's mount")])
def test_what_the_agent_goes_on_with_is_told(directory: Path, error: Exception) -> None:
    agent = Told(A)
    nova = process(agent, directory)
    nova.not_needed(A)
    agent.away = error
    nova.look()
    assert Pending(directory).all() == set()


def test_one_that_fails_does_not_keep_the_others(directory: Path) -> None:
    class Picky(Told):
        def tell(self, use: Use) -> bool:
            if use == A:
                raise Uncertain("it hangs")
            return super().tell(use)

    agent = Picky(A, B)
    nova = process(agent, directory)
    nova.not_needed(A)
    nova.not_needed(B)
    nova.look()
    assert agent.kept == {A}
    assert Pending(directory).all() == {A}


def test_a_newer_attachment_is_not_undone(directory: Path) -> None:
    agent = Told(A)
    nova = process(agent, directory)
    nova.not_needed(A)
    nova.needed(A)
    for look in (nova.look, process(agent, directory).look):
        look()
        assert agent.kept == {A}


def test_nothing_is_told_while_nova_is_at_it(directory: Path) -> None:
    agent = Told(A)
    nova = process(agent, directory, nobody)
    nova.not_needed(A)
    with nova.turn(A):
        nova.look()
        assert agent.kept == {A}
    nova.look()
    assert agent.kept == set()


def test_an_attachment_that_cannot_be_taken_back_is_not_made(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nova = process(Told(A), directory)
    nova.not_needed(A)

    def fails(path: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", fails)
    with pytest.raises(OSError, match="Read-only"):
        nova.needed(A)
    assert Pending(directory).all() == {A}


def test_a_full_disk_is_remembered_as_long_as_the_process_lives(tmp_path: Path) -> None:
    in_the_way = tmp_path / "pending"
    in_the_way.touch()
    agent = Told(A)
    agent.away = away()
    nova = process(agent, in_the_way / "host")
    nova.not_needed(A)
    assert not nova.look()
    agent.away = None
    nova.look()
    assert agent.kept == set()


def test_who_needs_a_volume_no_more_makes_room_for_the_next(directory: Path) -> None:
    next_one = Use(B.instance, A.volume)
    agent = Told(A, B)
    nova = process(agent, directory)
    for use in (A, B, next_one):
        nova.not_needed(use)
    nova.make_room(next_one)
    assert agent.kept == {B}
    assert Pending(directory).all() == {B, next_one}


def test_room_that_another_thread_makes_is_waited_for(directory: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Told):
        def tell(self, use: Use) -> bool:
            begun.set()
            go_on.wait(30)
            return super().tell(use)

    agent = Slow(A)
    nova = process(agent, directory)
    nova.not_needed(A)
    kept: list[set[Use]] = []

    def make_room() -> None:
        nova.make_room(Use(B.instance, A.volume))
        kept.append(set(agent.kept))

    telling, asking = threading.Thread(target=nova.look), threading.Thread(target=make_room)
    telling.start()
    assert begun.wait(30)
    asking.start()
    asking.join(0.2)  # it would be over
    go_on.set()
    telling.join()
    asking.join()
    assert kept == [set()]


class TestComparing:
    def test_what_nova_does_not_know_is_let_go(self, directory: Path) -> None:
        agent = Told(A, B)
        assert process(agent, directory, lambda use: use == B).compare()
        assert agent.kept == {B}

    def test_what_this_process_connected_is_its_own_to_let_go(self, directory: Path) -> None:
        agent = Told(A)
        nova = process(agent, directory, nobody)
        nova.needed(A)
        nova.compare()
        assert agent.kept == {A}
        nova.told(A)
        nova.compare()
        assert agent.kept == set()

    def test_it_is_made_up_for_when_agent_or_nova_answer_again(self, directory: Path) -> None:
        agent = Told(A)
        asked: list[Use] = []

        def knows(use: Use) -> bool:
            asked.append(use)
            if len(asked) == 1:
                raise RuntimeError("no conductor answers")
            return False

        nova = process(agent, directory, knows)
        agent.away = away()
        assert not nova.look()
        agent.away = None
        assert not nova.look()
        assert agent.kept == {A}
        assert nova.look()
        assert agent.kept == set()

    def test_it_is_not_made_all_the_time(self, directory: Path) -> None:
        agent = Told()
        clock = [1000.0]
        nova = Controller(agent, Pending(directory), nobody, clock=Clock(lambda: clock[0]))
        assert nova.look()
        agent.kept = {A}
        assert nova.look()
        assert agent.kept == {A}
        clock[0] += controller.COMPARE_INTERVAL_SECONDS
        assert nova.look()
        assert agent.kept == set()


def test_the_thread_looks_by_itself(directory: Path) -> None:
    Pending(directory).add(A)
    agent = Told(A, B)
    done = threading.Event()

    def knows(use: Use) -> bool:
        done.set()
        return True

    nova = Controller(agent, Pending(directory), knows)
    nova.start()
    assert done.wait(30)
    assert agent.kept == {B}
    nova.stop()


CALLS = ("open", "fsync", "close", "mkdir", "unlink")


class Killed(BaseException):
    pass


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Die before the nth call that changes a file."""
    left = [-1]

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return real(*args, **named)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, dying(getattr(os, name)))

    def at(nth: int) -> None:
        left[0] = nth

    yield at
    left[0] = -1


def kills(kill: Callable[[int], None], act: Callable[[int], None]) -> Iterator[tuple[int, bool]]:
    """Do *act* again and again, killed at its first call, its second, until it is not.

    *act* is told which time this is, and so is the caller after it, and whether it came to its end.
    """
    for nth in range(1, 100):
        kill(nth)
        try:
            act(nth)
            lived = True
        except Killed:
            lived = False
        kill(-1)
        yield nth, lived
        if lived:
            assert nth > 2, "it has no steps between which it could be killed"
            return
    raise AssertionError("it never came to its end")


class TestKilled:
    """SIGKILL at each step: Nova is answered only after the last."""

    def test_while_it_remembers(self, tmp_path: Path, kill: Callable[[int], None]) -> None:
        def remember(nth: int) -> None:
            process(Told(), tmp_path / f"{nth}" / "host").not_needed(A)

        for nth, lived in kills(kill, remember):
            pending = Pending(tmp_path / f"{nth}" / "host")
            remembered = pending.all()
            assert remembered == {A} if lived else remembered <= {A}
            agent = Told(A)
            process(agent, tmp_path / f"{nth}" / "host").look()
            assert agent.kept == {A} - remembered
            assert pending.all() == set()

    def test_while_it_delivers_and_forgets(
        self, directory: Path, kill: Callable[[int], None]
    ) -> None:
        agent = Told()

        def deliver(nth: int) -> None:
            nova.look()

        def begin() -> Controller:
            agent.kept = {A}
            made = process(agent, directory)
            made.not_needed(A)
            return made

        nova = begin()
        for _, _lived in kills(kill, deliver):
            process(agent, directory).look()
            assert agent.kept == set()
            assert Pending(directory).all() == set()
            nova = begin()

    def test_while_it_takes_back(self, directory: Path, kill: Callable[[int], None]) -> None:
        def begin() -> Controller:
            made = process(Told(), directory)
            made.not_needed(A)
            return made

        def take_back(nth: int) -> None:
            now[0].needed(A)

        now = [begin()]
        for _, lived in kills(kill, take_back):
            agent = Told(A)
            remembered = Pending(directory).all()
            process(agent, directory).look()
            assert agent.kept == {A} - remembered
            if lived:  # only then the agent is asked for it anew
                assert not remembered
            now = [begin()]
