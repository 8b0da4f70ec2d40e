"""Kill the owner at every effect of attaching a volume that is attached, by another connection."""

from __future__ import annotations

from typing import Any

import pytest

from moorline.errors import Refused
from moorline.model import GuestId, Key, Level, VolumeId
from moorline.testing.faults import Fault
from moorline.testing.toys import BASE
from tests.support.rig import Rig

FILE = f"{BASE}/s1/a"


def connection(**data: str) -> dict[str, Any]:
    return {"driver_volume_type": "toy", "data": {"share": "s1", "name": "a", **data}}


def attached(**data: str) -> Rig:
    """A volume that was attached by what opened the share then."""
    rig = Rig("g1")
    rig.owner().attachments.attach("g1", connection(**data), volume="a")
    rig.world.guests[GuestId("g1")].running = False
    rig.world.mounts.clear()  # as after a reboot of the host: there is a link to make
    return rig


def recorded(rig: Rig) -> Any:
    row = rig.records.get(Key("h1", VolumeId("a"), GuestId("g1")))
    assert row is not None
    return row.connection.reveal()["data"]


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_a_connection_that_is_refused_is_never_recorded(fault: Fault, record_property) -> None:
    struck = 0
    for at in range(20):
        rig = attached(format="raw")
        rig.world.formats[FILE] = "raw"
        rig.world.faults.plan((at, fault))
        wrong = connection(format="qcow2")
        rig.survive(
            lambda w=wrong, r=rig: r.owner().attachments.attach("g1", w, volume="a", timeout=0)
        )
        assert recorded(rig)["format"] == "raw"
        rig.world.faults.plan()
        with pytest.raises(Refused):
            rig.owner().attachments.attach("g1", wrong, volume="a", timeout=0)
        rig.settle()
        assert recorded(rig)["format"] == "raw"
        rig.check({("a", "g1"): Level.ATTACHED})
        struck += rig.world.faults.struck
        if not rig.world.faults.struck:
            break
    record_property("crash_points", struck)
    assert struck >= 1


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_a_connection_that_works_comes_in_whole_or_not_yet(fault: Fault, record_property) -> None:
    struck = 0
    for at in range(20):
        rig = attached(password="old")
        rig.world.passwords["s1"] = "new"
        rig.world.faults.plan((at, fault))
        right = connection(password="new")
        rig.survive(
            lambda c=right, r=rig: r.owner().attachments.attach("g1", c, volume="a", timeout=0)
        )
        # With the old one recorded the link may be there, with the new one it must have worked.
        assert recorded(rig)["password"] == "old" or f"{BASE}/s1" in rig.world.mounts
        rig.world.faults.plan()
        rig.owner().attachments.attach("g1", right, volume="a", timeout=5)
        rig.settle()
        assert recorded(rig)["password"] == "new"
        rig.check({("a", "g1"): Level.ATTACHED})
        struck += rig.world.faults.struck
        if not rig.world.faults.struck:
            break
    record_property("crash_points", struck)
    assert struck >= 2
