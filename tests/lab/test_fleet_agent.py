"""Agents follow a fleet: real etcd, real libvirt, and a share that each host mounts for itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_rig import LabFleet
from libvirt_rig import until
from scene import Scene, halves, small_guest


@pytest.fixture
def fleet(lab: Path, leftovers_check: None) -> Iterator[LabFleet]:
    """One host, whose agent runs."""
    with tempfile.TemporaryDirectory(dir=lab, prefix="fleet-") as directory:
        Path(directory).chmod(0o755)
        fleet = LabFleet(Path(directory))
        try:
            fleet.hosts["one"].start()
            yield fleet
        finally:
            fleet.close()


@pytest.fixture
def guest(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    with small_guest(libvirt_conn, "web01", running=True) as domain:
        yield domain


def test_attach_through_the_fleet(fleet: LabFleet, guest: Any, scene: Scene) -> None:
    host = fleet.hosts["one"]
    fleet.wait_for_guest("web01", "one")
    volume = scene.volume()
    fleet("attach", "web01", "--connection", str(volume.connection))
    assert halves(guest, volume.id) == (True, True)
    assert host.seen() == {volume.id: "attached"}
    fleet("attach", "web01", "--connection", str(volume.connection))
    guest.destroy()  # it has no system that would let go
    fleet("detach", "web01", volume.id)
    assert halves(guest, volume.id) == (False, False)
    assert host.seen() == {}
    until(lambda: not scene.mounts())
