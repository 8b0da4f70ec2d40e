"""How much a guest may ask of a disk: said, changed while it is plugged, and set back."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from moorline.cli.output import table
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import MoorlineError, NotFound, NotOurs, Refused
from moorline.loop.drift import DriftDetector
from moorline.model import DiskOptions, GuestId, Level, Limits, VolumeId
from moorline.ports import Hypervisor, LimitingHypervisor
from moorline.testing.toys import ToyHypervisor, ToyShare
from tests.support.rig import Rig, connection

A, G1 = VolumeId("a"), GuestId("g1")


@pytest.fixture
def rig() -> Rig:
    return Rig("g1", "g2")


def limits(rig: Rig) -> Limits:
    return rig.world.guests[G1].limits[A]


def attach(rig: Rig, specs: Any = None, options: DiskOptions | None = None, **data: Any) -> None:
    asked = connection()
    assert isinstance(asked["data"], dict)
    asked["data"] |= {"qos_specs": specs, **data}
    rig.owner().attachments.attach("g1", asked, options=options or DiskOptions())


# --- Cinder's


@pytest.mark.parametrize(
    ("specs", "data", "found"),
    [
        (None, {}, {}),
        ({}, {}, {}),
        ({"total_iops_sec": None}, {}, {}),
        ({"total_iops_sec": "500"}, {}, {"total_iops_sec": 500}),
        ({"read_bytes_sec": 1 << 30}, {}, {"read_bytes_sec": 1 << 30}),
        ({"total_iops_sec": "0"}, {}, {}),
        ({"consumer": "both", "total_iops_sec": 5}, {}, {"total_iops_sec": 5}),
        ({"consumer": "front-end", "specs": {"total_iops_sec": "5"}}, {}, {"total_iops_sec": 5}),
        (
            {"total_iops_sec": 5, "total_iops_sec_max": 9, "size_iops_sec": 4096},
            {},
            {
                "total_iops_sec": 5,
                "total_iops_sec_max": 9,
                "size_iops_sec": 4096,
                "total_iops_sec_max_length": 1,
            },
        ),
        ({"total_iops_sec_per_gb": "30"}, {"size": 10}, {"total_iops_sec": 300}),
        (
            {"read_iops_sec_per_gb": 30, "read_iops_sec_per_gb_min": "400"},
            {"size": 10},
            {"read_iops_sec": 400},
        ),
        (
            {"total_bytes_sec_per_gb": 30, "total_bytes_sec_max": 100},
            {"size": 10},
            {"total_bytes_sec": 100},
        ),
    ],
    ids=repr,
)
def test_what_cinder_says_is_applied(
    rig: Rig, specs: Any, data: dict[str, Any], found: dict[str, int]
) -> None:
    attach(rig, specs, **data)
    assert dict(limits(rig)) == found
    attach(rig, specs, **data)  # so already is success


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "NaN", "-1", "5.0", "0x10", "٣", "1e3", "<iops>5</iops>", "9" * 30),
        *([500], {}, -1, math.nan, math.inf, 2**70, 10**15 + 1, True, 1.5, 5.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "name", ["total_iops_sec", "write_bytes_sec_max", "size_iops_sec", "total_iops_sec_per_gb"]
)
def test_an_odd_limit_is_refused(rig: Rig, name: str, value: Any) -> None:
    with pytest.raises(Refused):
        attach(rig, {name: value}, size=1)
    assert (rig.world.faults.count, rig.records.all()) == (0, [])


@pytest.mark.parametrize(
    ("specs", "data"),
    [
        (5, {}),
        ("total_iops_sec=5", {}),
        ([{"total_iops_sec": 5}], {}),
        ({"iops": 5}, {}),
        ({"total_iops_sec": 5, "colour": 1}, {}),
        ({"consumer": "back-end", "total_iops_sec": 5}, {}),
        ({"consumer": "front-end", "specs": 5}, {}),
        ({"consumer": "Both", "specs": {}}, {}),
        ({"consumer": "both", "specs": {}, "total_iops_sec": 5}, {}),
        ({"total_iops_sec": 5, "read_iops_sec": 5}, {}),
        ({"total_iops_sec_per_gb": 5}, {}),
        ({"total_iops_sec_per_gb": 5}, {"size": "5"}),
        ({"total_iops_sec_per_gb": 10**15}, {"size": 5}),
        ({"total_iops_sec_per_gb_min": 5}, {"size": 5}),
        ({"total_iops_sec_per_gb": 5, "total_iops_sec": 5}, {"size": 5}),
    ],
    ids=repr,
)
def test_what_cannot_be_understood_is_refused_and_not_dropped(
    rig: Rig, specs: Any, data: dict[str, Any]
) -> None:
    for options in (DiskOptions(), DiskOptions(total_iops_sec=7)):
        with pytest.raises(Refused):
            attach(rig, specs, options, **data)
    assert (rig.world.faults.count, rig.records.all()) == (0, [])


def test_a_persons_own_are_instead_of_the_connections(rig: Rig) -> None:
    attach(rig, {"total_iops_sec": 5}, DiskOptions(read_bytes_sec=7))
    assert dict(limits(rig)) == {"read_bytes_sec": 7}


def test_what_nova_plugs_nova_limits(rig: Rig) -> None:
    asked = connection()
    assert isinstance(asked["data"], dict)
    asked["data"]["qos_specs"] = {"iops": "of whatever Nova knows"}
    guest = "11111111-1111-1111-1111-111111111111"
    rig.owner().attachments.attach(guest, asked, level=Level.CONNECTED, hands_off=True)
    assert [row.options for row in rig.records.all()] == [DiskOptions()]


# --- changed


def test_a_limit_is_changed_in_the_guest_and_in_the_record(rig: Rig) -> None:
    attach(rig, {"total_iops_sec": 5, "total_bytes_sec": 9})
    api = rig.owner().attachments
    said = api.set("g1", "a", DiskOptions(total_iops_sec=500), dry_run=True)
    assert (said.steps, dict(limits(rig))["total_iops_sec"]) == (["limit"], 5)
    done = api.set("g1", "a", DiskOptions(total_iops_sec=500))
    assert done.steps == ["limit"]
    assert done.view.options["total_iops_sec"] == 500
    assert dict(limits(rig)) == {"total_iops_sec": 500, "total_bytes_sec": 9}
    assert api.set("g1", "a", DiskOptions(total_iops_sec=500)).steps == []
    # Repeated, as it was typed at first, and as it is now.
    rig.owner().attachments.attach("g1", connection())
    with pytest.raises(Refused, match="total_iops_sec is 500, not 5") as refused:
        attach(rig, {"total_iops_sec": 5, "total_bytes_sec": 9})
    assert refused.value.hint == "moorline set g1 a --total-iops-sec=5"
    assert dict(limits(rig)) == {"total_iops_sec": 500, "total_bytes_sec": 9}


def test_a_limit_is_taken_away(rig: Rig) -> None:
    attach(rig, None, DiskOptions(total_iops_sec=5))
    api = rig.owner().attachments
    with pytest.raises(Refused, match="together"):
        api.set("g1", "a", DiskOptions(read_iops_sec=3))
    api.set("g1", "a", DiskOptions(total_iops_sec=0, read_iops_sec=3))
    assert limits(rig) == (("read_iops_sec", 3),)
    api.set("g1", "a", DiskOptions(read_iops_sec=0))
    assert limits(rig) == ()


def test_of_a_disk_that_is_yet_to_be_plugged_it_is_recorded(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection(), level=Level.CONNECTED)
    assert rig.owner().attachments.set("g1", "a", DiskOptions(total_iops_sec=5)).steps == []
    rig.owner().attachments.attach("g1", connection())
    assert limits(rig) == (("total_iops_sec", 5),)


@pytest.mark.parametrize(
    "options", [DiskOptions(), DiskOptions(cache="none"), DiskOptions(boot=1, total_iops_sec=1)]
)
def test_what_cannot_be_changed_is_refused(rig: Rig, options: DiskOptions) -> None:
    attach(rig)
    before = rig.records.all()
    with pytest.raises(Refused):
        rig.owner().attachments.set("g1", "a", options)
    assert rig.records.all() == before
    with pytest.raises(NotFound):
        rig.owner().attachments.set("g2", "a", DiskOptions(total_iops_sec=1))


def test_of_a_disk_that_is_another_file_nothing_is_changed_nor_recorded(rig: Rig) -> None:
    attach(rig, {"total_iops_sec": 5})
    guest = rig.world.guests[G1]
    guest.live[A] = guest.defined[A] = "/srv/other.raw"
    before = rig.records.all()
    for dry_run in (True, False):
        with pytest.raises(NotOurs, match=r"other\.raw"):
            rig.owner().attachments.set("g1", "a", DiskOptions(total_iops_sec=9), dry_run=dry_run)
        assert (rig.records.all(), rig.records.troubles()) == (before, {})


def test_what_somebody_else_plugs_is_not_limited_either(rig: Rig) -> None:
    guest = "11111111-1111-1111-1111-111111111111"
    api = rig.owner().attachments
    api.attach(guest, connection(), level=Level.CONNECTED, hands_off=True)
    before = rig.records.all()
    with pytest.raises(Refused, match="somebody else plugs"):
        api.set(guest, "a", DiskOptions(total_iops_sec=5))
    assert rig.records.all() == before


def test_what_is_on_its_way_out_is_not_limited(rig: Rig) -> None:
    """It would be kept."""
    attach(rig)
    (row,) = rig.records.all()
    gone = rig.records.put(replace(row, want=Level.ABSENT))
    with pytest.raises(Refused, match="on its way out"):
        rig.owner().attachments.set("g1", "a", DiskOptions(total_iops_sec=5))
    assert rig.records.all() == [gone]


@pytest.mark.parametrize("error", [Refused("QEMU does not take it"), NotOurs("another's")])
def test_what_the_hypervisor_refuses_is_not_recorded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: MoorlineError
) -> None:
    """Else each sweep would fail with it."""
    attach(rig, {"total_iops_sec": 5})

    def limit(self: ToyHypervisor, *its: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ToyHypervisor, "limit", limit)
        with pytest.raises(type(error)):
            rig.owner().attachments.set("g1", "a", DiskOptions(total_iops_sec=9))
    (row,) = rig.records.all()
    assert (row.options.total_iops_sec, rig.records.troubles()) == (5, {})
    assert rig.owner().attachments.sweep() == []
    assert limits(rig) == (("total_iops_sec", 5),)


# --- drift


def detector(rig: Rig) -> DriftDetector:
    hypervisor = ToyHypervisor(rig.world)
    reconciler = Reconciler(rig.records, {"toy": ToyShare(rig.world)}, hypervisor, Locks())
    return DriftDetector(rig.records, reconciler, hypervisor)


def test_limits_that_somebody_else_set_are_seen_and_set_back(rig: Rig) -> None:
    attach(rig, {"total_iops_sec": 5})
    assert detector(rig).everywhere().due == []
    rig.world.guests[G1].limits[A] = (("total_iops_sec", 9),)
    assert [row.key.volume for row in detector(rig).everywhere().due] == ["a"]
    (view,) = rig.owner().attachments.list()
    assert view.next == "limit"
    assert "attached+limit" in table([view])
    assert rig.owner().attachments.sweep() == []
    assert limits(rig) == (("total_iops_sec", 5),)


def test_where_nothing_was_said_of_limits_somebody_elses_stay(rig: Rig) -> None:
    """A version that knew of none recorded none, and its disks may have some."""
    attach(rig)
    rig.world.guests[G1].limits[A] = (("total_iops_sec", 9),)
    assert detector(rig).everywhere().due == []
    rig.owner().attachments.set("g1", "a", DiskOptions(total_iops_sec=0))
    assert limits(rig) == ()


def test_a_hypervisor_that_cannot_limit_says_so(rig: Rig) -> None:
    class Plain(ToyHypervisor):
        limit = None  # type: ignore[assignment]

    plain: Hypervisor = Plain(rig.world)
    assert not isinstance(plain, LimitingHypervisor)
