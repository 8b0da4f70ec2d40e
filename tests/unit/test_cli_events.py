"""``moorline events``: told as lines, as JSON, and as it happens."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from moorline.care.eventlog import EventLog
from moorline.cli.commands import main


@pytest.fixture
def runner(tmp_path: Path) -> CliRunner:
    return CliRunner(
        env={"MOORLINE_STATE_DIR": str(tmp_path), "MOORLINE_HYPERVISOR": "test:///default"}
    )


def test_an_entry_is_a_line(runner: CliRunner, tmp_path: Path) -> None:
    EventLog(tmp_path).saw("released", volume="vol-a", guest="web01")
    line = runner.invoke(main, ["events"]).stdout
    assert "seen  volume vol-a on web01  released" in line
    (entry,) = json.loads(runner.invoke(main, ["events", "--output", "json"]).stdout)
    assert (entry["id"], entry["outcome"], entry["volume"]) == (1, "seen", "vol-a")


def test_since_is_an_age_or_a_date(runner: CliRunner, tmp_path: Path) -> None:
    EventLog(tmp_path, clock=lambda: time.time() - 7200).saw("old")
    EventLog(tmp_path).saw("new")
    for since, told in (("1h", 1), ("3h", 2), ("2020-01-31", 2), ("2120-01-31 10:00", 0)):
        done = runner.invoke(main, ["events", "--since", since])
        assert len(done.stdout.splitlines()) == told, since
    assert runner.invoke(main, ["events", "--since", "yesterday"]).exit_code == 2


def test_follow_tells_what_happens(tmp_path: Path) -> None:
    event_log = EventLog(tmp_path)
    event_log.saw("before")
    words = ["events", "--follow", "--output", "json", "--state-dir", str(tmp_path)]
    follower = subprocess.Popen(
        [sys.executable, "-m", "moorline.cli", *words, "-c", "test:///default"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["message"] == "before"
        event_log.saw("after")
        assert json.loads(follower.stdout.readline())["message"] == "after"
    finally:
        follower.terminate()
        follower.communicate()
