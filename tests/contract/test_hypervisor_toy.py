"""The toy hypervisor against the hypervisor contract: what the core is tested on must keep it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from moorline.model import DiskSource, GuestId, ImageFile, VolumeId
from moorline.testing.contracts.hypervisor import Half, HypervisorContract, HypervisorRig
from moorline.testing.toys import ToyGuest, ToyHypervisor, ToyWorld


class ToyRig(HypervisorRig):
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

    def foreign_disk(self, guest: GuestId) -> str:
        path = f"/srv/foreign-{next(self._numbers)}.raw"
        self._world.guests[guest].foreign.add(path)
        return path

    def halve(self, guest: GuestId, volume: VolumeId, keep: Half) -> None:
        found = self._world.guests[guest]
        (found.defined if keep == "live" else found.live).pop(volume)


class TestToy(HypervisorContract):
    @pytest.fixture
    def rig(self) -> ToyRig:
        return ToyRig()
