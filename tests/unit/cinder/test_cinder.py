"""Volumes that Cinder gives by name, on a toy host: what Cinder does, and what a person is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab.cinder.server import Cloud, Volume
from moorline import cinder
from moorline.errors import (
    Denied,
    NotFound,
    NotOurs,
    Refused,
    Unavailable,
    Uncertain,
)
from moorline.model import DiskOptions, GuestId
from moorline.testing.toys import ToyGuest
from tests.support.cinder_rig import GUEST, OTHER, CinderRig, gone, raised, toy

pytest.importorskip("openstack")


def detached(rig: CinderRig, volume: Volume, guest: str = "web01") -> None:
    rig.survive(lambda: rig.detach(volume.id, guest))
    gone(rig, volume)


def test_attach_by_name_and_detach_by_id(rig: CinderRig, volume: Volume) -> None:
    outcome = rig.attach("data")
    assert outcome.view.volume == volume.id
    assert rig.has(volume)
    [its] = rig.cloud.of(volume)
    assert (its.status, its.instance, volume.status) == ("attached", GUEST, "in-use")
    detached(rig, volume)


def test_detach_by_name(rig: CinderRig, volume: Volume) -> None:
    rig.attach(volume.id)
    rig.survive(lambda: rig.detach("cinder:data"))
    gone(rig, volume)


def test_an_id_is_detached_by_name_while_cinder_is_away(rig: CinderRig, volume: Volume) -> None:
    rig.attach("data")
    rig.cloud.misbehave("GET", "volumes", times=99, status=503)
    rig.survive(lambda: rig.detach(f"cinder:{volume.id.upper()}"))
    rig.sweep()
    assert not rig.has(volume)
    rig.cloud.misbehaving.clear()
    gone(rig, volume)


def test_attaching_again_asks_for_nothing_new(rig: CinderRig, volume: Volume) -> None:
    rig.attach("data")
    before = dict(rig.cloud.attachments)
    changes = [call for call in rig.cloud.calls if call[0] != "GET"]
    rig.attach("data")
    assert rig.cloud.attachments == before
    assert [call for call in rig.cloud.calls if call[0] != "GET"] == changes


def test_read_only_is_said_to_cinder_and_to_the_guest(rig: CinderRig, volume: Volume) -> None:
    outcome = rig.attach("data", options=DiskOptions(readonly=True))
    [its] = rig.cloud.of(volume)
    assert its.connector is not None
    assert its.connector["mode"] == "ro"
    assert outcome.view.options["readonly"] is True


def test_a_volume_that_another_guest_has_is_refused(rig: CinderRig, volume: Volume) -> None:
    rig.attach("data")
    text = raised(rig.survive(lambda: rig.attach("data", "web02")), Refused)
    assert "in-use" in text
    assert len(rig.cloud.of(volume)) == 1
    detached(rig, volume)


def test_two_hosts_at_once_have_one_winner(cloud: Cloud, volume: Volume) -> None:
    first, second = CinderRig(cloud, "h1"), CinderRig(cloud, "h2")
    del first.world.guests[GuestId(OTHER)]
    second.world.guests = {GuestId(OTHER): ToyGuest("web02")}
    cloud.misbehave("PUT", "attachments", slow_seconds=0.1)

    first.attach("data")
    raised(second.survive(lambda: second.attach("data", "web02")), Refused)
    second.sweep()
    assert not second.records.reservations()
    assert [each.instance for each in cloud.of(volume)] == [GUEST]
    assert first.has(volume)
    assert not second.has(volume, OTHER)


def test_multi_attach_has_one_attachment_for_each_guest(rig: CinderRig, cloud: Cloud) -> None:
    volume = cloud.add("shared", toy(), multiattach=True)
    shared = DiskOptions(shared=True)
    rig.attach("shared", options=shared)
    rig.attach("shared", "web02", options=shared)
    assert {each.instance for each in cloud.of(volume)} == {GUEST, OTHER}
    rig.survive(lambda: rig.detach(volume.id))
    rig.sweep()
    assert [(each.instance, each.status) for each in cloud.of(volume)] == [(OTHER, "attached")]
    detached(rig, volume, "web02")


def test_what_others_attached_to_the_guest_is_left_alone(rig: CinderRig, volume: Volume) -> None:
    made = rig.cloud.reserve({"volume_uuid": volume.id, "instance_uuid": GUEST})["attachment"]
    raised(rig.survive(lambda: rig.attach("data")), NotOurs)
    rig.sweep()
    assert [each.id for each in rig.cloud.of(volume)] == [made["id"]]
    assert not rig.records.reservations()


def test_a_volume_that_the_host_refuses_is_given_back(rig: CinderRig, volume: Volume) -> None:
    volume.connection["encrypted"] = True
    rig.world.missing.add("/toy/s1/a")
    raised(rig.survive(lambda: rig.attach("data")), Refused)
    gone(rig, volume)


@pytest.mark.parametrize(
    ("how", "family"),
    [
        ({"status": 400}, Refused),
        ({"status": 403}, Denied),
        ({"status": 404}, NotFound),
        ({"status": 409}, Unavailable),
        ({"status": 500}, Unavailable),
        ({"status": 503}, Unavailable),
        ({"drop": True}, Unavailable),
    ],
    ids=str,
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after the deed"])
@pytest.mark.parametrize("request_", ["POST attachments", "PUT attachments"])
def test_what_cinder_fails_leaves_nothing_here_or_there(
    rig: CinderRig, volume: Volume, how: dict[str, Any], family: Any, after: bool, request_: str
) -> None:
    if after and how.get("status", 500) < 500:
        pytest.skip("Cinder does not do what it refuses")
    method, path = request_.split()
    rig.cloud.misbehave(method, path, times=9, after=after, **how)
    raised(rig.survive(lambda: rig.attach("data")), family)
    assert not rig.records.all()
    rig.cloud.misbehaving.clear()
    rig.sweep()
    rig.now += 3600
    gone(rig, volume)


@pytest.mark.parametrize(
    "how", [{"status": 500}, {"status": 409}, {"status": 401}, {"drop": True}], ids=str
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after the deed"])
@pytest.mark.parametrize("request_", ["POST attachments", "PUT attachments", "POST action"])
def test_what_fails_once_is_tried_again(
    rig: CinderRig, volume: Volume, how: dict[str, Any], after: bool, request_: str
) -> None:
    if after and how.get("status") in (401, 409):
        pytest.skip("Cinder does not do what it refuses")
    method, path = request_.split()
    rig.cloud.misbehave(method, path, after=after, **how)
    rig.attach("data", timeout=10)
    [its] = rig.cloud.of(volume)
    assert its.status == "attached"
    assert rig.has(volume)


@pytest.mark.parametrize("after", [False, True], ids=["late deed", "late answer"])
@pytest.mark.parametrize("request_", ["POST attachments", "PUT attachments", "POST action"])
def test_a_cinder_that_is_slower_than_it_is_waited_for(
    rig: CinderRig,
    volume: Volume,
    after: bool,
    request_: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is asked once more meanwhile may be done twice; one of them is left in the end."""
    monkeypatch.setattr(cinder, "REQUEST_SECONDS", 0.3)
    method, path = request_.split()
    rig.cloud.misbehave(method, path, slow_seconds=1.5, after=after)
    rig.attach("data", timeout=20)
    monkeypatch.undo()
    done = len(rig.cloud.calls)
    while request_ == "POST attachments" and not after and len(rig.cloud.of(volume)) < 2:
        assert len(rig.cloud.calls) == done  # nobody but the first request
        time.sleep(0.01)
    assert rig.has(volume)
    rig.survive(lambda: rig.detach(volume.id))
    rig.sweep()
    rig.now += 3600
    gone(rig, volume)


