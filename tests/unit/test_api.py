"""The façade, on a toy host."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from moorline.core.locks import Locks
from moorline.errors import Busy, Failed, NotFound, NotOurs, Refused, Uncertain
from moorline.model import DiskOptions, GuestId, Level, VolumeId
from moorline.testing.faults import Fault
from moorline.testing.toys import BASE
from tests.support.rig import Rig, connection

S1 = str(BASE / "s1")
ID = "3f2a9c4e-1111-4222-8333-abcdefabcdef"
SHARED = DiskOptions(shared=True)


def test_attach_brings_it_all_the_way_and_says_how(rig: Rig) -> None:
    outcome = rig.owner().attachments.attach("g1", connection("a"))
    assert outcome.steps == ["connect", "attach"]
    assert (outcome.view.seen, outcome.view.device) == ("attached", f"toy-{outcome.view.volume}")
    rig.check({("a", "g1"): Level.ATTACHED})


def test_repeating_is_success_and_does_nothing(rig: Rig) -> None:
    cinders = connection("a", volume=ID)
    rig.owner().attachments.attach("g1", cinders)
    effects = rig.world.faults.count
    assert rig.owner().attachments.attach("g1", cinders).steps == []
    assert rig.world.faults.count == effects
    assert _detach(rig, "g1", ID)
    assert rig.owner().attachments.detach("g1", ID) is None


def test_the_last_user_takes_the_link_away(rig: Rig) -> None:
    moorline = rig.owner()
    moorline.attachments.attach("g1", connection("a"))
    moorline.attachments.attach("g2", connection("b"))
    first = _detach(rig, "g1", "a")
    assert "disconnect" not in first
    assert S1 in rig.world.mounts
    assert _detach(rig, "g2", "b")[-2:] == ["disconnect", "forget"]
    assert S1 not in rig.world.mounts
    assert moorline.attachments.list() == []


def test_a_disk_that_somebody_attached_by_hand_keeps_the_link(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    rig.world.guests[GuestId("g2")].running = False
    rig.world.guests[GuestId("g2")].foreign.add(f"{S1}/by-hand")
    _detach(rig, "g1", "a")
    assert S1 in rig.world.mounts
    assert rig.owner().attachments.list() == []


def test_a_dry_run_changes_nothing(rig: Rig) -> None:
    outcome = rig.owner().attachments.attach("g1", connection("a"), dry_run=True)
    assert outcome.steps == ["connect", "attach"]
    assert (rig.world.faults.count, rig.world.mounts) == (0, {})
    rig.owner().attachments.attach("g1", connection("a"))
    effects = rig.world.faults.count
    foreseen = rig.owner().attachments.detach("g1", "a", dry_run=True)
    assert foreseen is not None
    assert foreseen.steps == ["detach", "disconnect", "forget"]
    assert rig.world.faults.count == effects


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({}, "driver_volume_type"),
        ({"driver_volume_type": "nope"}, "no back end for 'nope'"),
        ({"driver_volume_type": 3}, "driver_volume_type"),
        ({"driver_volume_type": "toy"}, "no data"),
        (connection("../../etc/shadow"), "is no name"),
        (connection("a", volume="x" * 65), "no volume id"),
        (connection("a", volume="a b"), "no volume id"),
    ],
)
def test_bad_connections_are_refused_and_change_nothing(
    rig: Rig, bad: dict[str, object], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        rig.owner().attachments.attach("g1", bad)
    assert (rig.world.faults.count, rig.records.all()) == (0, [])


def test_cinder_s_access_mode_is_heeded(rig: Rig) -> None:
    rig.owner().attachments.attach(
        "g1", {**connection("a"), "data": {"share": "s1", "name": "a", "access_mode": "ro"}}
    )
    (row,) = rig.records.all()
    assert row.options.readonly


@pytest.mark.parametrize(
    ("field", "why"),
    [({"access_mode": "wo"}, "access_mode"), ({"encrypted": True}, "cipher text")],
)
def test_what_cannot_be_heeded_is_refused(rig: Rig, field: dict[str, object], why: str) -> None:
    bad = {"driver_volume_type": "toy", "data": {"share": "s1", "name": "a", **field}}
    with pytest.raises(Refused, match=why):
        rig.owner().attachments.attach("g1", bad)
    assert (rig.world.faults.count, rig.records.all()) == (0, [])


def test_an_unknown_guest_is_not_found(rig: Rig) -> None:
    with pytest.raises(NotFound):
        rig.owner().attachments.attach("nobody", connection("a"))
    with pytest.raises(NotFound):
        rig.owner().attachments.detach("nobody", "a")


def test_a_refusal_on_the_way_leaves_nothing_behind(rig: Rig) -> None:
    rig.world.missing.add(f"{S1}/a")
    with pytest.raises(Refused, match="no file"):
        rig.owner().attachments.attach("g1", connection("a"))
    assert (rig.world.mounts, rig.records.all()) == ({}, [])


def test_one_storage_is_not_taken_under_two_ids(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a", volume="one"))
    with pytest.raises(Refused, match="under another id"):
        rig.owner().attachments.attach("g2", connection("a", volume="two"))
    with pytest.raises(Refused, match="belongs to another storage: volume one of g1") as refused:
        rig.owner().attachments.attach("g2", connection("b", volume="one"))
    detach, release = refused.value.hint.split("`")[1::2]
    assert detach == "moorline detach g1 one"
    assert release == "moorline release g1 one"
    rig.owner().maintenance.release("g1", "one")
    assert rig.owner().attachments.attach("g2", connection("b", volume="one")).view.guest == "g2"


def test_two_guests_do_not_write_to_one_volume_unless_they_say_so(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    with pytest.raises(Refused, match="wanted on g1 already"):
        rig.owner().attachments.attach("g2", connection("a"), options=SHARED)
    _detach(rig, "g1", "a")
    rig.owner().attachments.attach("g1", connection("a"), options=SHARED)
    rig.owner().attachments.attach("g2", connection("a"), options=SHARED)
    rig.check({("a", "g1"): Level.ATTACHED, ("a", "g2"): Level.ATTACHED})


def test_other_options_need_a_detach_first(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    with pytest.raises(Refused, match="other options"):
        rig.owner().attachments.attach("g1", connection("a"), options=DiskOptions(readonly=True))


def test_the_same_file_typed_by_hand_is_the_same_volume(rig: Rig) -> None:
    outcome = rig.owner().attachments.attach("g1", "toy://s1/a", format="raw")
    again = rig.owner().attachments.attach("g1", "toy://s1/a", format="raw")
    assert again.view.volume == outcome.view.volume
    assert [view.volume for view in rig.owner().attachments.show("toy://s1/a")] == [
        outcome.view.volume
    ]
    assert [v.guest for v in rig.owner().attachments.show(outcome.view.volume[:6])] == ["g1"]


def test_an_ambiguous_beginning_is_refused(rig: Rig) -> None:
    first, second = (f"3f2a9c4e-1111-4222-8333-abcdefabcde{n}" for n in (1, 2))
    rig.owner().attachments.attach("g1", connection("a", volume=first))
    rig.owner().attachments.attach("g1", connection("b", volume=second))
    with pytest.raises(Refused, match=f"beginning of {first}, {second}"):
        rig.owner().attachments.detach("g1", "3f2a")
    with pytest.raises(NotFound):
        rig.owner().attachments.show("3f2")


def test_a_failure_keeps_the_attachment_and_tells_why(rig: Rig) -> None:
    rig.world.hung.add("s1")
    with pytest.raises(Failed, match="volume a is not attached to g1: s1 cannot be mounted"):
        rig.owner().attachments.attach("g1", connection("a"), timeout=0)
    (shown,) = rig.owner().attachments.show("a")
    assert shown.wanted == "attached"
    assert shown.trouble is not None
    assert "does not answer" in shown.trouble.message
    rig.world.hung.clear()
    assert rig.owner().attachments.sweep() == []
    (shown,) = rig.owner().attachments.show("a")
    assert shown.seen == "attached"


def test_what_was_done_but_reported_uncertain_is_looked_at_again(rig: Rig) -> None:
    rig.world.faults.plan((1, Fault.LOST))
    rig.owner().attachments.attach("g1", connection("a"), timeout=5)
    rig.check({("a", "g1"): Level.ATTACHED})


def test_an_uncertain_end_is_reported_as_uncertain(rig: Rig) -> None:
    rig.world.faults.plan((1, Fault.UNDONE))
    with pytest.raises(Uncertain):
        rig.owner().attachments.attach("g1", connection("a"), timeout=0)


def test_a_mount_of_someone_else_is_parked_for_a_person(rig: Rig) -> None:
    rig.world.mounts[S1] = "theirs"
    with pytest.raises(NotOurs, match="theirs is mounted"):
        rig.owner().attachments.attach("g1", connection("a"))
    assert rig.world.mounts[S1] == "theirs"
    assert [view.volume for view in rig.owner().attachments.forget("a")] == ["a"]
    assert rig.records.all() == []


def test_a_guest_that_does_not_listen_is_not_reported_as_detached(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    rig.world.guests[GuestId("g1")].deaf = True
    with pytest.raises(Failed, match="has not let go"):
        rig.owner().attachments.detach("g1", "a", timeout=0.3)
    assert S1 in rig.world.mounts
    assert rig.owner().attachments.show("a")[0].wanted == "absent"
    rig.world.guests[GuestId("g1")].deaf = False
    _detach(rig, "g1", "a")
    rig.check({("a", "g1"): Level.ABSENT})


def test_a_disk_that_was_never_wanted_here_is_somebody_elses(rig: Rig) -> None:
    """Nova and others mark their disks as we do; so does a state directory that was lost."""
    toy = rig.world.guests[GuestId("g1")]
    toy.live[VolumeId("a")] = toy.defined[VolumeId("a")] = f"{S1}/a"
    with pytest.raises(NotOurs, match="no record of having plugged it"):
        rig.owner().attachments.detach("g1", "a")
    for dry_run in (True, False):
        with pytest.raises(Refused, match="no record of having plugged it"):
            rig.owner().attachments.attach("g1", connection("a"), dry_run=dry_run)
    assert rig.records.all() == []
    assert toy.live
    assert toy.defined


def test_an_attachment_for_the_link_alone_leaves_somebody_elses_disk(rig: Rig) -> None:
    toy = rig.world.guests[GuestId("g1")]
    rig.owner().attachments.attach("g1", connection("a"), level=Level.CONNECTED)
    toy.live[VolumeId("a")] = toy.defined[VolumeId("a")] = f"{S1}/a"
    assert rig.owner().attachments.attach("g1", connection("a"), level=Level.CONNECTED).steps == []
    with pytest.raises(Refused, match="no record of having plugged it"):
        rig.owner().attachments.attach("g1", connection("a"))
    assert rig.owner().attachments.sweep() == []
    outcome = rig.owner().attachments.detach("g1", "a")
    assert outcome is not None
    assert outcome.steps == ["forget"], "its guest names a path on the link"
    assert (toy.live, toy.defined) == ({"a": f"{S1}/a"}, {"a": f"{S1}/a"})


def test_what_came_above_the_link_goes_with_a_later_attachment_for_the_link_alone(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    (row,) = rig.records.all()
    rig.records.put(replace(row, want=Level.ABSENT))  # and killed before the disk went
    toy = rig.world.guests[GuestId("g1")]
    toy.running = False
    toy.live.clear()
    rig.owner().attachments.attach("g1", connection("a"), level=Level.CONNECTED)
    assert not toy.defined


def test_a_disk_that_was_released_can_still_be_detached(rig: Rig) -> None:
    toy = rig.world.guests[GuestId("g1")]
    rig.owner().attachments.attach("g1", connection("a"))
    (row,) = rig.records.all()
    rig.records.release(row, f"{S1}/a")
    toy.defined[VolumeId("a")] = toy.live[VolumeId("a")] = f"{S1}/other"
    with pytest.raises(NotOurs):
        rig.owner().attachments.detach("g1", "a")
    toy.defined[VolumeId("a")] = toy.live[VolumeId("a")] = f"{S1}/a"
    _detach(rig, "g1", "a")
    assert not toy.live
    toy.defined[VolumeId("a")] = f"{S1}/a"
    with pytest.raises(NotOurs):
        rig.owner().attachments.detach("g1", "a")  # it was seen gone: this is another


def test_what_was_released_is_ours_again_when_it_is_wanted_again(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    (row,) = rig.records.all()
    rig.records.release(row, f"{S1}/a")
    assert rig.owner().attachments.attach("g1", connection("a")).steps == []
    assert rig.records.released() == {}


def test_forget_refuses_while_anything_is_left(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    with pytest.raises(Refused, match="still a disk"):
        rig.owner().attachments.forget("a")
    del rig.world.guests[GuestId("g1")]
    with pytest.raises(Refused, match=r"link .* is still there"):
        rig.owner().attachments.forget("a")
    rig.world.mounts.clear()
    assert rig.owner().attachments.forget("a", dry_run=True)
    assert rig.records.all()
    assert rig.owner().attachments.forget("a", "g1")
    assert rig.records.all() == []
    with pytest.raises(NotFound):
        rig.owner().attachments.forget("a")


def test_a_vanished_guest_needs_no_detach(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    del rig.world.guests[GuestId("g1")]
    assert _detach(rig, "g1", "a") == ["disconnect", "forget"]


def test_list_tells_what_is_wanted_and_what_is_seen(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    rig.world.guests[GuestId("g1")].live.clear()
    (view,) = rig.owner().attachments.list()
    assert (view.wanted, view.seen, view.next) == ("attached", "partial", "attach")
    rig.world.blind = True
    (view,) = rig.owner().attachments.list()
    assert view.seen == "unknown"


def test_a_share_that_hangs_is_seen_whatever_the_guest_has(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    rig.owner().attachments.attach("g1", connection("b"), level=Level.CONNECTED)
    rig.world.hung.add("s1")
    views = rig.owner().attachments.list()
    assert [view.seen for view in views] == ["hung", "hung"]
    assert all(view.next.startswith("wait: ") for view in views)
    rig.world.hung.clear()
    assert [view.seen for view in rig.owner().attachments.list()] == ["attached", "connected"]


def test_what_cannot_be_opened_is_not_seen_attached(rig: Rig) -> None:
    """A stopped guest's definition has the disk, wherever its share is: after a reboot, say."""
    rig.owner().attachments.attach("g1", connection("a"))
    rig.world.guests[GuestId("g1")].running = False
    for there, seen in (("s1", "attached"), ("theirs", "foreign"), ("", "broken")):
        rig.world.mounts = {S1: there} if there else {}
        (view,) = rig.owner().attachments.list()
        assert (view.wanted, view.seen) == ("attached", seen)
    assert view.next == "connect"
    assert rig.owner().attachments.sweep() == []
    assert rig.owner().attachments.list()[0].seen == "attached"


