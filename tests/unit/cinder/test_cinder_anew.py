"""A connection of Cinder's that changed: it is asked for anew where nothing here hangs on it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lab.cinder.server import Volume
from moorline.core.admission import Admission
from moorline.core.connection_renewal import LONGEST_SECONDS, ConnectionRenewer
from moorline.core.driver import Driver
from moorline.core.reconciler import Reconciler
from moorline.deadline import Clock
from moorline.loop.reservation_keeper import ReservationKeeper
from moorline.model import (
    Disk,
    DiskState,
    GuestId,
    ImageFile,
    Linked,
    NetworkDisk,
    Seen,
    Unknown,
    Unlinked,
)
from moorline.testing.toys import ToyHypervisor
from tests.support.cinder_rig import GUEST, CinderRig, gone

pytest.importorskip("openstack")


def connection(rig: CinderRig) -> Any:
    [row] = rig.records.all()
    return row.connection.reveal()["data"]


def put(rig: CinderRig) -> int:
    return sum(method == "PUT" for method, _ in rig.cloud.calls)


@pytest.fixture
def attached(rig: CinderRig, volume: Volume) -> Volume:
    rig.attach("data")
    volume.connection["password"] = "another"
    rig.cloud.calls.clear()
    return volume


def reboot(rig: CinderRig) -> None:
    its = rig.world.guests[GuestId(GUEST)]
    its.running = False
    its.live.clear()
    rig.world.mounts.clear()


def test_it_is_asked_for_anew_when_the_link_is_gone(rig: CinderRig, attached: Volume) -> None:
    reboot(rig)
    rig.attach("data")
    assert connection(rig)["password"] == "another"
    [its] = rig.cloud.of(attached)
    assert (its.status, put(rig), attached.status) == ("attached", 1, "in-use")
    assert all(noted.completed for noted in rig.records.reservations().values())
    rig.attach("data")
    assert put(rig) == 1
    rig.survive(lambda: rig.detach(attached.id))
    gone(rig, attached)


def test_not_under_a_link_that_is_there(rig: CinderRig, attached: Volume) -> None:
    rig.attach("data")
    assert put(rig) == 0
    assert "password" not in connection(rig)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after the deed"])
def test_cinder_fails_meanwhile(rig: CinderRig, attached: Volume, after: bool) -> None:
    reboot(rig)
    rig.cloud.misbehave("PUT", "attachments", status=500, times=99, after=after)
    rig.survive(lambda: rig.attach("data"))
    assert "password" not in connection(rig)  # it stands as it did
    rig.cloud.misbehaving.clear()
    rig.attach("data", timeout=10)
    assert connection(rig)["password"] == "another"
    [its] = rig.cloud.of(attached)
    assert its.status == "attached"


# --- by itself, where a link cannot be made


@pytest.fixture
def stuck(rig: CinderRig, attached: Volume) -> Volume:
    """The host came back, and its storage takes another password by now."""
    reboot(rig)
    rig.world.passwords["s1"] = "another"
    return attached


def renewer(rig: CinderRig, **how: Any) -> ConnectionRenewer:
    """As an agent has it."""
    reconciler, hypervisor = rig.reconciler(), ToyHypervisor(rig.world)
    admission = Admission(rig.records, reconciler, hypervisor)
    driver = Driver(rig.records, reconciler)
    return ConnectionRenewer(rig.records, rig.reservations(), admission, driver, **how)


def fail(rig: CinderRig) -> None:
    """A pass that meets what is wrong, and notes it."""
    [row] = rig.records.all()
    Driver(rig.records, rig.reconciler()).push(row)
    assert rig.records.trouble(row.key)


def is_connected(rig: CinderRig) -> bool:
    return "/toy/s1" in rig.world.mounts


def test_a_sweep_asks_for_it(rig: CinderRig, stuck: Volume) -> None:
    assert rig.owner().attachments.sweep() == []
    assert connection(rig)["password"] == "another"
    assert is_connected(rig)
    rig.sweep()
    [its] = rig.cloud.of(stuck)
    assert (its.status, put(rig), stuck.status) == ("attached", 1, "in-use")


def test_an_agent_does_so(rig: CinderRig, stuck: Volume) -> None:
    fail(rig)
    stop = threading.Event()
    keeper = ReservationKeeper(rig.reservations(), renewer(rig), every=0.01)
    its = threading.Thread(target=keeper.watch, args=(lambda *_: None, stop))
    its.start()
    while not is_connected(rig):
        assert its.is_alive()
        time.sleep(0.01)
    stop.set()
    its.join()
    rig.sweep()
    assert connection(rig)["password"] == "another"
    assert [each.status for each in rig.cloud.of(stuck)] == ["attached"]


def test_one_that_is_the_same_is_asked_for_seldom(rig: CinderRig, stuck: Volume) -> None:
    del stuck.connection["password"]
    now, told = [0.0], []
    renews = renewer(rig, clock=Clock(lambda: now[0]))
    fail(rig)
    for _ in range(100):
        assert not renews.renew_all(rig.records.reservations(), lambda key, why: told.append(why))
        now[0] += LONGEST_SECONDS / 100
    assert 3 <= put(rig) <= 10
    stuck.connection["password"] = "another"
    now[0] += LONGEST_SECONDS
    assert renews.renew_all(rig.records.reservations(), lambda key, why: told.append(why))
    assert (told, is_connected(rig)) == ([], True)


def test_one_that_does_not_work_replaces_none(rig: CinderRig, stuck: Volume) -> None:
    rig.world.passwords["s1"] = "a third"
    fail(rig)
    told: list[str] = []
    assert not renewer(rig).renew_all(rig.records.reservations(), lambda key, why: told.append(why))
    assert "wrong password" in told[0]
    assert "password" not in connection(rig)


def test_nobody_is_asked_while_something_hangs_on_the_link(rig: CinderRig, stuck: Volume) -> None:
    fail(rig)
    rig.world.mounts["/toy/s1"] = "s1"
    rig.world.hung.add("s1")
    assert not renewer(rig).renew_all(rig.records.reservations(), lambda *_: None)
    assert put(rig) == 0


def test_nor_for_what_is_on_its_way_out_or_was_never_cinders(rig: CinderRig, stuck: Volume) -> None:
    fail(rig)
    [key] = rig.records.reservations()
    kept = rig.records.reservations()[key]
    rig.records.note_reservation(key, None)
    assert not renewer(rig).renew_all(rig.records.reservations(), lambda *_: None)
    rig.records.note_reservation(key, kept)
    rig.cloud.attachments.clear()  # somebody took it away there: doctor tells
    assert not renewer(rig).renew_all(rig.records.reservations(), lambda *_: None)
    assert put(rig) == 0


def test_cinder_that_fails_is_told(rig: CinderRig, stuck: Volume) -> None:
    fail(rig)
    rig.cloud.misbehave("PUT", "attachments", status=500)
    told: list[str] = []
    assert not renewer(rig).renew_all(rig.records.reservations(), lambda key, why: told.append(why))
    assert "Cinder" in told[0]
    assert "password" not in connection(rig)


_SERVERS = Linked(NetworkDisk("rbd", "pool/image"), given=True)


@pytest.mark.parametrize(
    ("seen", "loose"),
    [
        (Seen(_SERVERS), True),
        (Seen(_SERVERS, Disk(DiskState.WHOLE)), False),
        (Seen(_SERVERS, Disk(DiskState.PARTIAL)), False),
        (Seen(Unlinked(), Disk(DiskState.WHOLE)), True),
        (Seen(Unknown("it does not answer")), False),
        (Seen(Linked(ImageFile(Path("/a"), "raw"), given=True)), False),
    ],
)
def test_a_servers_disk_has_no_link_and_hangs_on_its_connection(
    rig: CinderRig, attached: Volume, seen: Seen, loose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reconciler, "observe", lambda self, row: seen)
    [row] = rig.records.all()
    assert rig.reservations()._is_loose(row) is loose
