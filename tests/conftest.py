"""Counts of crash points and histories, told at the end of a run."""

from __future__ import annotations

from collections import Counter

import pytest


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
