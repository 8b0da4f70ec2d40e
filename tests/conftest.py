"""What all tests share: how they begin, what they may not leave, and what is told at the end."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import immutable


def pytest_configure() -> None:
    # A shell's background job ignores SIGINT, and so would every command that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes says nothing of the code on a machine that is busy.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """pytest's own, which can be removed afterwards."""
    yield tmp_path
    immutable.let_go(tmp_path)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return  # who started the workers looks below the directories of all
    factory: pytest.TempPathFactory = session.config._tmp_path_factory
    if left := immutable.left(factory.getbasetemp()):
        told = "\n".join(["", "left behind, immutable:", *left])
        session.config.get_terminal_writer().line(told)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                counts.update(
                    {k: v for k, v in report.user_properties if isinstance(v, int) and k != "pid"}
                )
    if counts:
        told = ", ".join(f"{name.replace('_', ' ')}: {n}" for name, n in sorted(counts.items()))
        terminalreporter.write_line(f"crash tests: {told}")