def test_an_answer_that_is_late_doubles_nothing(rig: CinderRig, volume: Volume) -> None:
    """The attachment that was asked for first comes when the second one was made."""
    rig.cloud.misbehave("POST", "attachments", drop=True)  # before the deed
    rig.attach("data", timeout=10)
    rig.cloud.reserve({"volume_uuid": volume.id, "instance_uuid": GUEST})  # the deed
    rig.survive(lambda: rig.detach(volume.id))
    rig.sweep()
    assert not rig.cloud.of(volume)
    assert rig.records.reservations()  # more may come, for a while
    rig.now += 3600
    gone(rig, volume)


def test_a_late_one_that_comes_after_the_detach_goes_too(rig: CinderRig, volume: Volume) -> None:
    rig.cloud.misbehave("POST", "attachments", drop=True)
    rig.attach("data", timeout=10)
    rig.survive(lambda: rig.detach(volume.id))
    rig.sweep()
    rig.cloud.reserve({"volume_uuid": volume.id, "instance_uuid": GUEST})
    rig.sweep()
    rig.now += 3600
    gone(rig, volume)


def test_a_token_that_expired_is_renewed(rig: CinderRig, volume: Volume) -> None:
    rig.attach("data")
    rig.cloud.expire()
    detached(rig, volume)


def test_cinder_is_away_when_the_disk_is_detached(rig: CinderRig, volume: Volume) -> None:
    rig.attach("data")
    rig.cloud.misbehave("GET", "", times=99, status=503)
    rig.world.guests[GuestId(GUEST)].running = False  # lets go at once
    rig.world.guests[GuestId(GUEST)].live.clear()
    text = raised(rig.survive(lambda: rig.detach(volume.id)), Uncertain)
    assert f"volume {volume.id} is no disk of web01, and then: Cinder" in text
    told: list[str] = []
    rig.owner().attachments.sweep(told.append)
    assert any("Cinder is not in step" in line for line in told)
    rig.cloud.misbehaving.clear()
    assert rig.detach(volume.id) is None
    gone(rig, volume)


