"""The toy hypervisor against the hypervisor contract: what the core is tested on must keep it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from moorline.model import DiskSource, GuestId, ImageFile, PathSource, VolumeId
from moorline.testing.contracts.extending import ExtendingContract, ExtendingRig
from moorline.testing.contracts.hypervisor import Half
from moorline.testing.toys import SIZE, ToyGuest, ToyHypervisor, ToyWorld


class ToyRig(ExtendingRig):
    def __init__(self) -> None:
        self._world = ToyWorld()
        self._numbers = count()
        self.hypervisor = ToyHypervisor(self._world)
        self._world.guests = {
            GuestId("id-1"): ToyGuest("runs"),
            GuestId("id-2"): ToyGuest("stands", running=False),
            GuestId("id-3"): ToyGuest("passes", persistent=False),
        }

    def running_guest(self) -> GuestId:
        return GuestId("id-1")

    def stopped_guest(self) -> GuestId:
        return GuestId("id-2")

    def transient_guest(self) -> GuestId:
        return GuestId("id-3")

    def new_source(self) -> DiskSource:
        return ImageFile(Path(f"/srv/{next(self._numbers)}.raw"), "raw")

    def settle(self) -> None:
        self._world.tick()

    def grow(self, source: PathSource) -> int:
        self._world.sizes[str(source.path)] = 3 * SIZE
        return 3 * SIZE

    def foreign_disk(self, guest: GuestId) -> str:
        path = f"/srv/foreign-{next(self._numbers)}.raw"
        self._world.guests[guest].foreign.add(path)
        return path

    def halve(self, guest: GuestId, volume: VolumeId, keep: Half) -> None:
        found = self._world.guests[guest]
        (found.defined if keep == "live" else found.live).pop(volume)


class TestToy(ExtendingContract):
    @pytest.fixture
    def rig(self) -> ToyRig:
        return ToyRig()
