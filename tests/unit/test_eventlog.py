"""The event log: bounded, torn lines, full disks, and nothing washed out."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline.care.eventlog import EventLog
from moorline.core.plan import Step
from moorline.core.took import Took
from moorline.errors import Failed
from moorline.model import Level
from moorline.ports.results import Trouble
from tests.support.rig import Rig


def took(error: str = "", step: Step = Step.CONNECT, volume: str = "v1") -> Took:
    rig = Rig("g1")
    rig.attachment(volume, "g1", Level.ATTACHED)
    (row,) = rig.records.all()
    return Took(step, row, 0.25, Failed(error) if error else None)


@pytest.fixture
def event_log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path)


def test_what_was_done_is_told_in_order(event_log: EventLog) -> None:
    event_log.took(took())
    event_log.took(took("no route", Step.ATTACH))
    event_log.saw("the share hangs", link="/toy/s1")
    first, second, third = event_log.read()
    assert (first.step, first.outcome, first.volume, first.guest) == ("connect", "done", "v1", "g1")
    assert (second.outcome, second.message, second.link) == ("failed", "no route", "/toy/s1")
    assert (third.step, third.outcome) == ("", "seen")
    assert [e.id for e in (first, second, third)] == [1, 2, 3]


def test_it_can_be_narrowed(tmp_path: Path) -> None:
    now = iter([10.0, 20.0, 30.0])
    event_log = EventLog(tmp_path, clock=lambda: next(now))
    for volume in ("aaaa1", "bbbb1", "aaaa12"):
        event_log.took(took(volume=volume))
    assert [e.volume for e in event_log.read(since=20.0)] == ["bbbb1", "aaaa12"]
    assert [e.volume for e in event_log.read(volume="aaaa1")] == ["aaaa1"]
    assert [e.volume for e in event_log.read(after=2)] == ["aaaa12"]
    assert [e.volume for e in event_log.read(most=1)] == ["aaaa12"]
    assert event_log.volumes() == {"aaaa1", "bbbb1", "aaaa12"}


def test_another_process_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    EventLog(tmp_path).took(took())
    EventLog(tmp_path).took(took())
    assert [e.id for e in EventLog(tmp_path).read()] == [1, 2]


def test_a_line_that_was_cut_short_costs_itself_alone(tmp_path: Path) -> None:
    EventLog(tmp_path).took(took())
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"id": 2, "at"')
    EventLog(tmp_path).took(took(step=Step.ATTACH))
    assert [e.step for e in EventLog(tmp_path).read()] == ["connect", "attach"]


def test_it_stays_bounded_and_keeps_the_latest(tmp_path: Path) -> None:
    event_log = EventLog(tmp_path, limit=2000)
    for _ in range(200):
        event_log.took(took())
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2 * 2500
    told = [e.id for e in event_log.read()]
    assert told == list(range(told[0], 201))
    assert len(told) > 5


def test_a_failure_that_repeats_does_not_wash_out_the_rest(event_log: EventLog) -> None:
    for _ in range(100):
        event_log.took(took("no route"))
    assert [e.times for e in event_log.read()] == [1, 2, 4, 8, 16, 32, 64]
    event_log.took(took())
    event_log.took(took("no route"))
    assert [e.times for e in event_log.read()][-2:] == [1, 1]


def test_a_guest_that_is_asked_again_and_again_is_told_as_that(event_log: EventLog) -> None:
    for _ in range(3):
        for _ in range(8):
            event_log.took(took(step=Step.DETACH))
        event_log.took(took(step=Step.FORGET))
    done = [(e.step, e.times, bool(e.message)) for e in event_log.read()]
    asked = [("detach", times, True) for times in (1, 2, 4)]
    assert done == [("detach", 1, False), *asked, ("forget", 1, False)] * 3
    assert all("has not let go" in e.message for e in event_log.read() if e.message)


def test_what_is_seen_is_told_each_time(event_log: EventLog) -> None:
    for _ in range(3):
        event_log.saw("adopted", volume="v1")
    assert [e.times for e in event_log.read()] == [1, 1, 1]


def test_what_keeps_an_attachment_waiting_is_told_once(event_log: EventLog) -> None:
    failed = took("no route")
    event_log.took(failed)
    event_log.noted(failed.row, Trouble("", "failed", "no route", 0.0))
    event_log.noted(failed.row, Trouble("park", "notours", "a tmpfs is there", 0.0))
    assert [(e.step, e.outcome, e.message) for e in event_log.read()] == [
        ("connect", "failed", "no route"),
        ("", "notours", "a tmpfs is there"),
    ]


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    event_log = EventLog(tmp_path / "is not there")
    event_log.took(took())
    assert event_log.read() == []


def test_only_its_owner_may_read_it(tmp_path: Path, event_log: EventLog) -> None:
    event_log.took(took())
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600
