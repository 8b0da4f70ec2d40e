"""What a machine lacks: `make fast` goes on without it, `make test` does not pass without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import missing
from tests.support.etcd import etcd_lab
from tests.support.missing import WHOLE, vcenter_lab

SKIPPED, FAILED = pytest.skip.Exception, pytest.fail.Exception


def nothing_there() -> None:
    missing.missing("needs what is not there")


def a_vcenter() -> None:
    with vcenter_lab():
        pass


def an_etcd() -> None:
    with etcd_lab():
        pass


@pytest.mark.parametrize("asked", [nothing_there, a_vcenter, an_etcd])
@pytest.mark.parametrize(("whole", "outcome"), [("", SKIPPED), ("1", FAILED)])
def test_it_skips_a_test_and_fails_it_where_all_was_to_be_installed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    asked: Callable[[], None],
    whole: str,
    outcome: type[BaseException],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MOORLINE_LAB_CACHE", str(tmp_path))  # with no simulator built before
    monkeypatch.setenv(WHOLE, whole)
    with pytest.raises(outcome, match="needs"):
        asked()
