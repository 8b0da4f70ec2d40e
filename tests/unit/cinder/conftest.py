"""A stand-in for Cinder, and a toy host beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cinder.server import Cloud, Volume
from tests.support.cinder_rig import CinderRig, toy


@pytest.fixture(scope="module")
def clouds() -> Iterator[Cloud]:
    with Cloud() as made:
        yield made


@pytest.fixture
def cloud(clouds: Cloud) -> Cloud:
    clouds.volumes.clear()
    clouds.attachments.clear()
    clouds.misbehaving.clear()
    clouds.has_nova, clouds.roles = True, ["member"]
    return clouds


@pytest.fixture
def rig(cloud: Cloud) -> CinderRig:
    return CinderRig(cloud)


@pytest.fixture
def volume(cloud: Cloud) -> Volume:
    return cloud.add("data", toy())
