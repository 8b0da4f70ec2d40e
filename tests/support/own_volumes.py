"""Volumes that a host of the toy fleet has by itself."""

from __future__ import annotations

from dataclasses import replace

from moorline.model import Attachment, GuestId, Key, LinkName, VolumeId
from tests.support.toy_fleet import ToyFleet, wanted


def own(
    fleet: ToyFleet,
    host: str = "h1",
    guest: str = "g1",
    volume: str = "a",
    *,
    name: str = "a",
    shared: bool = False,
) -> Attachment:
    """The host records an attachment by itself, and its loop has it done."""
    row = wanted(guest, name, "s1", shared=shared)
    key = Key(host, VolumeId(volume), GuestId(guest))
    agent = fleet.agent(host)
    row = agent.records.put(replace(row, key=key, link=LinkName("/toy/s1"), aliases=()))
    fleet.heals(host)
    return row
