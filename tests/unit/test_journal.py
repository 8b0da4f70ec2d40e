"""The journal: bounded, torn lines, full disks, and nothing washed out."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline.care.eventlog import Journal
from moorline.core.plan import Step
from moorline.core.reconciler import Took
from moorline.errors import Failed
from moorline.model import Level
from moorline.ports.results import Trouble
from tests.support.rig import Rig


def took(error: str = "", step: Step = Step.CONNECT, volume: str = "v1") -> Took:
    rig = Rig("g1")
    rig.wish(volume, "g1", Level.ATTACHED)
    (row,) = rig.records.all()
    return Took(step, row, 0.25, Failed(error) if error else None)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def test_what_was_done_is_told_in_order(journal: Journal) -> None:
    journal.took(took())
    journal.took(took("no route", Step.ATTACH))
    journal.saw("the share hangs", link="/toy/s1")
    first, second, third = journal.read()
    assert (first.step, first.outcome, first.volume, first.guest) == ("connect", "done", "v1", "g1")
    assert (second.outcome, second.message, second.link) == ("failed", "no route", "/toy/s1")
    assert (third.step, third.outcome) == ("", "seen")
    assert [e.id for e in (first, second, third)] == [1, 2, 3]


def test_it_can_be_narrowed(tmp_path: Path) -> None:
    now = iter([10.0, 20.0, 30.0])
    journal = Journal(tmp_path, clock=lambda: next(now))
    for volume in ("aaaa1", "bbbb1", "aaaa2"):
        journal.took(took(volume=volume))
    assert [e.volume for e in journal.read(since=20.0)] == ["bbbb1", "aaaa2"]
    assert [e.volume for e in journal.read(volume="aaaa")] == ["aaaa1", "aaaa2"]
    assert [e.volume for e in journal.read(after=2)] == ["aaaa2"]
    assert [e.volume for e in journal.read(most=1)] == ["aaaa2"]


def test_another_process_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    Journal(tmp_path).took(took())
    Journal(tmp_path).took(took())
    assert [e.id for e in Journal(tmp_path).read()] == [1, 2]


def test_a_line_that_was_cut_short_costs_itself_alone(tmp_path: Path) -> None:
    Journal(tmp_path).took(took())
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"id": 2, "at"')
    Journal(tmp_path).took(took(step=Step.ATTACH))
    assert [e.step for e in Journal(tmp_path).read()] == ["connect", "attach"]


def test_it_stays_bounded_and_keeps_the_latest(tmp_path: Path) -> None:
    journal = Journal(tmp_path, limit=2000)
    for _ in range(200):
        journal.took(took())
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2 * 2500
    told = [e.id for e in journal.read()]
    assert told == list(range(told[0], 201))
    assert len(told) > 5


def test_a_failure_that_repeats_does_not_wash_out_the_rest(journal: Journal) -> None:
    for _ in range(100):
        journal.took(took("no route"))
    assert [e.times for e in journal.read()] == [1, 2, 4, 8, 16, 32, 64]
    journal.took(took())
    journal.took(took("no route"))
    assert [e.times for e in journal.read()][-2:] == [1, 1]


def test_what_is_seen_is_told_each_time(journal: Journal) -> None:
    for _ in range(3):
        journal.saw("adopted", volume="v1")
    assert [e.times for e in journal.read()] == [1, 1, 1]


def test_what_keeps_a_wish_waiting_is_told_once(journal: Journal) -> None:
    failed = took("no route")
    journal.took(failed)
    journal.noted(failed.row, Trouble("", "failed", "no route", 0.0))
    journal.noted(failed.row, Trouble("park", "notours", "a tmpfs is there", 0.0))
    assert [(e.step, e.outcome, e.message) for e in journal.read()] == [
        ("connect", "failed", "no route"),
        ("", "notours", "a tmpfs is there"),
    ]


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "is not there")
    journal.took(took())
    assert journal.read() == []


def test_only_its_owner_may_read_it(tmp_path: Path, journal: Journal) -> None:
    journal.took(took())
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600