def test_a_volume_that_was_deleted_beneath_us_can_be_detached(
    rig: CinderRig, volume: Volume
) -> None:
    rig.attach("data")
    rig.cloud.remove(volume)
    rig.survive(lambda: rig.detach(volume.id))
    rig.sweep()
    assert not rig.records.all()
    assert not rig.records.reservations()


def test_a_disk_that_is_released_keeps_what_cinder_has(rig: CinderRig, volume: Volume) -> None:
    rig.attach("data")
    rig.owner().maintenance.release("web01", volume.id)
    rig.sweep()
    assert rig.has(volume)
    assert [each.status for each in rig.cloud.of(volume)] == ["attached"]


def test_as_long_as_the_guest_has_the_disk_cinder_is_not_told_otherwise(
    rig: CinderRig, volume: Volume
) -> None:
    rig.attach("data")
    [row] = rig.records.all()
    rig.records.forget(row)  # whatever did that
    assert any("still has volume" in line for line in rig.sweep())
    assert rig.cloud.of(volume)


def test_other_credentials_see_nothing_and_take_nothing(rig: CinderRig, volume: Volume) -> None:
    rig.attach("data")
    [(key, noted)] = rig.records.reservations().items()
    from dataclasses import replace

    rig.records.note_reservation(key, replace(noted, project="another"))
    rig.survive(lambda: rig.detach(volume.id))
    assert any("made as project another" in line for line in rig.sweep())
    assert rig.records.reservations()


@pytest.mark.parametrize(
    ("typed", "family", "words"),
    [
        ("nothing", NotFound, "Cinder has no volume nothing"),
        ("6f1d2f3c-0000-4000-8000-00000000ffff", NotFound, "Cinder has no volume"),
        ("twin", Refused, "several volumes are called twin"),
        ("", NotFound, "Cinder has no volume"),
    ],
)
def test_names_that_name_no_one_volume(rig: CinderRig, typed: str, family: Any, words: str) -> None:
    for _ in range(2):
        rig.cloud.add("twin", toy())
    assert words in raised(rig.survive(lambda: rig.attach(typed)), family)
    assert not rig.records.reservations()


@pytest.mark.parametrize("asked", [{"format": "raw"}, {"hands_off": True}])
def test_what_does_not_fit_is_refused(
    rig: CinderRig, volume: Volume, asked: dict[str, Any]
) -> None:
    raised(rig.survive(lambda: rig.attach("data", **asked)), Refused)
    assert not rig.cloud.of(volume)


def test_without_nova_a_service_may_delete(rig: CinderRig, cloud: Cloud, volume: Volume) -> None:
    """Cinder asks Nova of an instance's attachment, unless a service says it."""
    cloud.has_nova = False
    rig.attach("data")
    rig.survive(lambda: rig.detach(volume.id))
    assert any("Cinder is not in step" in line for line in rig.sweep())
    cloud.roles = ["member", "service"]
    cloud.expire()
    gone(rig, volume)


# --- doctor compares


def checks(rig: CinderRig) -> list[tuple[str, str]]:
    found = rig.owner().maintenance.doctor().findings
    return [(each.check, each.next) for each in found if each.check.startswith("cinder-")]


def test_doctor_says_which_side_is_stale(rig: CinderRig, volume: Volume) -> None:
    rig.attach("data")
    assert checks(rig) == []
    kept = dict(rig.cloud.attachments)
    rig.cloud.attachments.clear()
    volume.status = "available"  # an administrator did that
    again = f"moorline attach web01 cinder:{volume.id}"
    assert checks(rig) == [("cinder-taken-away", again)]
    rig.attach(volume.id)
    assert checks(rig) == []
    assert [each.status for each in rig.cloud.of(volume)] == ["attached"]
    assert not kept.keys() & rig.cloud.attachments.keys()
    rig.cloud.misbehave("GET", "attachments", status=503)
    assert [check for check, _ in checks(rig)] == ["cinder-not-asked"]
    rig.cloud.misbehave("DELETE", "attachments", status=503, times=9)
    rig.survive(lambda: rig.detach(volume.id))
    rig.sweep()
    assert checks(rig) == [("cinder-left-behind", "moorline sweep")]
    rig.cloud.misbehaving.clear()
    gone(rig, volume)


def test_what_cinder_does_once_more_when_it_was_complete_is_told(
    rig: CinderRig, volume: Volume
) -> None:
    """A request that was given up, and came late."""
    rig.attach("data")
    [its] = rig.cloud.of(volume)
    rig.cloud.update(its.id, {"host": "h1"})
    again = f"moorline attach web01 cinder:{volume.id}"
    assert checks(rig) == [("cinder-unfinished", again)]
    rig.attach("data")
    assert checks(rig) == []
    assert [each.status for each in rig.cloud.of(volume)] == ["attached"]
    assert volume.status == "in-use"
