"""The toy whose guests move, against the contract: what the fleet is tested on must keep it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from moorline.model import GuestId, ImageFile
from moorline.ports.moving import MovingHypervisor
from moorline.testing.contracts.moving import MovingContract, MovingRig
from moorline.testing.toy_moving import MovableGuest, ToyCentre, ToyMover
from moorline.testing.toys import ToyWorld


class ToyRig(MovingRig):
    def __init__(self) -> None:
        self._numbers = count()
        centre = ToyCentre()
        centre.hosts = {"h1": ToyWorld(), "h2": ToyWorld()}
        for world in centre.hosts.values():
            world.mounts["/srv"] = "share"
        self._worlds = centre.hosts
        self.here, self.there = (ToyMover(centre.hosts[h], centre, h) for h in ("h1", "h2"))
        self.there_name = "h2"

    def new_guest(self) -> GuestId:
        guest = GuestId(f"g{next(self._numbers)}")
        self._worlds["h1"].guests[guest] = MovableGuest(guest)
        return guest

    def new_source(self) -> ImageFile:
        return ImageFile(Path(f"/srv/{next(self._numbers)}.raw"), "raw")

    def runs(self, hypervisor: MovingHypervisor, guest: GuestId) -> bool:
        found = self._worlds["h1" if hypervisor is self.here else "h2"].guests.get(guest)
        return isinstance(found, MovableGuest) and found.writes


class TestToyMover(MovingContract):
    @pytest.fixture
    def rig(self) -> ToyRig:
        return ToyRig()
