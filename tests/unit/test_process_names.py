"""Processes of ours are known by their names in the process table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorline.host.linux import Linux
from moorline.ports import Call
from moorline.secret import Secret


def children() -> set[str]:
    """What this process's own are called."""
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    pids = [pid for task in tasks for pid in (task / "children").read_text().split()]
    return {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> Iterator[Linux]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    host = Linux(look_deadline=5)
    yield host
    host.close()


def test_who_looks_and_who_calls_are_told_by_name(linux: Linux, tmp_path: Path) -> None:
    linux.root(tmp_path)
    assert "moorline-look" in children()
    linux.call(Call("called", "tests.support.called", Secret({}), deadline=20))
    assert "moorline-call" in children()
