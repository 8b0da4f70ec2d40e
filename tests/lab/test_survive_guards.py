"""Clients that a guest does not outlive: each is refused, and what that prevents is shown."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import until
from scene import Scene, daemons
from survive_rig import (
    PAUSED_BY_ERROR,
    RUNS,
    attached,
    by_hand,
    demand_no_error,
    die,
    goes_on,
    is_lost,
    long,
    run,
    store,
    tried_here,
)

from lab.guest import Guest
from lab.writer import SLOTS
from moorline.host.mount.fuse_clients import CONNECTIONS

pytestmark = [tried_here, long]
CONTAINER = ("unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--mount-proc")
"""Where the processes of the host are not seen."""


@pytest.mark.parametrize("said", [False, True])
def test_what_a_client_had_not_written_back_would_be_lost(
    survivors: Scene, guest: Guest, pool: Any, *, said: bool
) -> None:
    """Only the operator knows that of a client: one who says so of such a one loses data."""
    scene = survivors
    if not said:
        scene.moorline = replace(scene.moorline, after=())
    scene.share.daemon(backs=True)
    volume = scene.volume()
    scene.attach(guest.name, volume, "--bus", "virtio", "--on-error", "stop")
    store(guest, volume)
    die(scene, guest)
    scene.moorline("sweep", code=None)
    if said:
        assert guest.domain.state()[0] == RUNS
        demand_no_error(guest)
        assert is_lost(volume.file), "else nothing would have to be said"
    else:
        assert guest.domain.state() == PAUSED_BY_ERROR
        assert scene.mounts(), "for guests that start now"
        pool.drop(guest.domain.connect())
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_another_file_in_its_place_would_be_written_to(
    survivors: Scene, guest: Guest, pool: Any
) -> None:
    """The refusal is followed by what it prevents: the same calls, without the guard."""
    scene = survivors
    (writer,) = attached(scene, guest, "virtio")
    goes_on([writer])
    die(scene, guest)
    scene.share.command(fail={"code": 1})
    scene.moorline("sweep", code=None)
    scene.share.command()
    file = writer.volume.file
    other = Path(shutil.copy(file, file.with_name("other")))
    shutil.chown(other, file.stat().st_uid, file.stat().st_gid)
    other.rename(file)
    before = file.read_bytes()
    scene.moorline("sweep", code=5)
    assert guest.domain.state() == PAUSED_BY_ERROR
    (view,) = scene.moorline.json("show", writer.volume.id)
    assert "is another file" in view["trouble"]["message"]
    assert file.read_bytes() == before
    by_hand(guest, writer.volume)
    guest.domain.resume()
    goes_on([writer])
    assert file.read_bytes() != before, "else it would not have to be its own"
    pool.drop(guest.domain.connect())
    scene.detach(guest.name, writer.volume)
    assert scene.is_clean()


def test_a_client_that_is_cut_off_and_lives_would_write_late(
    survivors: Scene, guest: Guest, pool: Any, fusectl: None
) -> None:
    """The refusal is followed by what it prevents: the same calls, while that client lives."""
    scene = survivors
    (writer,) = attached(scene, guest, "virtio")
    goes_on([writer])
    (client,), at = daemons(scene.share), scene.mount_point()
    cut_off_with_a_write(scene, at)
    until(lambda: guest.domain.state() == PAUSED_BY_ERROR)
    scene.moorline("sweep", code=None)
    assert guest.domain.state() == PAUSED_BY_ERROR
    assert daemons(scene.share) == [client]
    assert "still runs" in scene.moorline("doctor", code=10).stdout
    contained = replace(scene.moorline, before=CONTAINER)
    assert "its client has cannot be told" in contained("doctor", code=10).stdout
    contained("sweep", code=None)
    assert guest.domain.state() == PAUSED_BY_ERROR
    run("umount", "-l", str(at))
    scene.share.daemon(late=True)  # the next one sits on nothing
    run("mount.quobyte", scene.share.export, str(at))
    by_hand(guest, writer.volume)
    guest.domain.resume()
    before = writer.written()
    until(lambda: writer.written() > before + SLOTS)  # the block that is on its way, too
    assert writer.lost() == []
    scene.share.daemon()
    until(lambda: client not in daemons(scene.share))
    assert len(writer.lost()) == 1, "else it would not have to be dead"
    assert writer.errors() == []
    pool.drop(guest.domain.connect())
    scene.detach(guest.name, writer.volume)
    assert scene.is_clean()


def cut_off_with_a_write(scene: Scene, at: Path) -> None:
    """The client is cut off with a write of the guest's, which it will carry out at some time."""
    connection = CONNECTIONS / str(os.minor(at.stat().st_dev))
    scene.share.daemon(hang=["write"], late=True)
    for _ in range(2):
        os.statvfs(at)  # it answers one after the other: it has seen what it is to do
    until(lambda: int((connection / "waiting").read_text()) > 0)
    os.statvfs(at)  # and has taken the write
    (connection / "abort").write_text("1")
