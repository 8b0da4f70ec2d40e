"""The loop on a toy host: it heals what nobody asks it to heal, and hangs with nobody."""

from __future__ import annotations

import threading
import time

import pytest

from moorline.errors import Failed
from moorline.model import GuestId, Level, VolumeId
from moorline.ports.results import Trouble
from moorline.testing.toys import BASE, ToyGuest
from tests.support.rig import Rig
from tests.support.toy_loop import G1, G2, Loop, until

# --- what it heals -------------------------------------------------------------


def test_an_attachment_that_is_there_at_the_start_comes_true(rig: Rig, loop: Loop) -> None:
    rig.attachment("v1", "g1", Level.ATTACHED)
    loop.start()
    until(lambda: loop.has(G1, "v1"))
    loop.settles()


def test_an_attachment_that_is_made_later_is_noticed(rig: Rig, loop: Loop) -> None:
    loop.start()
    rig.attachment("v1", "g1", Level.ATTACHED)
    until(lambda: loop.has(G1, "v1"))
    rig.attachment("v1", "g1", Level.ABSENT)
    until(lambda: rig.world.guests[G1].leaving)
    rig.world.tick()
    rig.world.tick()
    until(lambda: not rig.records.all() and not rig.world.mounts)


def test_what_no_event_told_is_found_by_the_sweep(rig: Rig) -> None:
    loop = Loop(rig, every=0.1)
    rig.attachment("v1", "g1", Level.ATTACHED)
    loop.start()
    until(lambda: loop.has(G1, "v1"))
    loop.settles()
    del rig.world.guests[G1].live[VolumeId("v1")]
    until(lambda: loop.has(G1, "v1"))
    assert loop.controller.stop(5)


def test_a_link_that_died_is_found_between_the_sweeps(rig: Rig) -> None:
    loop = Loop(rig, every=6.0)
    rig.attachment("v1", "g1", Level.CONNECTED)
    loop.start()
    until(lambda: rig.world.mounts)
    loop.settles()
    time.sleep(0.5)  # the sweeps of the start are over
    swept = loop.controller.swept
    rig.world.dead.add("s1")
    until(lambda: not rig.world.dead, 3.0)
    assert loop.controller.swept is swept
    assert loop.controller.stop(5)


def test_news_of_a_guest_is_heeded_at_once(rig: Rig, loop: Loop) -> None:
    rig.attachment("v1", "g1", Level.ATTACHED)
    loop.start()
    until(lambda: loop.has(G1, "v1"))
    loop.settles()
    del rig.world.guests[G1].defined[VolumeId("v1")]
    loop.hand.wake(G1)
    until(lambda: loop.has(G1, "v1"))


def test_a_call_that_gave_up_is_gone_on_with(rig: Rig, loop: Loop) -> None:
    loop.start()
    rig.world.hung.add("s1")
    with pytest.raises(Failed):
        loop.facade.attachments.attach("g1", "toy://s1/f", volume="v1", timeout=0)
    assert loop.trouble("v1")
    rig.world.hung.clear()
    loop.controller.wake()
    until(lambda: loop.has(G1, "v1"))
    loop.settles()
    assert loop.trouble("v1") is None


def test_a_trouble_that_passed_by_itself_is_forgotten(rig: Rig, loop: Loop) -> None:
    rig.attachment("v1", "g1", Level.CONNECTED)
    (row,) = rig.records.all()
    rig.records.note(row, Trouble("", "failed", "no route", 0.0))
    rig.world.mounts[row.link] = "s1"
    loop.start()
    until(lambda: loop.trouble("v1") is None)


def test_links_do_not_wait_for_a_blind_hypervisor(rig: Rig, loop: Loop) -> None:
    rig.attachment("v1", "g1", Level.ATTACHED)
    rig.world.blind = True
    loop.start()
    until(lambda: rig.world.mounts)
    assert loop.controller.swept
    assert loop.controller.swept.error == "the hypervisor does not answer"
    assert not loop.has(G1, "v1")
    rig.world.blind = False
    until(lambda: loop.has(G1, "v1"))


def test_a_mount_that_is_late_is_not_tried_again_in_the_same_turn(rig: Rig, loop: Loop) -> None:
    loop.share.late = True
    rig.attachment("v1", "g1", Level.ATTACHED)
    loop.start()
    until(lambda: loop.controller.pending()[0].tries == 3)
    assert loop.share.connecting == 3
    loop.share.late = False
    until(lambda: loop.has(G1, "v1"))


# --- what it leaves alone, and says --------------------------------------------


def test_a_refused_attachment_is_kept_and_tried_slowly(rig: Rig, loop: Loop) -> None:
    rig.attachment("v1", "gone", Level.ATTACHED)
    loop.start()
    until(lambda: loop.trouble("v1", "gone"))
    until(loop.whys)
    (pending,) = loop.controller.pending()
    assert pending.why == "there is no guest gone"
    assert pending.due > 5
    rig.world.guests[GuestId("gone")] = ToyGuest("gone")
    loop.hand.wake(GuestId("gone"))
    until(lambda: loop.has(GuestId("gone"), "v1"))
    loop.settles()
    assert loop.trouble("v1", "gone") is None


