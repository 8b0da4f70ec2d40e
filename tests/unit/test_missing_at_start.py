"""A guest that is started while a volume that may be missing is."""

from __future__ import annotations

import pytest

from moorline.errors import MoorlineError
from moorline.model import DiskOptions, GuestId
from tests.support.rig import connection
from tests.unit.test_guests import S1, Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_guest_starts_without_a_volume_that_may_be_missing(stage: Stage) -> None:
    optional = DiskOptions(startup_policy="optional")
    stage.owner().guests.launch("web01", connection("a"), options=optional)
    stage.machines.stop(GuestId("id-web01"), force=True)
    del stage.world.mounts[S1]
    stage.world.passwords["s1"] = "another"
    told: list[str] = []
    guests = stage.owner().guests
    assert guests.unready("id-web01") == ["a"]
    assert guests.ready("id-web01", timeout=0.1, progress=told.append) == []
    assert "the guest starts without volume a" in told[-1]
    stage.world.passwords.clear()
    stage.world.mounts[S1] = "somebody else's"
    with pytest.raises(MoorlineError):
        guests.ready("id-web01", timeout=0.1)
