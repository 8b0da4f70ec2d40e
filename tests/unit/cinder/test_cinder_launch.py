"""A guest that boots from a volume which Cinder gives by name, on a toy host."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pytest

from lab.cinder.server import Volume
from moorline.errors import MoorlineError, NotFound, Refused, Uncertain
from tests.support.cinder_rig import CinderRig, gone, raised, toy

pytest.importorskip("openstack")
NEW = str(uuid5(NAMESPACE_OID, "new"))


def launch(rig: CinderRig, volume: str = "data", **how: Any) -> Any:
    return rig.owner().guests.launch("new", f"cinder:{volume}", **{"timeout": 5, **how})


def remove(rig: CinderRig, **how: Any) -> Any:
    return rig.owner().guests.remove("new", force=True, **{"timeout": 5, **how})


def is_made(rig: CinderRig) -> bool:
    return NEW in rig.world.guests


def asked_only(rig: CinderRig) -> bool:
    return {method for method, _ in rig.cloud.calls} <= {"GET"}


def test_launched_again_and_removed(rig: CinderRig, volume: Volume) -> None:
    made = launch(rig)
    assert made.steps == ["define", "connect", "attach", "start"]
    assert [view.volume for view in made.attachments] == [volume.id]
    [its] = rig.cloud.of(volume)
    assert (its.status, its.instance, volume.status) == ("attached", NEW, "in-use")
    assert launch(rig).steps == []
    assert [its] == rig.cloud.of(volume)
    assert rig.world.guests[NEW].running
    remove(rig)
    assert not is_made(rig)
    assert (rig.cloud.of(volume), rig.records.reservations()) == ([], {})
    gone(rig, volume)


def test_beside_one_that_has_no_name(rig: CinderRig, volume: Volume) -> None:
    plain = {"driver_volume_type": "toy", "data": {"share": "s2", "name": "b", "volume_id": "b"}}
    made = launch(rig, connections=[plain])
    assert [view.volume for view in made.attachments] == [volume.id, "b"]
    remove(rig)
    gone(rig, volume)


def test_a_dry_run_only_looks(rig: CinderRig, volume: Volume) -> None:
    rig.cloud.calls.clear()
    its = ["reserve", "connect", "attach", "complete"]
    assert launch(rig, dry_run=True).steps == ["define", *its, "start"]
    assert asked_only(rig)
    assert not is_made(rig)
    launch(rig)
    assert launch(rig, dry_run=True).steps == []


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("why", ["in-use", "error", "encrypted", "no such", "a format"])
def test_what_cinder_or_we_would_refuse_makes_no_guest(
    rig: CinderRig, volume: Volume, why: str, dry_run: bool
) -> None:
    how: dict[str, Any] = {"format": "raw"} if why == "a format" else {}
    if why == "encrypted":
        volume.encrypted = True
    elif why in ("in-use", "error"):
        volume.status = why
    rig.cloud.calls.clear()
    name = "other" if why == "no such" else "data"
    family = NotFound if why == "no such" else Refused
    raised(rig.survive(lambda: launch(rig, name, dry_run=dry_run, **how)), family)
    assert not is_made(rig)
    assert asked_only(rig)
    assert not rig.records.reservations()


@pytest.mark.parametrize("who", ["Cinder", "the host"])
def test_refused_when_the_guest_was_made_nothing_is_left(
    rig: CinderRig, volume: Volume, who: str
) -> None:
    if who == "Cinder":
        rig.cloud.misbehave("POST", "attachments", status=400, times=99)
    else:
        rig.world.missing.add("/toy/s1/a")
    raised(rig.survive(lambda: launch(rig)), Refused)
    assert not is_made(rig)
    rig.cloud.misbehaving.clear()
    gone(rig, volume)


@pytest.mark.parametrize("dry_run", [False, True])
def test_another_volume_than_it_boots_from_is_refused_and_given_back(
    rig: CinderRig, volume: Volume, dry_run: bool
) -> None:
    launch(rig)
    other = rig.cloud.add("other", toy("b"))
    if dry_run:  # Cinder alone knows which storage it would be
        launch(rig, "other", dry_run=True)
    else:
        raised(rig.survive(lambda: launch(rig, "other")), Refused)
    rig.sweep()
    assert (rig.cloud.of(other), other.status) == ([], "available")
    assert [each.status for each in rig.cloud.of(volume)] == ["attached"]
    assert rig.world.guests[NEW].running


def test_cinder_is_away_when_it_is_removed(rig: CinderRig, volume: Volume) -> None:
    launch(rig)
    rig.cloud.misbehave("DELETE", "attachments", status=503, times=99)
    raised(rig.survive(lambda: remove(rig, timeout=0.5)), Uncertain)
    assert not is_made(rig)
    rig.cloud.misbehaving.clear()
    gone(rig, volume)


def test_it_goes_on_where_cinder_failed(rig: CinderRig, volume: Volume) -> None:
    rig.cloud.misbehave("PUT", "attachments", status=500, times=99)
    error = rig.survive(lambda: launch(rig, timeout=0))
    assert isinstance(error, MoorlineError)
    assert is_made(rig)
    rig.cloud.misbehaving.clear()
    assert "start" in launch(rig).steps
    assert [each.status for each in rig.cloud.of(volume)] == ["attached"]
