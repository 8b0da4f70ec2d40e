"""A share that hangs is aborted, its client killed, and guests go on with their disks."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from click.testing import CliRunner

from moorline.api import Moorline
from moorline.cli.doctor import abort
from moorline.errors import Refused, Uncertain
from moorline.model import GuestId, Level, VolumeId
from moorline.ports import Mount
from moorline.testing.faults import Fault, Killed
from moorline.testing.toys import BASE, ToyGuest, ToyHypervisor
from tests.support.environment import bare
from tests.support.rig import Rig

G1, A = GuestId("g1"), VolumeId("a")
AT = str(BASE / "s1")
SURE = "its registry says that the client is fenced"


class ToyFuse:
    """The kernel's control of the share's connection."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.ends = True
        self.others = ""
        self.did: list[str] = []

    def abort(self, mount: Mount) -> None:
        def effect() -> None:
            self.did.append("abort")
            self.rig.world.hung.discard("s1")
            self.rig.world.cut_off.add("s1")
            for guest in self.rig.world.guests.values():
                guest.waits = guest.running

        self.rig.world.faults.effect(effect)

    def killable(self, mount: Mount, mounts: Sequence[Mount]) -> Sequence[str]:
        if self.others:
            raise Refused(f"it serves {self.others}, too")
        return [] if "s1" in self.rig.world.dead else ["client (7)"]

    def kill(self, mount: Mount, mounts: Sequence[Mount]) -> None:
        if not self.ends:
            raise Uncertain("it has not ended")

        def effect() -> None:
            self.did.append("kill")
            self.rig.world.cut_off.discard("s1")
            self.rig.world.dead.add("s1")

        self.rig.world.faults.effect(effect)


class Scene:
    def __init__(self) -> None:
        self.rig = Rig("g1")
        self.world = self.rig.world
        self.world.write_through = {"s1"}
        for volume in ("a", "b"):
            self.rig.attachment(volume, "g1", Level.ATTACHED)
        self.rig.settle()
        self.world.hung.add("s1")
        self.fuse = ToyFuse(self.rig)

    def owner(self) -> Moorline:
        mount = Mount(1, "toy", AT, "fuse.toy", "0:41", True)
        environment = replace(bare(), fuse=self.fuse, mounts=lambda: [mount])
        rig = self.rig
        return Moorline(
            rig.records, rig.reconciler(), ToyHypervisor(rig.world), environment=environment
        )

    def abort(self, **how):
        return self.owner().maintenance.abort(AT, renew=True, **how)

    def untouched(self) -> bool:
        return self.fuse.did == [] and not self.world.guests[G1].waits


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_guests_go_on_with_all_their_disks(scene: Scene) -> None:
    made = scene.abort(vouch=SURE)
    assert scene.fuse.did == ["abort", "kill"]
    assert (made.done, made.problem, made.killed) == (True, "", ["client (7)"])
    assert made.renewed == ["g1/a", "g1/b"]
    guest = scene.world.guests[G1]
    assert (guest.waits, guest.lost, guest.held) == (False, set(), set())
    assert scene.rig.records.renewals() == {}


def test_a_dry_run_tells_all_of_it_and_does_nothing(scene: Scene) -> None:
    due = scene.abort(dry_run=True)
    assert (due.done, due.killed, due.renewed) == (False, ["client (7)"], ["g1/a", "g1/b"])
    assert scene.untouched()


def test_nothing_is_done_without_a_person_s_word_for_the_storage(scene: Scene) -> None:
    """What the client had sent may be written later, over what the guest wrote since."""
    with pytest.raises(Refused, match="may still write") as refused:
        scene.abort()
    assert "--i-know-that-the-storage-writes-nothing-more" in refused.value.hint
    with pytest.raises(Refused, match="may still write"):
        scene.abort(force=True)
    assert scene.untouched()


@pytest.mark.parametrize("word", [" ", "\t", "sure\x1b[2J"], ids=repr)
def test_blanks_are_no_person_s_word(scene: Scene, word: str) -> None:
    with pytest.raises(Refused, match="reason"):
        scene.abort(vouch=word)
    assert scene.untouched()


def test_a_share_that_was_not_said_to_write_through_is_refused(scene: Scene) -> None:
    scene.world.write_through = set()
    with pytest.raises(Refused, match="not said to write through"):
        scene.abort(vouch=SURE)
    assert scene.untouched()


def test_a_disk_that_tells_its_guest_of_errors_is_refused_by_name(scene: Scene) -> None:
    scene.world.guests[G1].told_of_errors = {A}
    with pytest.raises(Refused, match=r"g1 has disks on .* a tells its guest"):
        scene.abort(vouch=SURE)
    assert scene.untouched()


def test_a_disk_that_is_no_attachment_s_is_refused_by_name(scene: Scene) -> None:
    scene.world.guests[G1].foreign.add(f"{AT}/theirs")
    with pytest.raises(Refused, match="theirs is no attachment's"):
        scene.abort(vouch=SURE)
    assert scene.untouched()


@pytest.mark.parametrize("want", [Level.ABSENT, Level.CONNECTED])
def test_a_disk_that_is_to_be_detached_is_said_to_be_on_its_way_out(
    scene: Scene, want: Level
) -> None:
    records = scene.rig.records
    records.put(replace(next(row for row in records.all() if row.key.volume == A), want=want))
    with pytest.raises(Refused, match=r"g1 has disks on .* a is on its way out"):
        scene.abort(vouch=SURE)
    assert scene.untouched()


