"""A guest that was stopped opens its disks by their names: what they lead to by then is checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from scene import Scene, findings, small_guest, start_paused
from test_two_mounts import connection

from lab.host import umount


@pytest.fixture
def second(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    with small_guest(libvirt_conn, "second") as domain:
        yield domain


@pytest.mark.parametrize("runs", [True, False], ids=["runs", "stopped"])
def test_what_another_guest_was_given_meanwhile(
    scene: Scene, stopped: Any, second: Any, runs: bool
) -> None:
    """As after a reboot, its share was not there when the other one asked who has the file."""
    scene.share.disk("disk.raw").chmod(0o666)
    mine, its = (
        connection("quobyte", f"{reg}/{scene.share.name}", "disk.raw") for reg in ("reg1", "reg2")
    )
    scene.moorline("attach", stopped.name(), "--connection", str(scene.write("mine.json", mine)))
    umount(scene.mount_point())
    scene.moorline("attach", second.name(), "--connection", str(scene.write("its.json", its)))
    if runs:
        start_paused(second)
    said = scene.moorline("start", stopped.name(), code=3).stderr
    assert f"{second.name()} has" in said
    assert not stopped.isActive()
    if runs:
        second.destroy()  # paused, it lets go of nothing
    scene.moorline("detach", second.name(), its["data"]["volume_id"])
    scene.moorline("start", stopped.name())
    assert stopped.isActive()
    stopped.destroy()
    scene.moorline("detach", stopped.name(), mine["data"]["volume_id"])
    assert scene.is_clean()


@pytest.mark.parametrize("how", ["start", "hook"])
def test_a_name_that_leads_elsewhere_by_now(scene: Scene, stopped: Any, how: str) -> None:
    allowed, elsewhere = scene.directory / "allowed", scene.directory / "elsewhere"
    for directory in (allowed, elsewhere):
        directory.mkdir()
        (directory / "disk.raw").write_bytes(bytes(1 << 20))
    secret = elsewhere / "disk.raw"
    os.chown(secret, 12345, 12345)
    secret.chmod(0o600)
    scene.moorline("attach", stopped.name(), str(allowed / "disk.raw"), "--format", "raw")
    allowed.rename(scene.directory / "before")
    allowed.symlink_to(elsewhere)
    if how == "start":
        scene.moorline("start", stopped.name(), code=3)
        assert scene.moorline("start", stopped.name(), "--dry-run", code=3)
    else:
        scene.moorline("hook", "run", stdin=stopped.XMLDesc(), code=3)
    assert not stopped.isActive()
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777) == (12345, 0o600)
    allowed.unlink()
    (scene.directory / "before").rename(allowed)
    scene.moorline("start", stopped.name())
    assert stopped.isActive()


def test_a_guest_that_was_started_with_a_name_that_leads_elsewhere(
    scene: Scene, stopped: Any
) -> None:
    """Without us, so nothing was checked: the other file has the same name."""
    allowed, elsewhere = scene.directory / "allowed", scene.directory / "elsewhere"
    for directory in (allowed, elsewhere):
        directory.mkdir()
        (directory / "disk.raw").write_bytes(bytes(1 << 20))
    scene.moorline("attach", stopped.name(), str(allowed / "disk.raw"), "--format", "raw")
    allowed.rename(scene.directory / "before")
    allowed.symlink_to(elsewhere)
    stopped.create()
    (row,) = scene.moorline.json("list")
    assert (row["wanted"], row["seen"]) == ("attached", "broken")
    assert "has another file open" in row["next"]
    assert set(findings(scene)) == {"replaced-image"}
    stopped.destroy()
    allowed.unlink()
    (scene.directory / "before").rename(allowed)
    assert not findings(scene)
