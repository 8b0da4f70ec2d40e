"""What an instance still has that Nova took away, and that Nova forgets a moment later."""

from __future__ import annotations

from pathlib import Path

import pytest
from moorline_nova import controller
from moorline_nova.controller import Controller
from moorline_nova.pending import Pending, Use

from moorline.deadline import Clock
from tests.support.nova_agent import A, B, Told, away, everybody, nobody, process


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "moorline" / "host"


def test_it_is_let_go_once_nova_knows_it_no_more(directory: Path) -> None:
    agent, known = Told(A, B), {A, B}
    nova = process(agent, directory, known.__contains__)
    assert nova.look()  # the comparison at the start
    nova.left(A.instance)
    assert not nova.look()  # so it looks soon again
    assert agent.kept == {A, B}
    known.clear()
    assert not nova.look()
    assert agent.kept == {B}  # which did not leave, and has its time
    assert nova.look()


def test_one_that_stays_is_not_watched_for_ever(directory: Path) -> None:
    clock, asked = [1000.0], []

    def knows(use: Use) -> bool:
        asked.append(use)
        return True

    at = Clock(lambda: clock[0])
    nova = Controller(Told(A), Pending(directory), knows, clock=at)
    assert nova.look()
    nova.left(A.instance)
    assert not nova.look()
    clock[0] += controller.COMPARE_INTERVAL_SECONDS
    assert nova.look()
    del asked[:]
    assert nova.look()
    assert asked == []


def test_what_this_process_connected_is_not_watched(directory: Path) -> None:
    """As when an instance is rebooted hard: Nova takes it away, and has it anew."""
    agent = Told(A)
    nova = process(agent, directory, everybody)
    assert nova.look()
    nova.left(A.instance)
    nova.needed(A)
    assert nova.look()


def test_it_is_watched_on_while_nova_or_the_agent_do_not_answer(directory: Path) -> None:
    agent = Told(A)
    nova = process(agent, directory, everybody)
    assert nova.look()
    nova.left(A.instance)
    agent.away = away()
    assert not nova.look()
    agent.away = None
    nova._knows = nobody
    nova.look()
    assert agent.kept == set()
