"""The bench compares what it measures with its page, and says what got worse."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import page
from bench.measure import Milliseconds, Result, slower

ROOT = Path(__file__).parents[2]


def table(*results: Result) -> str:
    return "\n".join(
        ["# A page", "", page.HEAD, *(each.row() for each in results), "", "- *it*: x"]
    )


def times(what: str, ratio: float) -> Result:
    return slower(what, 10.0, 10.0 * ratio, most=1.3)


def rate(what: str, ratio: float) -> Result:
    return Result(what, 10 * ratio, 10.0, "/s", ratio, "≥ 0.75×", ratio >= 0.75)


@pytest.mark.parametrize(
    ("make", "before", "now", "is_worse"),
    [
        (times, 1.2, 1.2, False),
        (times, 1.2, 1.49, False),
        (times, 1.2, 1.51, True),
        (times, 1.2, 0.1, False),
        (times, 3.0, 3.8, True),  # also where the goal was missed before
        (times, 0.08, 0.11, True),
        (rate, 0.8, 0.65, False),
        (rate, 0.8, 0.63, True),
        (rate, 0.8, 8.0, False),
        (rate, 0.2, 0.1, True),
    ],
)
def test_a_quarter_worse_is_told(make: object, before: float, now: float, is_worse: bool) -> None:
    assert callable(make)
    told = list(page.worse(table(make("it", before)), table(times("other", 9), make("it", now))))
    assert len(told) == is_worse
    if told:
        assert told[0].endswith(": it")
        assert f"{before:.2f}×" in told[0]
        assert f"{now:.2f}×" in told[0]


def test_what_a_line_says_besides_its_ratio_does_not_matter() -> None:
    busy = slower("it", Milliseconds(100, 5), Milliseconds(130, 7), most=1.3)
    assert not list(page.worse(table(times("it", 1.3)), table(busy)))
    absolute = Result("it", 70.0, 10.0, "ms", 7.0, "≤ 60 ms", met=False)
    assert list(page.worse(table(times("it", 1.3)), table(absolute)))


def test_missed_goals_are_told() -> None:
    told = list(page.missed(table(times("good", 1.2), times("bad", 1.4), rate("low", 0.5))))
    assert told == ["goal missed: bad", "goal missed: low"]


def test_what_is_compared_with_nothing_is_told() -> None:
    """A line that was renamed would never be worse."""
    before, now = table(times("a", 1), times("b", 1)), table(times("b", 1), times("c", 1))
    assert list(page.unpaired(before, now, whole=False)) == ["not on the page yet: c"]
    assert list(page.unpaired(before, now, whole=True)) == [
        "not on the page yet: c",
        "on the page, and not measured: a",
    ]


def test_two_lines_of_one_name_are_a_defect() -> None:
    with pytest.raises(AssertionError, match="two lines"):
        page.rows(table(times("a", 1), times("a", 2)))


def test_the_page_is_read() -> None:
    """The one that is kept: each of its lines, and nothing else in it (a fleet is no ratio)."""
    text = (ROOT / "docs/performance.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|") and line.count("|") == 7]
    assert len(page.rows(text)) == len(lines) - 2


def test_the_page_is_as_the_bench_would_write_it() -> None:
    """But for what is measured: else its next run would take back what was written there."""
    written = (ROOT / "docs/performance.md").read_text()
    template = (ROOT / "bench/page.md").read_text()
    assert written.partition("| what ")[0] == template.partition("{table}")[0]
    explained = "- *attach, link up*"
    assert written[written.index(explained) :] == template[template.index(explained) :]