def test_a_guest_of_which_nothing_is_known_is_refused(scene: Scene) -> None:
    scene.world.guests[GuestId("g2")] = ToyGuest("g2", unreadable="damaged")
    with pytest.raises(Refused, match="cannot be told which guests run"):
        scene.abort(vouch=SURE)
    scene.world.blind = True
    with pytest.raises(Refused, match="cannot be told which guests run"):
        scene.abort(vouch=SURE, force=True)
    assert scene.untouched()


def test_a_client_that_serves_others_too_is_refused_before_anything(scene: Scene) -> None:
    scene.fuse.others = "/mnt/two"
    with pytest.raises(Refused, match="/mnt/two"):
        scene.abort(vouch=SURE)
    assert scene.untouched()


def test_a_share_that_answers_is_left_alone(scene: Scene) -> None:
    scene.world.hung.clear()
    with pytest.raises(Refused, match="does not hang"):
        scene.abort(vouch=SURE)
    assert scene.untouched()


@pytest.mark.parametrize("renew", [True, False])
@pytest.mark.parametrize("so", ["dead", "failing"])
def test_a_share_that_is_broken_otherwise_is_left_alone(
    scene: Scene, so: str, *, renew: bool
) -> None:
    """Its client is gone, for which nobody need vouch; or lives, and may answer again."""
    scene.world.hung.clear()
    getattr(scene.world, so).add("s1")
    with pytest.raises(Refused, match="does not hang"):
        scene.owner().maintenance.abort(AT, renew=renew, force=True, vouch=SURE if renew else "")
    assert scene.untouched()


def test_what_was_cut_off_is_not_aborted_again_without_a_renewal(scene: Scene) -> None:
    scene.world.hung.clear()
    scene.world.cut_off.add("s1")
    with pytest.raises(Refused, match="does not hang"):
        scene.owner().maintenance.abort(AT, force=True)
    assert scene.untouched()


def test_by_force_the_others_are_renewed(scene: Scene) -> None:
    """Each of a guest's disks, or none: it does not go on before it has all of them."""
    scene.world.guests[GuestId("g2")] = ToyGuest("g2")
    scene.world.hung.clear()
    scene.rig.attachment("c", "g2", Level.ATTACHED)
    scene.rig.settle()
    scene.world.hung.add("s1")
    scene.world.guests[G1].told_of_errors = {VolumeId("b")}
    due = scene.abort(force=True, dry_run=True)
    assert due.renewed == ["g2/c"]
    made = scene.abort(force=True, vouch=SURE)
    assert (made.renewed, made.problem) == (["g2/c"], "")
    assert not scene.world.guests[GuestId("g2")].waits


def test_a_volume_that_is_not_plugged_yet_is_not_renewed(scene: Scene) -> None:
    scene.rig.attachment("c", "g1", Level.ATTACHED)
    scene.world.missing.add(f"{AT}/c")
    made = scene.abort(vouch=SURE)
    assert (made.renewed, made.problem) == (["g1/a", "g1/b"], "")
    assert not scene.world.guests[G1].waits


def test_the_share_is_mounted_anew_though_no_guest_runs(scene: Scene) -> None:
    scene.world.guests[G1].running = False
    made = scene.abort(vouch=SURE)
    assert (made.renewed, made.problem, scene.fuse.did) == ([], "", ["abort", "kill"])
    assert scene.world.mounts[AT] == "s1"
    assert "s1" not in scene.world.dead


def test_a_client_that_does_not_end_keeps_the_guest_paused(scene: Scene) -> None:
    """It may be writing still. When it has ended, all goes on, whoever asks."""
    scene.fuse.ends = False
    with pytest.raises(Uncertain):
        scene.abort(vouch=SURE)
    scene.owner().attachments.sweep()
    assert scene.world.guests[G1].waits
    assert scene.rig.records.renewals() == {}
    scene.fuse.ends = True
    assert scene.abort(vouch=SURE).renewed == ["g1/a", "g1/b"]  # it is cut off, and hangs no more
    assert not scene.world.guests[G1].waits


def test_what_is_not_renewed_is_told(scene: Scene) -> None:
    scene.world.changed[f"{AT}/a"] = time.time() + 60
    made = scene.abort(vouch=SURE)
    assert made.renewed == []
    assert "g1/a: " in made.problem
    assert "was changed" in made.problem
    assert scene.world.guests[G1].waits


def test_a_share_that_is_not_asked_for_a_while_is_waited_for(scene: Scene) -> None:
    """It was just seen to hang: what is known of it is not what is so."""
    kill = scene.fuse.kill

    def later(mount: Mount, mounts: Sequence[Mount]) -> None:
        kill(mount, mounts)
        scene.world.hung.add("s1")
        threading.Timer(0.3, lambda: scene.world.hung.discard("s1")).start()

    scene.fuse.kill = later
    assert scene.abort(vouch=SURE).renewed == ["g1/a", "g1/b"]
    assert not scene.world.guests[G1].waits


@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
@pytest.mark.parametrize("at", range(2))
def test_killed_between_abort_and_kill_it_can_be_repeated(at: int, fault: Fault) -> None:
    scene = Scene()
    scene.world.faults.plan((at, fault))
    with pytest.raises(Killed):
        scene.abort(vouch=SURE)
    if "kill" not in scene.fuse.did:
        scene.abort(vouch=SURE)
    scene.rig.settle()
    assert not scene.world.guests[G1].waits
    assert scene.fuse.did.count("kill") == 1


def test_the_command_has_all_of_it() -> None:
    told = CliRunner().invoke(abort, ["--help"]).output
    for option in ("--renew", "--i-know-that-the-storage-writes-nothing-more", "--dry-run"):
        assert option in told
