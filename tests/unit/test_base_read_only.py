"""The base of a running guest's disk may be read by another, who is told what that keeps up."""

from __future__ import annotations

from moorline.model import DiskOptions, GuestId, Use
from tests.support.rig import Rig, connection


def test_whose_snapshot_cannot_be_merged_meanwhile_is_told(rig: Rig) -> None:
    rig.world.guests[GuestId("g2")].uses.add(Use("/toy/s1/a", "raw", readonly=True, beneath=True))
    rig.world.guests[GuestId("g2")].foreign.add("/toy/s1/a")
    told: list[str] = []
    read_only = DiskOptions(readonly=True)
    attach = rig.owner().attachments.attach
    attach("g1", connection(), options=read_only, progress=told.append)
    assert "`virsh blockcommit g2` into it fails" in told[-1]
    told.clear()
    rig.world.guests[GuestId("g2")].running = False
    attach("g1", connection(), options=read_only, progress=told.append)
    assert not [each for each in told if "blockcommit" in each]
