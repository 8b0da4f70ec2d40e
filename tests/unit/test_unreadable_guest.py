"""A guest that cannot be read is one unknown: others go on, and what it may use stays."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.errors import Failed, MoorlineError
from moorline.loop.drift import DriftDetector
from moorline.model import GuestId, Level
from moorline.testing.toys import ToyHypervisor
from tests.support.care_rig import Scene, prepared

WHY = "its saved state is broken"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """g1 has a volume attached; g2 cannot be read. Both are stopped: they let go at once."""
    found = prepared(tmp_path, monkeypatch)
    found.world.guests[GuestId("g1")].running = False
    found.attach("a", "g1", Level.ATTACHED)
    g2 = found.world.guests[GuestId("g2")]
    g2.running, g2.unreadable = False, WHY
    return found


def test_the_others_are_seen_attached_and_detached(scene: Scene) -> None:
    scene.attach("b", "g1", Level.ATTACHED)
    assert [(v.volume, v.seen) for v in scene.moorline.attachments.list()] == [
        ("vol-a", "attached"),
        ("vol-b", "attached"),
    ]
    scene.moorline.attachments.detach("g1", "vol-b")
    assert [v.volume for v in scene.moorline.attachments.list()] == ["vol-a"]
    (shown,) = scene.moorline.attachments.show("vol-a")
    assert shown.seen == "attached"
    assert shown.used_by == ["g1", f"unknown: guest g2 cannot be read: {WHY} (cure it)"]


def test_a_link_that_it_may_use_stays_and_its_name_is_told(scene: Scene) -> None:
    with pytest.raises(Failed, match=f"guest g2 cannot be read: {WHY}"):
        scene.moorline.attachments.detach("g1", "vol-a", timeout=0.1)
    assert scene.host.table, "the link is there"
    assert scene.world.guests[GuestId("g1")].defined == {}, "the disk is gone all the same"
    (row,) = scene.rows("vol-a")
    (told, *_) = scene.moorline.maintenance.explain("vol-a")
    assert (told.next, "g2" in told.waits_for) == ("cure it", True)
    scene.world.guests[GuestId("g2")].unreadable = ""
    assert scene.moorline.attachments.sweep() == []
    assert (scene.host.table, scene.records.get(row.key)) == ([], None)


def test_doctor_names_it_and_still_tells_the_rest(scene: Scene) -> None:
    (finding,) = scene.moorline.maintenance.doctor().findings
    assert (finding.check, finding.subject, finding.next) == ("unreadable-guest", "g2", "cure it")
    scene.host.share(scene.link()).hangs = True
    assert sorted(scene.found()) == ["hung-share", "unreadable-guest"]


def test_its_own_volumes_are_unknown_and_no_other_disk_is_plugged(scene: Scene) -> None:
    scene.world.guests[GuestId("g2")].unreadable = ""
    scene.attach("b", "g2", Level.ATTACHED)
    g2 = scene.world.guests[GuestId("g2")]
    g2.unreadable = WHY
    assert [(v.volume, v.seen) for v in scene.moorline.attachments.list()] == [
        ("vol-a", "attached"),
        ("vol-b", "unknown"),
    ]
    assert scene.found() == ["unreadable-guest"]
    with pytest.raises(MoorlineError, match="g2 cannot be read"):
        scene.moorline.attachments.detach("g2", "vol-b", timeout=0.1)
    assert g2.defined


def test_repair_takes_no_link_that_it_may_use(scene: Scene) -> None:
    scene.moorline.maintenance.release("g1", "vol-a")
    scene.world.guests[GuestId("g1")].defined.clear()
    (made,) = scene.moorline.maintenance.repair()
    assert (made.done, "guest g2 cannot be read" in made.problem) == (False, True)
    assert scene.host.table
    assert scene.found() == ["unreadable-guest"], "no link is said to be needed by nobody"


def test_a_dead_share_is_renewed_whoever_may_have_it(scene: Scene) -> None:
    scene.host.share(scene.link()).error = errno.ENOTCONN
    scene.world.guests[GuestId("g2")].running = True
    assert (
        scene.moorline.attachments.sweep() == []
    )  # its client is gone: nothing is lost to anybody
    assert not scene.host.share(scene.link()).error


def test_a_link_that_hangs_is_not_aborted_while_it_may_run(scene: Scene) -> None:
    link = scene.link()
    scene.host.share(link).hangs = True
    scene.moorline.maintenance.abort(link, dry_run=True)
    scene.world.guests[GuestId("g2")].running = True
    with pytest.raises(MoorlineError, match="guest g2 cannot be read"):
        scene.moorline.maintenance.abort(link, dry_run=True)


def test_only_what_can_be_done_is_due(scene: Scene) -> None:
    scene.world.guests[GuestId("g2")].unreadable = ""
    scene.attach("b", "g2", Level.ATTACHED)
    g2 = scene.world.guests[GuestId("g2")]
    g2.unreadable = WHY
    hypervisor = ToyHypervisor(scene.world)
    backends = scene.backends
    drift = DriftDetector(
        scene.records, Reconciler(scene.records, backends, hypervisor, Locks()), hypervisor
    )
    found = drift.everywhere()
    assert (found.due, found.error) == ([], "")
    scene.world.guests[GuestId("g1")].defined.clear()
    assert [row.key.volume for row in drift.everywhere().due] == ["vol-a"]
