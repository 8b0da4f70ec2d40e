"""Kill the owner at every effect of attaching and detaching a volume that Cinder gives by name.

Cinder is the stand-in of the lab, by openstacksdk over HTTP: its attachment is never doubled, and
none is left behind.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cinder.server import Cloud, Volume
from moorline.model import GuestId
from moorline.testing.faults import Fault
from tests.support.cinder_rig import GUEST, OTHER, CinderRig, toy

pytest.importorskip("openstack")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with Cloud() as made:
        yield made


def test_attaching_is_repeated_after_any_fault(cloud: Cloud, record_property) -> None:
    struck = 0
    for fault in Fault:
        for at in range(40):
            rig, volume = CinderRig(cloud), cloud.add("data", toy())
            rig.world.faults.plan((at, fault))
            rig.survive(lambda r=rig, v=volume: r.attach(v.id))
            rig.world.faults.plan()
            assert len(cloud.of(volume)) <= 1
            rig.attach(volume.id, timeout=5)
            rig.sweep()
            [its] = cloud.of(volume)
            assert (its.status, its.instance, volume.status) == ("attached", GUEST, "in-use")
            assert its.connector == {"host": "h1", "mode": "rw"}
            assert rig.has(volume)
            assert not rig.world.violations
            struck += rig.world.faults.struck
            if not rig.world.faults.struck:
                break
    record_property("crash_points", struck)
    assert struck > 40


def test_what_was_killed_before_it_was_recorded_is_given_back(
    cloud: Cloud, record_property
) -> None:
    """Whoever asked was told nothing, and gets nothing: a sweep leaves all of it or none."""
    struck = none = 0
    for fault in Fault:
        for at in range(40):
            rig, volume = CinderRig(cloud), cloud.add("data", toy())
            rig.world.faults.plan((at, fault))
            rig.survive(lambda r=rig, v=volume: r.attach(v.id))
            rig.world.faults.plan()
            rig.sweep()
            wanted = bool(rig.records.all())
            assert rig.has(volume) is wanted
            assert [each.status for each in cloud.of(volume)] == ["attached"] * wanted
            assert volume.status == ("in-use" if wanted else "available")
            rig.now += 3600
            rig.sweep()
            assert len(rig.records.reservations()) == wanted
            struck += rig.world.faults.struck
            none += not wanted
            if not rig.world.faults.struck:
                break
    record_property("crash_points", struck)
    assert struck > 40
    assert none > 10


def test_detaching_is_finished_after_any_fault(cloud: Cloud, record_property) -> None:
    struck = 0
    for fault in Fault:
        for at in range(40):
            rig, volume = CinderRig(cloud), cloud.add("data", toy())
            rig.attach(volume.id)
            rig.world.faults.plan((at, fault))
            rig.survive(lambda r=rig, v=volume: r.detach(v.id))
            rig.world.faults.plan()
            # As long as the guest has it, or may have it, Cinder says so.
            assert cloud.of(volume) or not rig.has(volume)
            if rig.records.all():
                rig.survive(lambda r=rig, v=volume: r.detach(v.id))
            rig.sweep()
            if not rig.records.all():
                assert not rig.has(volume)
                assert (cloud.of(volume), volume.status) == ([], "available")
                assert not rig.records.reservations()
            struck += rig.world.faults.struck
            if not rig.world.faults.struck:
                break
    record_property("crash_points", struck)
    assert struck > 15


def test_a_connection_is_renewed_after_any_fault(cloud: Cloud, record_property) -> None:
    """The password changed while the host was down."""
    struck = 0
    for fault in Fault:
        for at in range(40):
            rig, volume = CinderRig(cloud), cloud.add("data", toy())
            rig.attach(volume.id)
            reboot(rig)
            volume.connection["password"] = rig.world.passwords["s1"] = "another"
            rig.world.faults.plan((at, fault))
            rig.survive(lambda r=rig: r.owner().attachments.sweep())
            rig.world.faults.plan()
            rig.sweep()
            assert rig.world.mounts
            if not has_password(rig):  # killed when the link was there, and the rest was not
                assert rig.world.faults.struck
                reboot(rig)
                rig.sweep()
                assert has_password(rig)
                assert rig.world.mounts
            [its] = cloud.of(volume)
            assert (its.status, volume.status) == ("attached", "in-use")
            assert all(noted.completed for noted in rig.records.reservations().values())
            assert not rig.world.violations
            struck += rig.world.faults.struck
            if not rig.world.faults.struck:
                break
    record_property("crash_points", struck)
    assert struck > 15


KILLS = (Fault.KILL_BEFORE, Fault.KILL_AFTER)


def test_a_volume_that_is_deleted_wherever_the_owner_was_killed(
    cloud: Cloud, record_property
) -> None:
    """By an administrator: nothing is left of it at Cinder, and a guest that has it lets it go."""
    struck = 0
    for fault in KILLS:
        for at in range(40):
            rig, volume = CinderRig(cloud), cloud.add("data", toy())
            rig.world.faults.plan((at, fault))
            rig.survive(lambda r=rig, v=volume: r.attach(v.id))
            rig.world.faults.plan()
            cloud.remove(volume)
            rig.sweep()
            assert rig.has(volume) is bool(rig.records.all())
            if rig.records.all():
                rig.survive(lambda r=rig, v=volume: r.detach(v.id))
            rig.now += 3600
            rig.sweep()
            assert not rig.has(volume)
            assert (rig.records.all(), rig.records.reservations()) == ([], {})
            struck += rig.world.faults.struck
            if not rig.world.faults.struck:
                break
    record_property("crash_points", struck)
    assert struck > 15


def test_another_host_that_wants_it_wherever_the_owner_was_killed(
    cloud: Cloud, record_property
) -> None:
    """One of them gets it, and neither takes the other's attachment away."""
    struck = won = 0
    for fault in KILLS:
        for at in range(40):
            first, second = CinderRig(cloud, "h1"), CinderRig(cloud, "h2")
            volume = cloud.add("data", toy())
            del first.world.guests[GuestId(OTHER)]
            del second.world.guests[GuestId(GUEST)]
            first.world.faults.plan((at, fault))
            first.survive(lambda r=first, v=volume: r.attach(v.id))
            first.world.faults.plan()
            second.survive(lambda r=second, v=volume: r.attach(v.id, "web02"))
            for rig in (first, second, first):
                rig.now += 3600
                rig.sweep()
            has = [first.has(volume), second.has(volume, OTHER)]
            assert sum(has) <= 1
            guests = [guest for guest, its in zip((GUEST, OTHER), has, strict=True) if its]
            assert [each.instance for each in cloud.of(volume)] == guests
            assert volume.status == ("in-use" if guests else "available")
            won += has[1]
            struck += first.world.faults.struck
            if not first.world.faults.struck:
                break
    record_property("crash_points", struck)
    assert struck > 15
    assert won > 0


