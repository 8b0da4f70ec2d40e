"""What a machine lacks: it skips a test, except where everything was to be installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from lab.vcenter import Missing, VCenter

WHOLE = "MOORLINE_TEST_WHOLE"
"""Set by ``make test``, which installs all that the tests need."""


def missing(what: str) -> NoReturn:
    """Skip this test for want of *what*; where nothing may be missing, fail it."""
    if os.environ.get(WHOLE):
        pytest.fail(what)
    pytest.skip(what, allow_module_level=True)


def needs_fuse() -> None:
    """Skip this test where it could not mount."""
    if os.geteuid() != 0:
        pytest.skip("needs root: `make lab-test` runs it as root")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        missing("needs /dev/fuse")


@contextmanager
def vcenter_lab(**more: Any) -> Iterator[VCenter]:
    """A vCenter stand-in of one's own: the one way to it in tests. *more*: of VCenter."""
    try:
        lab = VCenter(**more)
    except Missing as e:
        missing(str(e))
    with lab:
        yield lab
