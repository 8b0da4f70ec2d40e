"""Whose turn it is: budgets, pace, news, and that nothing is lost."""

from __future__ import annotations

import pytest

from moorline.deadline import Clock
from moorline.loop.workqueue import BUDGET_SECONDS, Turn, WorkQueue
from moorline.model import Attachment, GuestId, Key, Level, LinkName, VolumeId
from moorline.secret import Secret

COMING, GOING = Level.ATTACHED, Level.ABSENT


class Hours:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hours:
    return Hours()


@pytest.fixture
def queue(clock: Hours) -> WorkQueue:
    return WorkQueue(coming=2, going=2, most=3, clock=Clock(now=clock))


def attachment(
    volume: str, want: Level = COMING, *, guest: str = "g", revision: int = 1
) -> Attachment:
    return Attachment(
        key=Key("h", VolumeId(volume), GuestId(guest)),
        backend="toy",
        connection=Secret({}),
        link=LinkName("/l"),
        place=volume,
        want=want,
        revision=revision,
    )


def take(queue: WorkQueue) -> Turn | None:
    """A turn that can be had now."""
    return queue.take(wait=False)


def test_who_came_first_is_first(queue: WorkQueue, clock: Hours) -> None:
    queue.add(attachment("b"))
    clock.now += 0.1
    queue.add(attachment("a"))
    turns = [take(queue), take(queue)]
    assert [turn.key.volume for turn in turns if turn] == ["b", "a"]


def test_an_attachment_under_way_is_not_given_out_twice(queue: WorkQueue) -> None:
    queue.add(attachment("a"))
    turn = take(queue)
    assert turn is not None
    queue.add(attachment("a"))  # found by a look, perhaps after the pass looked
    assert take(queue) is None
    queue.done(turn)
    assert take(queue)


def test_more_come_at_once_than_go(clock: Hours) -> None:
    """Those that come share what they look at."""
    queue = WorkQueue(coming=5, going=2, clock=Clock(now=clock))
    for n in range(9):
        queue.add(attachment(f"c{n}"))
        queue.add(attachment(f"g{n}", GOING))
    turns = [take(queue) for _ in range(7)]
    assert sorted(turn.key.volume[0] for turn in turns if turn) == [*"ccccc", *"gg"]
    assert take(queue) is None


def test_those_that_go_and_those_that_come_have_budgets_of_their_own(queue: WorkQueue) -> None:
    for n in range(3):
        queue.add(attachment(f"c{n}"))
    assert take(queue)
    assert take(queue)
    assert take(queue) is None
    queue.add(attachment("g", GOING))
    turn = take(queue)
    assert turn is not None
    assert turn.key.volume == "g"


def test_what_takes_long_gives_up_its_place_but_not_for_ever(
    queue: WorkQueue, clock: Hours
) -> None:
    for n in range(5):
        queue.add(attachment(f"c{n}"))
    assert take(queue)
    assert take(queue)
    assert take(queue) is None
    clock.now += BUDGET_SECONDS
    assert take(queue)
    assert take(queue) is None  # three of a kind are the most
    clock.now += 100 * BUDGET_SECONDS
    assert take(queue) is None


def test_what_failed_waits_as_long_as_it_shall(queue: WorkQueue, clock: Hours) -> None:
    queue.add(attachment("a"))
    turn = take(queue)
    assert turn is not None
    queue.retry_after(turn, 8.0, "no route", tries=1)
    (pending,) = queue.pending()
    assert (pending.due, pending.tries, pending.why, pending.running) == (8.0, 1, "no route", False)
    clock.now += 7.9
    queue.add(attachment("a"))  # a sweep finds it again: that is no news
    assert take(queue) is None
    clock.now += 0.1
    again = take(queue)
    assert again is not None
    assert (again.tries, again.why) == (1, "no route")


def test_another_attachment_starts_afresh(queue: WorkQueue) -> None:
    queue.add(attachment("a"))
    turn = take(queue)
    assert turn is not None
    queue.retry_after(turn, 300.0, "refused", tries=9)
    queue.add(attachment("a", GOING, revision=2))
    again = take(queue)
    assert again is not None
    assert (again.tries, again.why) == (0, "")


def test_another_attachment_does_not_wait_for_what_became_of_the_last(queue: WorkQueue) -> None:
    queue.add(attachment("a"))
    turn = take(queue)
    assert turn is not None
    queue.add(attachment("a", GOING, revision=2))
    assert take(queue) is None  # the last one's pass is still under way
    queue.retry_after(turn, 300.0, "refused", tries=9)
    again = take(queue)
    assert again is not None
    assert (again.tries, again.why) == (0, "")
    queue.add(attachment("a", revision=3))
    queue.done(again)
    assert take(queue)


@pytest.mark.parametrize(("guest", "soonest"), [("g", 1.0), ("other", 2.0), (None, 2.0)])
def test_news_shortens_a_pause_but_not_to_nothing(
    queue: WorkQueue, clock: Hours, guest: str | None, soonest: float
) -> None:
    """News may be of our own doing: a failed mount changes the mount table, too."""
    queue.add(attachment("a"))
    turn = take(queue)
    assert turn is not None
    queue.retry_after(turn, 8.0, "it failed", tries=5)
    queue.wake(GuestId(guest) if guest else None)
    assert queue.pending()[0].due == soonest
    clock.now += soonest
    assert take(queue)


def test_news_while_it_is_under_way_is_not_lost(queue: WorkQueue, clock: Hours) -> None:
    queue.add(attachment("a"))
    for _ in range(2):
        turn = take(queue)
        assert turn is not None
        queue.wake(GuestId("g"))
        queue.done(turn)
    turn = take(queue)
    assert turn is not None
    queue.done(turn)
    assert queue.pending() == []


def test_news_while_it_fails_is_heeded_soon_but_not_at_once(queue: WorkQueue) -> None:
    queue.add(attachment("a"))
    turn = take(queue)
    assert turn is not None
    queue.wake(None)  # its own mount, say, which failed after all
    queue.retry_after(turn, 12.0, "it failed", tries=6)
    assert queue.pending()[0].due == 3.0


def test_idle_tells_when_nothing_is_under_way(queue: WorkQueue) -> None:
    queue.add(attachment("a"))
    assert queue.idle(0)
    turn = take(queue)
    assert turn is not None
    assert not queue.idle(0)
    queue.done(turn)
    assert queue.idle(0)
    queue.close()
    assert queue.take() is None