def test_launching_is_repeated_after_any_fault(cloud: Cloud, record_property) -> None:
    struck = 0
    for fault in Fault:
        for at in range(40):
            rig, volume = CinderRig(cloud), cloud.add("data", toy())
            rig.world.faults.plan((at, fault))
            rig.survive(lambda r=rig, v=volume: launch(r, v, timeout=0.1))
            rig.world.faults.plan()
            assert len(cloud.of(volume)) <= 1
            launch(rig, volume)
            rig.sweep()
            [its] = cloud.of(volume)
            assert (its.status, volume.status) == ("attached", "in-use")
            assert rig.world.guests[GuestId(its.instance)].running
            rig.owner().guests.remove("new", force=True)
            rig.now += 3600
            rig.sweep()
            assert (cloud.of(volume), volume.status) == ([], "available")
            assert (rig.records.all(), rig.records.reservations()) == ([], {})
            assert not rig.world.violations
            struck += rig.world.faults.struck
            if not rig.world.faults.struck:
                break
    record_property("crash_points", struck)
    assert struck > 40


def launch(rig: CinderRig, volume: Volume, timeout: float = 5.0) -> None:
    rig.owner().guests.launch("new", f"cinder:{volume.id}", timeout=timeout)


def reboot(rig: CinderRig) -> None:
    its = rig.world.guests[GuestId(GUEST)]
    its.running = False
    its.live.clear()
    rig.world.mounts.clear()


def has_password(rig: CinderRig) -> bool:
    [row] = rig.records.all()
    return "password" in row.connection.reveal()["data"]
