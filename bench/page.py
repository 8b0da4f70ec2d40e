"""The page that the bench writes: its table, and whether a run is worse than what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

TOLERANCE = 1.25
"""How much worse than on the page a ratio may be: machines differ, and so do runs."""
HEAD = "| what | ours | raw | ratio | goal | met |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """What a line of the table says."""

    ratio: float
    more_is_better: bool
    met: bool


def rows(page: str) -> dict[str, Row]:
    """The lines of the table in *page*, by what was measured."""
    found = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 6 and cells[3].endswith("×"):
            what, _, _, ratio, goal, met = cells
            assert what not in found, f"two lines are called {what}"
            found[what] = Row(float(ratio[:-1]), goal.startswith("≥"), met == "yes")
    return found


def worse(before: str, now: str) -> Iterator[str]:
    """Say of each line of the table *now* whose ratio is a quarter worse than in *before*."""
    old = rows(before)
    for what, row in rows(now).items():
        if what not in old:
            continue
        was = old[what].ratio
        if row.ratio < was / TOLERANCE if row.more_is_better else row.ratio > was * TOLERANCE:
            yield f"a quarter worse than on the page ({was:.2f}×, now {row.ratio:.2f}×): {what}"


def missed(now: str) -> Iterator[str]:
    """Say which goals are."""
    return (f"goal missed: {what}" for what, row in rows(now).items() if not row.met)


def unpaired(before: str, now: str, *, whole: bool) -> Iterator[str]:
    """Say which lines are compared with nothing. *whole*: all that there is was measured."""
    old, new = rows(before), rows(now)
    yield from (f"not on the page yet: {what}" for what in new.keys() - old.keys())
    if whole:
        yield from (f"on the page, and not measured: {what}" for what in old.keys() - new.keys())
