"""A share that is dead or hangs, and what is told of a volume that waits, on a toy host."""

from __future__ import annotations

import errno
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorline.core.backoff import Pending
from moorline.errors import Failed, NotFound, NotOurs, Refused
from moorline.model import GuestId, Level
from moorline.ports.inspection import Finding
from moorline.ports.results import Trouble
from moorline.testing.toy_host import ToyShare
from tests.support.care_rig import Scene, prepared


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return prepared(tmp_path, monkeypatch)


# --- shares that are dead or hang


def test_a_dead_share_is_told_apart_from_one_whose_client_lives(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    share = scene.host.share(link)
    share.error = errno.ENOTCONN
    (finding,) = scene.moorline.maintenance.doctor().findings
    assert (finding.check, finding.next) == ("dead-share", "moorline sweep")
    share.clients = ["glusterfs (12)"]
    (finding,) = scene.moorline.maintenance.doctor().findings
    assert finding.check == "failing-share"
    assert "glusterfs (12), still runs; it may answer again by itself" in finding.what


def test_a_client_whose_connection_was_ended_is_waited_for_and_not_hoped_for(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    share = scene.host.share(link)
    share.error, share.clients, share.ended = errno.ENOTCONN, ["quobyte (12)"], True
    (finding,) = scene.moorline.maintenance.doctor().findings
    assert finding.check == "cut-off-share"
    assert "quobyte (12), still runs; the share is mounted anew when that has ended" in finding.what
    assert "answer again by itself" not in finding.what
    share.clients = []
    (finding,) = scene.moorline.maintenance.doctor().findings
    assert finding.check == "dead-share"


def test_a_connection_that_has_ended_is_mounted_anew_though_its_client_is_not_seen_gone(
    scene: Scene,
) -> None:
    link = scene.attach(level=Level.ATTACHED)
    share = scene.host.share(link)
    share.error, share.clients, share.ended = errno.ENOTCONN, None, True
    (finding,) = scene.moorline.maintenance.doctor().findings
    assert (finding.check, finding.next) == ("dead-share", "moorline sweep")
    assert "whether its client has cannot be told" in finding.what
    assert scene.moorline.attachments.sweep() == []
    assert scene.host.share(link).error == 0


def test_a_broken_share_of_which_it_cannot_be_told_names_who_must_stop(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    share = scene.host.share(link)
    share.error, share.clients = errno.ENOTCONN, None
    (finding,) = scene.moorline.maintenance.doctor().findings
    assert finding.check == "broken-link"
    assert "who has it open: g1" in finding.what
    assert finding.next == "moorline detach g1 vol-a", "the guest need not stop for that"
    scene.world.guests[GuestId("g1")].running = False
    assert scene.found() == ["not-as-wanted"]


PAUSED = Finding("paused-guest", "g1", "g1 is paused", "see to it", "virsh resume g1")


def test_a_paused_guest_on_a_share_that_is_gone_is_not_to_be_asked_for_its_disk(
    scene: Scene,
) -> None:
    link = scene.attach(level=Level.ATTACHED)
    share = scene.host.share(link)
    share.error, share.clients = errno.ENOTCONN, None
    scene.inventory.findings = [PAUSED]
    found = {each.check: each.next for each in scene.moorline.maintenance.doctor().findings}
    assert found == {"broken-link": "virsh destroy g1", "paused-guest": "virsh destroy g1"}
    (told,) = scene.moorline.maintenance.explain("vol-a")
    assert told.next == "virsh destroy g1"


def test_a_paused_guest_goes_on_before_what_was_refused_of_it_is_cured(scene: Scene) -> None:
    scene.attach(level=Level.ATTACHED)
    scene.world.guests[GuestId("g1")].live.clear()
    scene.records.note(scene.rows("vol-a")[0], Trouble("attach", "refused", "as it is", 1.0))
    assert scene.moorline.maintenance.explain("vol-a")[0].next == "moorline detach g1 vol-a"
    scene.inventory.findings = [PAUSED]
    assert scene.moorline.maintenance.explain("vol-a")[0].next == "virsh resume g1"


@pytest.mark.parametrize("wanted", [True, False])
def test_a_share_that_hangs_can_be_aborted(scene: Scene, wanted: bool) -> None:
    link = scene.attach()
    if not wanted:
        scene.moorline.maintenance.release("g1", "vol-a")
    control = scene.connection_of(scene.host.table[-1])
    with pytest.raises(Refused, match="does not hang"):
        scene.moorline.maintenance.abort(link)
    scene.host.share(link).hangs = True
    assert scene.found() == ["hung-share"]
    assert scene.moorline.maintenance.repair() == []
    assert not scene.moorline.maintenance.abort(link, dry_run=True).done
    assert control.read_text() == ""
    assert scene.moorline.maintenance.abort(link).done
    assert control.read_text() == "1"


def test_a_share_is_not_aborted_under_a_running_guest(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    control = scene.connection_of(scene.host.table[-1])
    scene.host.share(link).hangs = True
    with pytest.raises(Refused, match="g1 runs on"):
        scene.moorline.maintenance.abort(link)
    scene.world.blind = True
    with pytest.raises(Refused, match="cannot be told which guests run"):
        scene.moorline.maintenance.abort(link)
    assert control.read_text() == ""
    assert scene.moorline.maintenance.abort(link, force=True).done


def test_only_links_of_ours_that_are_fuse_are_aborted(scene: Scene) -> None:
    with pytest.raises(NotFound):
        scene.moorline.maintenance.abort("/nothing/here")
    scene.host.mount("server:/x", "/nfs", "nfs4", ToyShare(hangs=True))
    with pytest.raises(Refused, match="only FUSE"):
        scene.moorline.maintenance.abort("/nfs")
    scene.host.mount("sshfs", "/home/me/there", "fuse.sshfs", ToyShare(hangs=True))
    with pytest.raises(NotOurs):
        scene.moorline.maintenance.abort("/home/me/there", force=True)
    link = scene.attach()
    scene.host.share(link).hangs = True
    with pytest.raises(Refused, match="mount -t fusectl"):
        scene.moorline.maintenance.abort(link)


# --- explain


def test_what_is_as_wanted_needs_no_explanation(scene: Scene) -> None:
    scene.attach()
    (told,) = scene.moorline.maintenance.explain("vol-a")
    assert (told.step, told.next, told.since, told.due) == ("nothing", "", 0.0, None)
    assert [(e.step, e.outcome) for e in told.tried] == [("connect", "done")]


def test_explain_tells_what_waits_since_when_and_what_the_agent_does(scene: Scene) -> None:
    link = scene.attach(level=Level.ATTACHED)
    scene.attach("b", "g2")
    scene.host.share(link).hangs = True
    (row,) = scene.rows("vol-a")
    scene.pending = [Pending(row.key, row.want, 8.0, 3, "it hangs", 60.0, False)]
    (told,) = scene.moorline.maintenance.explain("vol-a")
    assert (told.step, told.tries, told.due) == ("wait", 3, 8.0)
    assert "does not answer" in told.waits_for
    assert told.held_by == ["g1", "vol-b on g2"]
    assert told.next == f"moorline abort {link} --dry-run"
    assert 59 < time.time() - told.since < 70


def test_without_an_agent_the_journal_tells_since_when(scene: Scene) -> None:
    link = scene.attach()
    scene.moorline.maintenance.release("g1", "vol-a")
    scene.moorline.maintenance.repair()
    scene.host.programs["mount.quobyte"] = lambda host, command: None
    for _ in range(2):
        with pytest.raises(Failed):
            scene.moorline.attachments.attach(
                "g1", scene.connection(), level=Level.CONNECTED, timeout=0
            )
    (told,) = scene.moorline.maintenance.explain("vol-a")
    first, _ = scene.moorline.maintenance.events(volume="vol-a")[-2:]
    assert (told.step, told.tries, told.since) == ("connect", 2, first.at)
    assert f"nothing is mounted at {link}" in told.waits_for


def test_events_of_one_guest_by_whatever_it_is_called(scene: Scene) -> None:
    events = scene.moorline.maintenance.events
    scene.attach()
    scene.attach("b", "g2")
    assert {entry.volume for entry in events(guest="g1")} == {"vol-a"}
    scene.moorline.attachments.detach("g1", "vol-a")  # nothing is recorded of it any more
    assert {entry.volume for entry in events(guest="g1")} == {"vol-a"}
    assert events(guest="g2", volume="vol-a") == []
    assert events(guest="g2", most=1) == events(guest="g2")[-1:]
    with pytest.raises(NotFound, match="no guest nobody"):
        events(guest="nobody")


def test_explain_of_what_is_not_known(scene: Scene) -> None:
    with pytest.raises(NotFound):
        scene.moorline.maintenance.explain("nope")


def test_a_share_is_not_aborted_under_a_guest_that_cannot_be_read(scene: Scene) -> None:
    link = scene.attach()
    scene.host.share(link).hangs = True
    connection = scene.connection_of(scene.host.table[-1])
    scene.world.guests[GuestId("g2")].unreadable = "its definition is damaged"
    with pytest.raises(Refused, match="cannot be told which guests run"):
        scene.moorline.maintenance.abort(link)
    assert connection.read_text() == ""


def test_another_mount_that_came_meanwhile_is_not_aborted(scene: Scene) -> None:
    link = scene.attach()
    old = scene.host.table[-1]
    new = replace(old, id=99, device="0:99")
    connections = [scene.connection_of(mount) for mount in (old, new)]

    class Remounted(ToyShare):
        def __getattribute__(self, name: str) -> Any:
            if name == "hangs":
                # While it is found to hang, somebody mounts it anew.
                scene.host.table[-1] = new
                return True
            return super().__getattribute__(name)

    scene.host.shares = {old.id: Remounted(), new.id: ToyShare(hangs=True)}
    with pytest.raises(Refused, match="changed while it was looked at"):
        scene.moorline.maintenance.abort(link)
    assert [connection.read_text() for connection in connections] == ["", ""]


def test_a_guest_that_is_to_be_destroyed_is_not_to_be_resumed(scene: Scene) -> None:
    """Its share is dead, and its volume is to go, so that it is given no disk anew."""
    link = scene.attach(level=Level.ATTACHED)
    (row,) = scene.rows("vol-a")
    scene.records.put(replace(row, want=Level.ABSENT))
    scene.host.share(link).error = errno.ENOTCONN
    paused = Finding("paused-guest", "g1", "g1 is paused", "nothing is lost", "virsh resume g1")
    scene.inventory.findings = [paused]
    found = {each.check: each for each in scene.moorline.maintenance.doctor().findings}
    assert found.keys() >= {"dead-share", "paused-guest"}
    assert found["dead-share"].next == found["paused-guest"].next == "virsh destroy g1"
    assert "nothing is lost" not in found["paused-guest"].why
    assert not any("resume" in each.next for each in found.values())
    explained = scene.moorline.maintenance.explain("vol-a")
    assert "virsh resume" not in str(explained)