def test_what_is_parked_names_who_must_stop(rig: Rig, loop: Loop) -> None:
    rig.attachment("v1", "g1", Level.ATTACHED)
    loop.start()
    until(lambda: loop.has(G1, "v1"))
    loop.settles()
    rig.world.failing.add("s1")
    loop.controller.wake()
    why = "/toy/s1 fails; detach its disks from, or stop, who has it open: g1"
    until(lambda: loop.whys() == [why])
    trouble = loop.trouble("v1")
    assert trouble
    assert trouble.error == "notours"
    rig.world.guests[G1].running = False
    rig.world.guests[G1].live.clear()
    loop.hand.wake(G1)
    until(lambda: not rig.world.failing)
    loop.settles()


def test_the_same_trouble_is_written_once(rig: Rig, loop: Loop) -> None:
    rig.attachment("v1", "g1", Level.ATTACHED)
    rig.world.missing.add(str(BASE / "s1" / "v1"))
    loop.start()
    until(lambda: loop.trouble("v1"))
    first = loop.trouble("v1")
    for _ in range(3):
        tries = loop.controller.pending()[0].tries
        until(
            lambda tries=tries: (
                loop.controller.pending()[0].tries > tries or loop.controller.wake(G1)
            )
        )
    assert loop.trouble("v1") == first


def test_a_guest_that_does_not_let_go_is_asked_less_and_less(rig: Rig, loop: Loop) -> None:
    rig.attachment("v1", "g1", Level.ATTACHED)
    loop.start()
    until(lambda: loop.has(G1, "v1"))
    loop.settles()
    rig.world.guests[G1].deaf = True
    rig.attachment("v1", "g1", Level.ABSENT)
    until(lambda: [each for each in loop.controller.pending() if each.tries >= 4])
    assert loop.whys() == ["the guest has not let go of the disk yet"]
    rig.world.guests[G1].deaf = False
    loop.hand.wake(G1)
    until(lambda: rig.world.guests[G1].leaving)
    rig.world.tick()
    rig.world.tick()
    until(lambda: not rig.records.all())


# --- time, threads, defects ----------------------------------------------------


def test_a_clock_that_jumps_changes_nothing(rig: Rig) -> None:
    times = iter([4e9, 0.0, -1.0, 2e9])
    loop = Loop(rig, wall=lambda: next(times))
    rig.attachment("v1", "g1", Level.ATTACHED)
    rig.world.hung.add("s1")
    loop.start()
    until(lambda: loop.controller.pending()[0].tries >= 3)
    assert loop.controller.pending()[0].due < 2
    rig.world.hung.clear()
    until(lambda: loop.has(G1, "v1"))
    assert loop.controller.stop(5)


def test_a_mount_that_hangs_collects_no_workers(rig: Rig, loop: Loop) -> None:
    for n in range(20):
        rig.attachment(f"v{n}", "g1", Level.CONNECTED)
    rig.attachment("other", "g2", Level.ATTACHED, share="s2")
    loop.share.open.clear()
    before = threading.active_count()
    loop.start()
    until(lambda: loop.share.connecting == 2)  # one on each share
    time.sleep(0.3)
    workers = [thread for thread in threading.enumerate() if thread.name == "worker"]
    assert len(workers) <= 4
    assert threading.active_count() - before <= 8
    loop.share.open.set()
    until(lambda: loop.has(G2, "other"))
    loop.settles()
    assert loop.share.connecting == 2


def test_stopping_finishes_the_step_in_hand(rig: Rig, loop: Loop) -> None:
    rig.attachment("v1", "g1", Level.ATTACHED)
    loop.share.open.clear()
    loop.start()
    until(lambda: loop.share.connecting)
    assert not loop.controller.stop(0.1)
    loop.share.open.set()
    assert loop.controller.stop(5)
    assert rig.world.mounts  # the mount that was under way was finished
    assert not loop.has(G1, "v1")  # and nothing new was begun


def test_stopping_does_not_wait_for_a_watcher_that_hangs(rig: Rig) -> None:
    """As one does whose libvirtd does not answer: it has no step in hand."""
    loop = Loop(rig)
    loop.hand.watch = lambda wake, stop: threading.Event().wait()  # type: ignore[method-assign]
    loop.start()
    assert loop.controller.stop(60)  # False: something had not ended by then


def test_a_defect_met_by_one_attachment_stops_no_other(rig: Rig, loop: Loop) -> None:
    loop.share.defect = "v1"
    rig.attachment("v1", "g1", Level.ATTACHED)
    rig.attachment("v2", "g1", Level.ATTACHED)
    loop.start()
    until(lambda: loop.has(G1, "v2"))
    until(lambda: loop.whys() == ["a defect of Moorline's; the log tells more"])
    assert loop.controller.alive()


def test_it_is_not_alive_before_it_starts_and_after_it_stops(rig: Rig) -> None:
    loop = Loop(rig)
    assert not loop.controller.alive()
    loop.start()
    assert loop.controller.alive()
    assert loop.controller.stop(5)
    assert not loop.controller.alive()
