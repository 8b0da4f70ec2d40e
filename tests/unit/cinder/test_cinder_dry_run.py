"""--dry-run of volumes that Cinder gives by name: it says what would be done, and only looks."""

from __future__ import annotations

import pytest

from lab.cinder.server import Volume
from moorline.errors import NotFound, NotOurs, Refused, Unavailable
from moorline.model import Level
from tests.support.cinder_rig import GUEST, CinderRig, gone, raised, toy

pytest.importorskip("openstack")


def asks_nothing_of(rig: CinderRig) -> bool:
    """Whether nothing but looks reached Cinder since its calls were cleared."""
    return all(method == "GET" for method, _ in rig.cloud.calls)


def test_a_dry_run_names_what_an_attach_would_do(rig: CinderRig, volume: Volume) -> None:
    rig.cloud.calls.clear()
    foreseen = rig.attach("data", dry_run=True)
    assert foreseen.steps == ["reserve", "connect", "attach", "complete"]
    assert foreseen.view.volume == volume.id
    assert "says Cinder" in foreseen.unseen
    assert rig.attach("data", dry_run=True, level=Level.CONNECTED).steps == [
        "reserve",
        "connect",
        "complete",
    ]
    assert asks_nothing_of(rig)
    assert not rig.records.all()
    assert not rig.records.reservations()
    rig.attach("data")
    rig.cloud.calls.clear()
    assert rig.attach("data", dry_run=True).steps == []
    assert asks_nothing_of(rig)


def test_a_dry_run_goes_on_where_an_attach_was_killed(rig: CinderRig, volume: Volume) -> None:
    rig.cloud.misbehave("PUT", "attachments", times=9, status=500)
    rig.cloud.misbehave("DELETE", "attachments", times=9, status=500)
    rig.survive(lambda: rig.attach("data"))
    assert rig.attach("data", dry_run=True).steps == ["connect", "attach", "complete"]
    rig.cloud.misbehaving.clear()
    [its] = rig.cloud.of(volume)
    rig.cloud.update(its.id, {"host": "h1"})
    assert rig.attach("data", dry_run=True).steps == ["connect", "attach", "complete"]


@pytest.mark.parametrize("status", ["in-use", "error", "attaching", "creating"])
def test_a_dry_run_is_refused_as_the_attach_is(rig: CinderRig, volume: Volume, status: str) -> None:
    volume.status = status
    text = raised(rig.survive(lambda: rig.attach("data", dry_run=True)), Refused)
    assert f"is {status}" in text
    raised(rig.survive(lambda: rig.attach("data")), Refused)


def test_a_dry_run_of_what_cannot_be_attached(rig: CinderRig, volume: Volume) -> None:
    volume.encrypted = True
    text = raised(rig.survive(lambda: rig.attach("data", dry_run=True)), Refused)
    assert "encrypted" in text
    rig.cloud.reserve({"volume_uuid": volume.id, "instance_uuid": GUEST})
    raised(rig.survive(lambda: rig.attach("data", dry_run=True)), NotOurs)
    shared = rig.cloud.add("shared", toy("b"), multiattach=True, status="in-use")
    assert rig.attach(shared.id, dry_run=True).steps[0] == "reserve"
    raised(rig.survive(lambda: rig.attach("nothing", dry_run=True)), NotFound)
    rig.cloud.misbehave("GET", "", times=99, status=503)
    raised(rig.survive(lambda: rig.attach("data", dry_run=True)), Unavailable)


def test_a_dry_run_names_what_a_detach_would_do(rig: CinderRig, volume: Volume) -> None:
    rig.attach("data")
    rig.cloud.calls.clear()
    for typed in ("cinder:data", f"cinder:{volume.id}", volume.id):
        assert rig.detach(typed, dry_run=True).steps[-1] == "release"
    assert asks_nothing_of(rig)
    assert rig.has(volume)
    rig.cloud.misbehave("DELETE", "attachments", times=99, status=503)
    rig.survive(lambda: rig.detach(volume.id))
    rig.sweep()
    assert not rig.records.all()
    rig.cloud.calls.clear()
    foreseen = rig.detach(volume.id, dry_run=True)
    assert (foreseen.steps, foreseen.view.guest) == (["release"], "web01")
    assert asks_nothing_of(rig)
    rig.cloud.misbehaving.clear()
    gone(rig, volume)
    assert rig.detach(volume.id, dry_run=True) is None
