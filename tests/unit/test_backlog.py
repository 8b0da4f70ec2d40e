"""Whose turn it is: budgets, pace, news, and that nothing is lost."""

from __future__ import annotations

import pytest

from moorline.loop.workqueue import LATE, Backlog, Turn
from moorline.model import Attachment, GuestId, Key, Level, LinkName, VolumeId
from moorline.secret import Secret

COMING, GOING = Level.ATTACHED, Level.ABSENT


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backlog(clock: Clock) -> Backlog:
    return Backlog(each=2, most=3, clock=clock)


def wish(volume: str, want: Level = COMING, *, guest: str = "g", revision: int = 1) -> Attachment:
    return Attachment(
        key=Key("h", VolumeId(volume), GuestId(guest)),
        backend="toy",
        connection=Secret({}),
        link=LinkName("/l"),
        place=volume,
        want=want,
        revision=revision,
    )


def take(backlog: Backlog) -> Turn | None:
    """A turn that can be had now."""
    return backlog.take(wait=False)


def test_who_came_first_is_first(backlog: Backlog, clock: Clock) -> None:
    backlog.offer(wish("b"))
    clock.now += 0.1
    backlog.offer(wish("a"))
    turns = [take(backlog), take(backlog)]
    assert [turn.key.volume for turn in turns if turn] == ["b", "a"]


def test_a_wish_under_way_is_not_given_out_twice(backlog: Backlog) -> None:
    backlog.offer(wish("a"))
    turn = take(backlog)
    assert turn is not None
    backlog.offer(wish("a"))  # found by a look, perhaps after the pass looked
    assert take(backlog) is None
    backlog.settled(turn)
    assert take(backlog)


def test_those_that_go_and_those_that_come_have_budgets_of_their_own(backlog: Backlog) -> None:
    for n in range(3):
        backlog.offer(wish(f"c{n}"))
    assert take(backlog)
    assert take(backlog)
    assert take(backlog) is None
    backlog.offer(wish("g", GOING))
    turn = take(backlog)
    assert turn is not None
    assert turn.key.volume == "g"


def test_what_takes_long_gives_up_its_place_but_not_for_ever(
    backlog: Backlog, clock: Clock
) -> None:
    for n in range(5):
        backlog.offer(wish(f"c{n}"))
    assert take(backlog)
    assert take(backlog)
    assert take(backlog) is None
    clock.now += LATE
    assert take(backlog)
    assert take(backlog) is None  # three of a kind are the most
    clock.now += 100 * LATE
    assert take(backlog) is None


def test_what_failed_waits_as_long_as_it_shall(backlog: Backlog, clock: Clock) -> None:
    backlog.offer(wish("a"))
    turn = take(backlog)
    assert turn is not None
    backlog.later(turn, 8.0, "no route", tries=1)
    (pending,) = backlog.pending()
    assert (pending.due, pending.tries, pending.why, pending.running) == (8.0, 1, "no route", False)
    clock.now += 7.9
    backlog.offer(wish("a"))  # a sweep finds it again: that is no news
    assert take(backlog) is None
    clock.now += 0.1
    again = take(backlog)
    assert again is not None
    assert (again.tries, again.why) == (1, "no route")


def test_another_wish_starts_afresh(backlog: Backlog) -> None:
    backlog.offer(wish("a"))
    turn = take(backlog)
    assert turn is not None
    backlog.later(turn, 300.0, "refused", tries=9)
    backlog.offer(wish("a", GOING, revision=2))
    again = take(backlog)
    assert again is not None
    assert (again.tries, again.why) == (0, "")


def test_another_wish_does_not_wait_for_what_became_of_the_last(backlog: Backlog) -> None:
    backlog.offer(wish("a"))
    turn = take(backlog)
    assert turn is not None
    backlog.offer(wish("a", GOING, revision=2))
    assert take(backlog) is None  # the last one's pass is still under way
    backlog.later(turn, 300.0, "refused", tries=9)
    again = take(backlog)
    assert again is not None
    assert (again.tries, again.why) == (0, "")
    backlog.offer(wish("a", revision=3))
    backlog.settled(again)
    assert take(backlog)


@pytest.mark.parametrize(("guest", "soonest"), [("g", 1.0), ("other", 2.0), (None, 2.0)])
def test_news_shortens_a_pause_but_not_to_nothing(
    backlog: Backlog, clock: Clock, guest: str | None, soonest: float
) -> None:
    """News may be of our own doing: a failed mount changes the mount table, too."""
    backlog.offer(wish("a"))
    turn = take(backlog)
    assert turn is not None
    backlog.later(turn, 8.0, "it failed", tries=5)
    backlog.hasten(GuestId(guest) if guest else None)
    assert backlog.pending()[0].due == soonest
    clock.now += soonest
    assert take(backlog)


def test_news_while_it_is_under_way_is_not_lost(backlog: Backlog, clock: Clock) -> None:
    backlog.offer(wish("a"))
    for _ in range(2):
        turn = take(backlog)
        assert turn is not None
        backlog.hasten(GuestId("g"))
        backlog.settled(turn)
    turn = take(backlog)
    assert turn is not None
    backlog.settled(turn)
    assert backlog.pending() == []


def test_news_while_it_fails_is_heeded_soon_but_not_at_once(backlog: Backlog) -> None:
    backlog.offer(wish("a"))
    turn = take(backlog)
    assert turn is not None
    backlog.hasten(None)  # its own mount, say, which failed after all
    backlog.later(turn, 12.0, "it failed", tries=6)
    assert backlog.pending()[0].due == 3.0


def test_who_makes_a_wish_has_a_moment_to_see_to_it(backlog: Backlog, clock: Clock) -> None:
    backlog.offer(wish("a"), grace=1.0)
    backlog.hasten(GuestId("g"))
    assert take(backlog) is None
    clock.now += 1.0
    assert take(backlog)


def test_idle_tells_when_nothing_is_under_way(backlog: Backlog) -> None:
    backlog.offer(wish("a"))
    assert backlog.idle(0)
    turn = take(backlog)
    assert turn is not None
    assert not backlog.idle(0)
    backlog.settled(turn)
    assert backlog.idle(0)
    backlog.close()
    assert backlog.take() is None
