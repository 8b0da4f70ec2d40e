"""A disk that somebody else plugged is adopted by its volume's name at Cinder, on a toy host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab.cinder.server import Volume
from moorline.core.storage_names import typed_kind
from moorline.errors import Refused, Unavailable
from moorline.testing.faults import Fault
from tests.support.care_rig import ToyInventory, disk
from tests.support.cinder_rig import GUEST, CinderRig, gone, raised

pytest.importorskip("openstack")


@pytest.fixture
def plugged(rig: CinderRig, volume: Volume) -> CinderRig:
    """Guest, share and Cinder have it, and nothing is recorded here."""
    path = str(rig.attach("data").view.source["path"])
    inventory = ToyInventory()
    inventory.all[GUEST] = [disk(path, mark=volume.id, serial=volume.id, running=True)]
    rig.environment = replace(rig.environment, inventory=inventory)
    rig.owner().maintenance.release("web01", volume.id)
    assert not rig.records.reservations()
    rig.cloud.calls.clear()
    return rig


def adopt(rig: CinderRig, volume: str = "data", **how: Any) -> Any:
    return rig.owner().maintenance.adopt("web01", f"cinder:{volume}", **how)


def asked_only(rig: CinderRig) -> bool:
    return {method for method, _ in rig.cloud.calls} == {"GET"}


@pytest.mark.parametrize("called", ["by name", "by its serial"])
def test_it_is_ours_from_then_on(plugged: CinderRig, volume: Volume, called: str) -> None:
    before = dict(plugged.cloud.attachments)
    name = "data" if called == "by name" else volume.id
    assert adopt(plugged, name, dry_run=True).steps == ["adopt"]
    assert not plugged.records.all()
    assert adopt(plugged, name).view.volume == volume.id
    assert adopt(plugged, name).steps == []
    plugged.sweep()
    assert plugged.cloud.attachments == before
    assert asked_only(plugged)
    plugged.survive(lambda: plugged.detach("cinder:data"))
    gone(plugged, volume)


@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
@pytest.mark.parametrize("at", range(3))
def test_killed_at_each_write(plugged: CinderRig, volume: Volume, at: int, fault: Fault) -> None:
    """A guest that has the disk has Cinder's attachment, too; the same command goes on."""
    before = dict(plugged.cloud.attachments)
    plugged.world.faults.plan((at, fault))
    plugged.survive(lambda: adopt(plugged))
    plugged.world.faults.plan()
    plugged.sweep()
    assert plugged.has(volume)
    assert plugged.cloud.attachments == before
    adopt(plugged)
    plugged.survive(lambda: plugged.detach("cinder:data"))
    gone(plugged, volume)


def test_where_nova_goes_on_plugging_it_nova_tells_cinder(
    plugged: CinderRig, volume: Volume
) -> None:
    adopt(plugged, hands_off=True)
    assert plugged.records.all()
    assert not plugged.records.reservations()
    assert asked_only(plugged)


def none(rig: CinderRig, volume: Volume) -> None:
    rig.cloud.attachments.clear()


def two(rig: CinderRig, volume: Volume) -> None:
    [its] = rig.cloud.of(volume)
    rig.cloud.attachments["f" * 36] = replace(its, id="f" * 36)


def reserved(rig: CinderRig, volume: Volume) -> None:
    [its] = rig.cloud.of(volume)
    its.connection = None


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(none, "no attachment"), (two, "2 attachments"), (reserved, "was told no host")],
)
def test_what_cinder_does_not_have_once_is_refused(
    plugged: CinderRig, volume: Volume, spoil: Callable[[CinderRig, Volume], None], says: str
) -> None:
    spoil(plugged, volume)
    assert says in raised(plugged.survive(lambda: adopt(plugged)), Refused)
    assert not plugged.records.all()
    assert not plugged.records.reservations()


@pytest.mark.parametrize("how", [{"format": "raw"}, {"volume": "another"}])
def test_what_contradicts_cinder_is_refused(plugged: CinderRig, how: dict[str, Any]) -> None:
    raised(plugged.survive(lambda: adopt(plugged, **how)), Refused)
    assert not plugged.records.all()


def test_nothing_is_adopted_while_cinder_is_away(plugged: CinderRig) -> None:
    plugged.cloud.misbehave("GET", "volumes", times=99, status=503)
    raised(plugged.survive(lambda: adopt(plugged)), Unavailable)
    assert not plugged.records.all()


def test_where_no_name_is_taken_that_is_said() -> None:
    with pytest.raises(Refused, match="a volume of Cinder's") as refused:
        typed_kind("cinder:data")
    assert "moorline attach" in refused.value.hint