def test_show_names_the_others_on_the_link(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    rig.owner().attachments.attach("g2", connection("b"))
    (view,) = rig.owner().attachments.show("a")
    assert view.also_wanted_by == ["b on g2"]
    assert view.used_by == ["g1", "g2"]


def test_a_dead_share_is_mounted_anew_and_the_disk_that_was_on_it_is_lost(rig: Rig) -> None:
    rig.owner().attachments.attach("g1", connection("a"))
    rig.world.dead.add("s1")
    (view,) = rig.owner().attachments.sweep()
    assert view.next == "park: /toy/s1/a is lost"
    assert not rig.world.dead


def test_many_threads_attach_and_detach_on_one_share(rig: Rig) -> None:
    moorline = rig.owner()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                moorline.attachments.attach(f"g{number % 2 + 1}", connection(f"v{number}"))
                _detach(rig, f"g{number % 2 + 1}", f"v{number}")
        except BaseException as e:  # noqa: BLE001 - reported below
            errors.append(e)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (rig.world.violations, rig.world.mounts, rig.records.all()) == ([], {}, [])


def test_a_lane_that_is_stuck_turns_others_away(rig: Rig) -> None:
    locks = Locks(patience=0.05)
    with locks.hold("x"), locks.hold("y"), pytest.raises(Busy), locks.hold("x"):
        pass
    with locks.hold("x"):
        pass


def _detach(rig: Rig, guest: str, volume: str) -> list[str]:
    """Detach while time passes for the toy guests."""
    stop = threading.Event()

    def clock() -> None:
        while not stop.wait(0.02):
            rig.world.tick()

    thread = threading.Thread(target=clock)
    thread.start()
    try:
        outcome = rig.owner().attachments.detach(guest, volume, timeout=10)
    finally:
        stop.set()
        thread.join()
    return outcome.steps if outcome else []
