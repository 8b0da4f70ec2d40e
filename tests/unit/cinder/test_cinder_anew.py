"""A connection of Cinder's that changed: it is asked for anew where nothing here hangs on it."""

from __future__ import annotations

from typing import Any

import pytest

from lab.cinder.server import Volume
from moorline.model import GuestId
from tests.support.cinder_rig import GUEST, CinderRig, gone

pytest.importorskip("openstack")


def connection(rig: CinderRig) -> Any:
    [row] = rig.records.all()
    return row.connection.reveal()["data"]


def put(rig: CinderRig) -> int:
    return sum(method == "PUT" for method, _ in rig.cloud.calls)


@pytest.fixture
def attached(rig: CinderRig, volume: Volume) -> Volume:
    rig.attach("data")
    volume.connection["password"] = "another"
    rig.cloud.calls.clear()
    return volume


def reboot(rig: CinderRig) -> None:
    its = rig.world.guests[GuestId(GUEST)]
    its.running = False
    its.live.clear()
    rig.world.mounts.clear()


def test_it_is_asked_for_anew_when_the_link_is_gone(rig: CinderRig, attached: Volume) -> None:
    reboot(rig)
    rig.attach("data")
    assert connection(rig)["password"] == "another"
    [its] = rig.cloud.of(attached)
    assert (its.status, put(rig), attached.status) == ("attached", 1, "in-use")
    assert all(noted.completed for noted in rig.records.reservations().values())
    rig.attach("data")
    assert put(rig) == 1
    rig.survive(lambda: rig.detach(attached.id))
    gone(rig, attached)


def test_not_under_a_link_that_is_there(rig: CinderRig, attached: Volume) -> None:
    rig.attach("data")
    assert put(rig) == 0
    assert "password" not in connection(rig)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after the deed"])
def test_cinder_fails_meanwhile(rig: CinderRig, attached: Volume, after: bool) -> None:
    reboot(rig)
    rig.cloud.misbehave("PUT", "attachments", status=500, times=99, after=after)
    rig.survive(lambda: rig.attach("data"))
    assert "password" not in connection(rig)  # it stands as it did
    rig.cloud.misbehaving.clear()
    rig.attach("data", timeout=10)
    assert connection(rig)["password"] == "another"
    [its] = rig.cloud.of(attached)
    assert its.status == "attached"
