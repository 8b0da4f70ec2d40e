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
from tests.support.cinder_rig import GUEST, OTHER, CinderRig, gone, raised, service, toy

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


# --- all at once


def adopt_all(rig: CinderRig, guest: str | None = None, **how: Any) -> Any:
    return rig.owner().maintenance.adopt_all(guest, **{"cinder": True, **how}).disks


def outcomes(disks: Any) -> list[tuple[str, str]]:
    return [(each.outcome, each.volume) for each in disks if each.volume]


def other(rig: CinderRig) -> Volume:
    """Another guest's volume, which is of Cinder as well."""
    volume = rig.cloud.add("more", toy("b"))
    path = str(rig.attach("more", "web02").view.source["path"])
    rig.environment.inventory.all[OTHER] = [disk(path, mark=volume.id, serial=volume.id)]
    rig.owner().maintenance.release("web02", volume.id)
    return volume


def test_all_whose_serials_cinder_knows(plugged: CinderRig, volume: Volume) -> None:
    more = other(plugged)
    plain = disk("/img/root.qcow2", device="vdz", serial="6f1d2f3c-0000-4000-8000-00000000ffff")
    plugged.environment.inventory.all[OTHER].append(plain)
    before = dict(plugged.cloud.attachments)
    assert outcomes(adopt_all(plugged, cinder=False)) == [("left", volume.id), ("left", more.id)]
    assert outcomes(adopt_all(plugged, dry_run=True)) == [("due", volume.id), ("due", more.id)]
    assert not plugged.records.all()
    assert outcomes(adopt_all(plugged, "web02")) == [("adopted", more.id)]
    assert outcomes(adopt_all(plugged)) == [("adopted", volume.id), ("kept", more.id)]
    assert len(plugged.records.reservations()) == 2
    plugged.sweep()
    assert plugged.cloud.attachments == before
    for each, guest in ((volume, "web01"), (more, "web02")):
        plugged.survive(lambda v=each, g=guest: plugged.detach(v.id, g))
    plugged.sweep()
    assert not plugged.cloud.attachments
    assert not plugged.records.reservations()


@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
@pytest.mark.parametrize("at", range(3))
def test_all_killed_at_each_write(
    plugged: CinderRig, volume: Volume, at: int, fault: Fault
) -> None:
    before = dict(plugged.cloud.attachments)
    plugged.world.faults.plan((at, fault))
    plugged.survive(lambda: adopt_all(plugged))
    plugged.world.faults.plan()
    plugged.sweep()
    assert plugged.cloud.attachments == before
    [(outcome, _)] = outcomes(adopt_all(plugged))
    assert outcome in ("adopted", "kept")
    assert len(plugged.records.reservations()) == 1
    plugged.survive(lambda: plugged.detach(volume.id))
    gone(plugged, volume)


def test_all_of_novas_leave_cinder_to_nova(plugged: CinderRig, volume: Volume) -> None:
    [its] = plugged.environment.inventory.all[GUEST]
    plugged.environment.inventory.all[GUEST] = [replace(its, nova=True)]
    assert outcomes(adopt_all(plugged, hands_off=True)) == [("adopted", volume.id)]
    assert not plugged.records.reservations()
    assert outcomes(adopt_all(plugged, "web01")) == [("kept", volume.id)]
    assert not plugged.records.reservations()


@pytest.mark.parametrize(
    ("spoil", "outcome"), [(none, "left"), (two, "adopted"), (reserved, "left")]
)
def test_all_that_cinder_does_not_have_once(
    plugged: CinderRig, volume: Volume, spoil: Callable[[CinderRig, Volume], None], outcome: str
) -> None:
    spoil(plugged, volume)
    [came] = adopt_all(plugged)
    assert came.outcome == outcome
    assert ("2 attachments" in came.why) == (outcome == "adopted")
    assert not plugged.records.reservations()


def test_all_of_all_projects_for_an_administrator(plugged: CinderRig, volume: Volume) -> None:
    """A host of Nova's has guests of many."""
    [its] = plugged.cloud.of(volume)
    its.elsewhere = True
    assert outcomes(adopt_all(plugged)) == [("left", volume.id)]
    plugged.cloud.roles = ["admin"]
    service.cache_clear()  # it has its roles with its token
    assert outcomes(adopt_all(plugged)) == [("adopted", volume.id)]
    plugged.survive(lambda: plugged.detach(volume.id))
    gone(plugged, volume)


def test_all_or_nothing_while_cinder_is_away(plugged: CinderRig) -> None:
    plugged.cloud.misbehave("GET", "attachments", times=99, status=503)
    raised(plugged.survive(lambda: adopt_all(plugged)), Unavailable)
    assert not plugged.records.all()


def test_all_but_what_a_guest_that_cannot_be_read_has(plugged: CinderRig) -> None:
    plugged.environment.inventory.error = Unavailable("libvirtd went away")
    assert {each.outcome for each in adopt_all(plugged)} == {"unavailable"}
