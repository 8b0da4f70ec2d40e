"""A fault that is planned strikes, however the effect ends by itself."""

from __future__ import annotations

import pytest

from moorline.errors import Failed
from moorline.testing.faults import Fault, Faults, Killed


def fail() -> None:
    raise Failed("busy")


def test_who_is_killed_after_an_effect_is_killed_though_it_failed() -> None:
    faults = Faults()
    faults.plan((0, Fault.KILL_AFTER))
    with pytest.raises(Killed):
        faults.effect(fail)
    with pytest.raises(Failed):
        faults.effect(fail)
    assert (faults.struck, faults.count) == (1, 2)
