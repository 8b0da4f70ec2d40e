"""What an attachment may not change of the one that stands, in words that say what differs."""

from __future__ import annotations

from typing import Any

import pytest

from moorline.errors import Refused
from moorline.model import DiskOptions, GuestId, Level
from moorline.testing.toys import ToyGuest
from tests.support.rig import Rig

OLD, NEW = GuestId("0-old"), GuestId("1-new")


def connection() -> dict[str, Any]:
    data = {"share": "s1", "name": "a", "volume_id": "vol-a"}
    return {"driver_volume_type": "toy", "data": data}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (DiskOptions(bus="toy"), "bus is left to the hypervisor, not toy"),
        (DiskOptions(target="vdz"), "target is left to the hypervisor, not vdz"),
        (DiskOptions(readonly=True), "read-only is off, not on"),
        (DiskOptions(shared=True, boot=1), "shared is off, not on, the place in the boot order is"),
    ],
)
def test_the_option_that_differs_is_named(options: DiskOptions, words: str) -> None:
    rig = Rig("g1")
    rig.owner().attachments.attach("g1", connection(), level=Level.CONNECTED)
    with pytest.raises(Refused, match=f"on g1 with other options: {words}"):
        rig.owner().attachments.attach("g1", connection(), level=Level.CONNECTED, options=options)


def test_who_says_nothing_of_the_boot_order_leaves_it() -> None:
    rig = Rig("g1")
    rig.owner().attachments.attach("g1", connection(), options=DiskOptions(boot=2))
    assert rig.owner().attachments.attach("g1", connection()).steps == []
    (row,) = rig.records.all()
    assert row.options.boot == 2
    with pytest.raises(Refused, match="the place in the boot order is 2, not 1"):
        rig.owner().attachments.attach("g1", connection(), options=DiskOptions(boot=1))


def test_two_guests_of_one_name_are_told_apart() -> None:
    rig = Rig()
    shared = DiskOptions(shared=True)
    rig.world.guests = {OLD: ToyGuest("web01", running=False)}
    rig.owner().attachments.attach("web01", connection(), options=shared)
    rig.world.guests = {NEW: ToyGuest("web01", running=False)}
    rig.owner().attachments.attach("web01", connection(), options=shared)
    outcome = rig.owner().attachments.detach("web01", "vol-a")
    assert outcome is not None
    assert outcome.view.guest_id == NEW, "the one that has the name now is meant"
    assert [row.key.guest for row in rig.records.all()] == [OLD]
    rig.owner().attachments.detach(OLD, "vol-a")
    assert rig.records.all() == []
