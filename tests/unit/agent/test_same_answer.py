"""Whether an agent runs or not, the same is refused, with the same code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.agent import Agent
from lab.command import Moorline
from moorline.wiring import open_agent, settings

COMMAND = str(Path(sys.executable).with_name("moorline"))
HOSTILE = {
    "NaN": b'{"driver_volume_type": "local", "data": {"path": "/srv/a", "size": NaN}}',
    "Infinity": b'{"driver_volume_type": "local", "data": {"path": "/srv/a", "size": 1e999}}',
    "NUL": b'{"driver_volume_type": "local", "data": {"path": "/srv/\\u0000a"}}',
    "half a surrogate pair": b'{"driver_volume_type": "local", "data": {"path": "\\ud800"}}',
    "2^70": b'{"driver_volume_type": "local", "data": {"path": "/srv/a", "size": %d}}' % 2**70,
    "a key twice": b'{"driver_volume_type": "local", "data": {"path": "/a", "path": "/b"}}',
    "deep": b'{"driver_volume_type": "local", "data": ' + b"[" * 500 + b"]" * 500 + b"}",
    "10 MB": b'{"driver_volume_type": "local", "data": {"path": "' + b"a" * (10 << 20) + b'"}}',
    "100 kB": b'{"driver_volume_type": "local", "data": {"path": "' + b"a" * 100_000 + b'"}}',
    "latin-1": b'{"driver_volume_type": "local", "data": {"path": "/\xe4"}}',
    "a list": b"[]",
    "empty": b"",
}


def attach(state: Path, *words: str, given: bytes = b"") -> tuple[int, str]:
    done = subprocess.run(
        [COMMAND, "attach", *words, "--state-dir", str(state)],
        input=given,
        env={**os.environ, "MOORLINE_HYPERVISOR": "test:///default"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stderr.decode()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("agent")
    served = Agent(Moorline(state, {"MOORLINE_HYPERVISOR": "test:///default"}), state / "log")
    yield state
    served.stop()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_connection(agent: Path, tmp_path: Path, kind: str) -> None:
    words = ("test", "--connection", "-")
    alone = attach(tmp_path / "alone", *words, given=HOSTILE[kind])
    assert alone[0] == 3, alone[1]
    assert "Traceback" not in alone[1]
    assert len(alone[1]) < 500
    assert attach(agent, *words, given=HOSTILE[kind]) == alone


@pytest.mark.parametrize("guest", [os.fsdecode(b"\xff"), "g" * 5000])
def test_a_hostile_name(agent: Path, tmp_path: Path, guest: str) -> None:
    words = (guest, "/srv/a", "--format", "raw")
    alone = attach(tmp_path / "alone", *words)
    assert alone[0] == 3, alone[1]
    assert attach(agent, *words) == alone


def test_a_program_is_refused_the_same(tmp_path: Path) -> None:
    given = settings(state_dir=tmp_path, hypervisor="test:///default")
    moorline, *_ = open_agent(given)
    with moorline, pytest.raises(Exception, match="larger than 63 bits"):
        moorline.attachments.attach(
            "test", {"driver_volume_type": "local", "data": {"size": 2**70}}
        )
