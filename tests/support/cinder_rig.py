"""A toy host beside Cinder's stand-in, whose owner can be killed before and after each request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any
from unittest import mock

from lab.cinder.server import Cloud, Volume, environment
from moorline.api import Moorline
from moorline.cinder import Cinder
from moorline.core.reservations import Reservations
from moorline.errors import MoorlineError
from moorline.model import GuestId, VolumeId
from moorline.testing.faults import Faulty
from moorline.testing.toys import ToyGuest, ToyHypervisor
from tests.support.environment import bare
from tests.support.rig import Rig
from tests.support.toy_machines import ToyLifecycle

GUEST = "6f1d2f3c-0000-4000-8000-000000000001"
OTHER = "6f1d2f3c-0000-4000-8000-000000000002"
CHANGES = ("reserve", "connect", "complete", "release")


def toy(file: str = "a", share: str = "s1") -> dict[str, Any]:
    """What Cinder's driver answers for a file of a toy share."""
    return {"driver_volume_type": "toy", "share": share, "name": file}


@cache
def service(url: str, host: str) -> Cinder:
    """It remembers its token alone, so that one will do for all processes of a host."""

    def connector(peer: str) -> Mapping[str, Any]:
        assert peer == "127.0.0.1"
        return {"host": host}

    with mock.patch.dict(os.environ, environment(url)):
        return Cinder("", connector)


class CinderRig(Rig):
    """Changes at Cinder are effects, like those of the toy world. *host*: its name."""

    def __init__(self, cloud: Cloud, host: str = "h1") -> None:
        super().__init__()
        self.cloud = cloud
        self.host = host
        self.now = 1e9
        self.environment = bare()
        self.machines = ToyLifecycle(self.world, uuids=True)
        self.world.guests = {
            GuestId(GUEST): ToyGuest("web01"),
            GuestId(OTHER): ToyGuest("web02"),
        }

    def owner(self) -> Moorline:
        """As a process that was just started: nothing is remembered of Cinder."""
        return Moorline(
            self.records,
            self.reconciler(),
            ToyHypervisor(self.world),
            self.machines,
            environment=self.environment,
            reservations=self.reservations(),
        )

    def reservations(self) -> Reservations:
        at: Any = Faulty(service(self.cloud.url, self.host), self.world.faults, CHANGES)
        return Reservations(
            self.records,
            self.reconciler(),
            ToyHypervisor(self.world),
            lambda: at,
            clock=lambda: self.now,
        )

    def attach(self, volume: str, guest: str = "web01", **how: Any) -> Any:
        return self.owner().attachments.attach(guest, f"cinder:{volume}", **{"timeout": 0, **how})

    def detach(self, volume: str, guest: str = "web01", **how: Any) -> Any:
        return self.owner().attachments.detach(guest, volume, **{"timeout": 0.1, **how})

    def sweep(self) -> list[str]:
        """Sweep until nothing is left; return what was told last."""
        told: list[str] = []
        for _ in range(6):
            told = []
            self.owner().attachments.sweep(told.append)
            self.world.tick()
        return told

    def has(self, volume: Volume, guest: str = GUEST) -> bool:
        """Whether the guest has it, wholly; asserts that it is not half."""
        its = self.world.guests[GuestId(guest)]
        halves = {VolumeId(volume.id) in its.live, VolumeId(volume.id) in its.defined}
        assert len(halves) == 1
        return halves == {True}


def raised(error: MoorlineError | None, family: type[MoorlineError]) -> str:
    assert isinstance(error, family), error
    return str(error)


def gone(rig: CinderRig, volume: Volume) -> None:
    """Nothing is left of it, here and there."""
    rig.sweep()
    assert not rig.records.all()
    assert not rig.records.reservations()
    assert not rig.has(volume)
    assert not rig.cloud.of(volume)
    assert volume.status == "available"
