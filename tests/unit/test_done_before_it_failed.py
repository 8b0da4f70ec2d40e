"""What was done, and then could not be recorded or looked at, is told as uncertain."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline.api import Moorline
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import Unavailable, Uncertain
from moorline.model import GuestId, Level, VolumeId
from moorline.ports import Entry
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.testing.faults import Fault
from moorline.testing.toys import MemoryStore, ToyHypervisor, ToyShare
from tests.support.care_rig import Scene, disk, prepared
from tests.support.environment import bare
from tests.support.rig import Rig

G1 = GuestId("g1")


class Hypervisor(ToyHypervisor):
    blind_then = False
    """It answers no question any more once it has done something."""

    def detach(self, guest: GuestId, volume: VolumeId) -> None:
        super().detach(guest, volume)
        self._world.blind = self.blind_then


@pytest.fixture
def rig() -> Rig:
    return Rig("g1")


@pytest.fixture
def hypervisor(rig: Rig) -> Hypervisor:
    return Hypervisor(rig.world)


@pytest.fixture
def moorline(rig: Rig, hypervisor: Hypervisor) -> Moorline:
    """With the volume ``a`` attached to the guest."""
    backends = {"toy": ToyShare(rig.world)}
    reconciler = Reconciler(rig.records, backends, hypervisor, Locks(patience=1.0))
    moorline = Moorline(rig.records, reconciler, hypervisor, environment=bare())
    data = {"share": "s1", "name": "a", "volume_id": "a"}
    moorline.attachments.attach("g1", {"driver_volume_type": "toy", "data": data})
    return moorline


def test_a_disk_that_was_asked_to_go_and_cannot_be_looked_at(
    rig: Rig, moorline: Moorline, hypervisor: Hypervisor
) -> None:
    moorline.maintenance.release("g1", "a")
    hypervisor.blind_then = True
    with pytest.raises(Uncertain, match="g1 was asked to let go of volume a"):
        moorline.attachments.detach("g1", "a", timeout=0)
    assert rig.world.guests[G1].leaving


def test_a_hypervisor_that_was_asked_nothing_changed_nothing(rig: Rig, moorline: Moorline) -> None:
    moorline.maintenance.release("g1", "a")
    rig.world.blind = True
    with pytest.raises(Unavailable):
        moorline.attachments.detach("g1", "a")
    assert not rig.world.guests[G1].leaving


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = prepared(tmp_path, monkeypatch)
    scene.world.guests[G1].running = False
    return scene


def test_a_disk_that_is_gone_and_stands_in_the_records(scene: Scene) -> None:
    scene.attach(level=Level.ATTACHED)
    scene.moorline.maintenance.release("g1", "vol-a")
    scene.faults.plan((0, Fault.FAIL))
    with pytest.raises(Uncertain, match="g1 has let go of volume vol-a, and then: a fault"):
        scene.moorline.attachments.detach("g1", "vol-a")
    assert not scene.world.guests[G1].defined


def test_a_disk_that_is_marked_and_not_adopted(scene: Scene) -> None:
    link = scene.attach("b", "g2")
    scene.inventory.all["g1"] = [disk(f"{link}/a")]
    scene.faults.plan((0, Fault.FAIL))
    with pytest.raises(Uncertain, match="vdc of g1 bears our mark now, and then: a fault"):
        scene.moorline.maintenance.adopt("g1", scene.connection())
    assert scene.inventory.all["g1"][0].mark == "vol-a"
    assert scene.rows("vol-a") == []


class Away(MemoryStore):
    """It cannot tell what went wrong before."""

    def get(self, key: str) -> Entry | None:
        if key.startswith("/moorline/status/"):
            raise Unavailable("the state cannot be read")
        return super().get(key)


@pytest.mark.parametrize("level", [Level.ATTACHED, Level.CONNECTED])
def test_what_is_done_and_recorded_is_success_whatever_is_noted_of_it(
    rig: Rig, level: Level
) -> None:
    rig.store = Away(rig.world.faults)
    rig.records = Records(rig.store, Codec(Secret(b"k" * 32)), "h1")
    data = {"share": "s1", "name": "a", "volume_id": "a"}
    outcome = rig.owner().attachments.attach(
        "g1", {"driver_volume_type": "toy", "data": data}, level=level
    )
    assert outcome.view.seen == str(level)
    assert [row.want for row in rig.records.all()] == [level]
