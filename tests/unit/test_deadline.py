"""A deadline: how much is left, whether it is over, and sleeping no further."""

from __future__ import annotations

from moorline.deadline import Clock, Deadline


class Hours:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.sleep)


def test_it_is_over_when_nothing_is_left() -> None:
    hours = Hours()
    deadline = Deadline(3.0, hours.clock())
    assert (deadline.left(), deadline.over()) == (3.0, False)
    hours.now += 2.0
    assert (deadline.left(), deadline.over()) == (1.0, False)
    hours.now += 1.0
    assert (deadline.left(), deadline.over()) == (0.0, True)
    hours.now += 1.0
    assert (deadline.left(), deadline.over()) == (0.0, True)


def test_nobody_sleeps_past_it() -> None:
    hours = Hours()
    deadline = Deadline(3.0, hours.clock())
    for seconds in (2.0, 2.0, 2.0):
        deadline.sleep(seconds)
    assert hours.slept == [2.0, 1.0, 0.0]


def test_no_time_at_all_is_over_at_once() -> None:
    assert Deadline(0.0).over()
    assert Deadline(-1.0).left() == 0.0
