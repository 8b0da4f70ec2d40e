"""A volume of the real Cinder's is extended under its guest: `make test-cinder`.

Its driver is the lab's for HyperScale, as Cinder's for Quobyte extends nothing that is attached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real_cinder_rig import a_volume, cinder, is_attached
from scene import small_guest

from lab.cinder.real import RealCloud
from lab.command import Moorline

_KIND = "hyperscale"
_DRIVER = "lab.cloud.hyperscale_driver.HyperScaleDriver"


@pytest.fixture(scope="module")
def cloud(lab: Path) -> Iterator[RealCloud]:
    with cinder(lab, {_KIND: _DRIVER}) as made:
        admin = made.connect("admin", "admin").block_storage
        admin.create_type(name=_KIND, extra_specs={"volume_backend_name": _KIND})
        yield made


@pytest.fixture
def guest(libvirt_conn: Any) -> Iterator[Any]:
    with small_guest(libvirt_conn, "small", running=True) as domain:
        yield domain


def test_extended_under_its_guest(moorline: Moorline, cloud: RealCloud, guest: Any) -> None:
    command = replace(moorline, environment=dict(cloud.environment()))
    with a_volume(cloud, _KIND) as volume:
        command("attach", "small", f"cinder:{volume.id}")
        assert command.json("extend", "small", volume.id, "2G", "--dry-run")["steps"][0] == "grow"
        assert volume.gib == 1
        assert command.json("extend", "small", volume.id, "2G")["size"] == 2 << 30
        [shown] = command.json("show", volume.id)
        assert guest.blockInfo(shown["device"])[0] == 2 << 30
        assert (volume.gib, volume.status) == (2, "in-use")
        assert command.json("extend", "small", volume.id, "2G")["steps"] == []
        command("extend", "small", volume.id, "1G", code=3)
        guest.destroy()  # it has no system that would let the disk go
        assert is_attached(volume, guest)
        command("detach", "small", volume.id)
        assert not is_attached(volume, guest)
