"""The command line on libvirt's own test driver, and three files for volumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moorline.cli.commands import main

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "state").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.raw").write_bytes(bytes(1 << 20))
    state = {"MOORLINE_STATE_DIR": str(tmp_path / "state")}
    runner = CliRunner(env={**state, "MOORLINE_HYPERVISOR": "test:///default"})
    return lambda *words, **named: runner.invoke(main, [*map(str, words)], **named)
