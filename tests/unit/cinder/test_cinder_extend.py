"""extend of volumes that Cinder gave: Cinder makes the storage larger, and the guest sees it."""

from __future__ import annotations

from typing import Any

import pytest

from lab.cinder.server import Volume
from moorline.errors import Failed, Refused, Unavailable, Uncertain
from moorline.operations import service_extend
from tests.support.cinder_rig import CinderRig, raised

pytest.importorskip("openstack")
GIB = 1 << 30
FILE = "/toy/s1/a"


@pytest.fixture
def attached(rig: CinderRig, volume: Volume) -> Volume:
    def extended(size: int) -> str:
        rig.world.sizes[FILE] = size * GIB
        return "in-use"

    rig.attach("data")
    rig.world.sizes[FILE] = GIB
    extend(rig, None)
    volume.extended = extended
    rig.cloud.calls.clear()
    return volume


def extend(rig: CinderRig, size: int | None, **how: Any) -> Any:
    [row] = rig.records.all()
    return rig.owner().attachments.extend("web01", row.key.volume, size, **{"timeout": 5, **how})


def asked(rig: CinderRig) -> int:
    return sum(method == "POST" for method, _ in rig.cloud.calls)


def test_cinder_is_asked_and_the_guest_sees_it(rig: CinderRig, attached: Volume) -> None:
    outcome = extend(rig, 3 * GIB)
    assert (outcome.steps, outcome.before, outcome.size) == (["extend"], GIB, 3 * GIB)
    assert (attached.size, attached.status, asked(rig)) == (3, "in-use", 1)
    assert extend(rig, 3 * GIB).steps == []
    assert asked(rig) == 1


def test_a_dry_run_only_looks(rig: CinderRig, attached: Volume) -> None:
    outcome = extend(rig, 3 * GIB, dry_run=True)
    assert (outcome.steps, outcome.before, outcome.size) == (["grow", "extend"], GIB, 3 * GIB)
    assert (asked(rig), attached.status) == (0, "in-use")


@pytest.mark.parametrize("how", [{"status": 500}, {"drop": True}, {"status": 503}], ids=str)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after the deed"])
def test_a_request_without_an_answer_is_looked_after(
    rig: CinderRig, attached: Volume, how: dict[str, Any], after: bool
) -> None:
    rig.cloud.misbehave("POST", "action", after=after, **how)
    assert extend(rig, 2 * GIB, timeout=20).size == 2 * GIB
    assert attached.size == 2


def test_what_was_begun_is_waited_for(rig: CinderRig, attached: Volume) -> None:
    attached.status = "extending"
    with pytest.raises(Uncertain, match="not extended the volume yet"):
        extend(rig, 2 * GIB, timeout=0)
    assert asked(rig) == 0
    attached.asked = 2
    assert extend(rig, 2 * GIB).size == 2 * GIB
    assert asked(rig) == 0


def test_what_cinder_could_not_do_is_refused(rig: CinderRig, attached: Volume) -> None:
    attached.extended = lambda size: "error_extending"
    text = raised(rig.survive(lambda: extend(rig, 2 * GIB)), Refused)
    assert "error_extending" in text
    assert asked(rig) == 1


@pytest.mark.parametrize("size", [3 * GIB // 2, GIB + 1, GIB // 2])
def test_sizes_that_cinder_does_not_have(rig: CinderRig, attached: Volume, size: int) -> None:
    raised(rig.survive(lambda: extend(rig, size)), Refused)
    raised(rig.survive(lambda: extend(rig, size, dry_run=True)), Refused)
    assert asked(rig) == 0


def test_drivers_that_leave_an_attached_volume_in_error_are_not_asked(
    rig: CinderRig, attached: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_extend, "FREE_ALONE", frozenset({"toy"}))
    for dry_run in (True, False):
        text = raised(rig.survive(lambda d=dry_run: extend(rig, 2 * GIB, dry_run=d)), Refused)
        assert "no volume that is attached" in text
    assert (asked(rig), attached.status) == (0, "in-use")


def test_without_a_size_and_of_others_volumes_cinder_is_not_asked(
    rig: CinderRig, attached: Volume
) -> None:
    rig.world.sizes[FILE] = 2 * GIB
    assert extend(rig, None).size == 2 * GIB
    for key in rig.records.reservations():
        rig.records.note_reservation(key, None)
    with pytest.raises(Failed, match="has only"):
        extend(rig, 3 * GIB, timeout=0)
    assert rig.cloud.calls == []


def test_cinder_is_away(rig: CinderRig, attached: Volume) -> None:
    rig.cloud.misbehave("GET", "volumes", times=99, status=503)
    for dry_run in (True, False):
        raised(
            rig.survive(lambda d=dry_run: extend(rig, 2 * GIB, timeout=0, dry_run=d)), Unavailable
        )


def test_cinder_goes_away_once_it_was_asked(rig: CinderRig, attached: Volume) -> None:
    def away(size: int) -> str:
        rig.cloud.misbehave("GET", "volumes", times=99, status=503)
        return "extending"

    attached.extended = away
    rig.cloud.misbehave("POST", "action", status=503, after=True)
    raised(rig.survive(lambda: extend(rig, 2 * GIB, timeout=2)), Uncertain)
    assert asked(rig) == 1


@pytest.mark.parametrize("dry_run", [False, True])
def test_its_file_is_not_made_larger_behind_its_back(
    rig: CinderRig, attached: Volume, dry_run: bool
) -> None:
    told = raised(rig.survive(lambda: extend(rig, 2 * GIB, grow=True, dry_run=dry_run)), Refused)
    assert "leave out --grow" in told
    assert (rig.world.sizes[FILE], asked(rig)) == (GIB, 0)
