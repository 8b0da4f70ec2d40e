"""Somebody or something gets between: operators with umount and virsh, crashes, lost services."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from libvirt_rig import CONFIG, LIVE, pull, until
from scene import Scene, daemons, disk, halves, kill_daemon, small_guest, start_paused

from lab import host
from lab.guest import Guest, pattern
from lab.host import umount
from moorline.model import VolumeId

RUNNING = "small2"


@pytest.fixture
def running(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    """A guest that holds its disks open and lets none go: it has no system."""
    with small_guest(libvirt_conn, RUNNING, running=True) as domain:
        yield domain


# --- the share ---------------------------------------------------------------------


def test_unmounted_by_hand_under_a_stopped_guest(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    umount(scene.mount_point())
    assert scene.mounts() == []
    scene.moorline("sweep")
    assert len(scene.mounts()) == 1
    start_paused(stopped)  # fails if the disk is not there
    stopped.destroy()
    scene.detach(stopped.name(), volume)
    assert scene.is_clean()


@pytest.mark.parametrize("command", ["attach", "detach"])
def test_unmounted_by_hand_while_nobody_used_it(scene: Scene, guest: Guest, command: str) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume, "--level", "connected")
    umount(scene.mount_point())
    if command == "attach":
        scene.attach(guest.name, volume)
        guest.write(volume.id, "mounted anew")
        assert volume.bytes() == pattern("mounted anew")
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_a_dead_daemon_that_nobody_used_is_replaced(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume, "--level", "connected")
    kill_daemon(scene.share)
    assert scene.attachments() == {volume.id: ("connected", "broken")}
    scene.attach(guest.name, volume)
    assert len(scene.mounts()) == 1
    guest.write(volume.id, "alive")
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_a_dead_daemon_can_be_left_behind(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume, "--level", "connected")
    kill_daemon(scene.share)
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_a_dead_daemon_of_a_stopped_guest_is_replaced(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    kill_daemon(scene.share)
    scene.moorline("sweep")
    assert len(scene.mounts()) == 1
    assert daemons(scene.share)
    start_paused(stopped)
    stopped.destroy()
    scene.detach(stopped.name(), volume)
    assert scene.is_clean()


@pytest.mark.parametrize("when", ["before the first attach", "over our mount"])
def test_a_foreign_mount_is_not_touched(scene: Scene, guest: Guest, when: str) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume, "--level", "connected")
    at = scene.mount_point()
    if when == "before the first attach":
        scene.detach(guest.name, volume)
        at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "somebodys", at], check=True)
    (at / "theirs").touch()
    try:
        for args in (["attach", guest.name, "--connection", str(volume.connection)], ["sweep"]):
            done = scene.moorline(*args, code=7 if args[0] == "attach" else 5)
            assert f"another file system (tmpfs, somebodys) is mounted at {at}" in (
                done.stderr + done.stdout + scene.moorline("show", volume.id).stdout
            )
        scene.detach(guest.name, volume, code=7)
        assert (at / "theirs").exists()
        assert halves(guest.domain, volume) == (False, False)
    finally:
        umount(at)
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_a_mount_point_with_files_in_it_is_not_hidden(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume, "--level", "connected")
    at = scene.mount_point()
    scene.detach(guest.name, volume)
    at.mkdir(parents=True)
    (at / "precious").write_text("data")
    done = scene.attach(guest.name, volume, code=7)
    assert f"nothing is mounted at {at}, yet it is not empty" in done.stderr
    assert (at / "precious").read_text() == "data"
    assert scene.mounts() == []
    shutil.rmtree(at)
    scene.attach(guest.name, volume)
    scene.detach(guest.name, volume)
    assert scene.is_clean()


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_what_is_not_mounted_takes_no_data(scene: Scene, stopped: Any, user: str) -> None:
    volume = scene.volume()
    scene.attach(stopped.name(), volume)
    at = scene.mount_point()
    probe = scene.directory / "probe"
    probe.mkdir()
    if user == "root" and subprocess.run(["chattr", "+i", probe], check=False).returncode:
        pytest.skip("this file system has no immutable directories")
    subprocess.run(["chattr", "-i", probe], check=False)
    umount(at)
    written = subprocess.run(
        ["touch", at / volume.file.name], user=user, check=False, capture_output=True, text=True
    )
    assert written.returncode != 0
    assert "not permitted" in written.stderr or "denied" in written.stderr
    scene.detach(stopped.name(), volume)
    assert scene.is_clean()


def test_a_lazy_umount_under_a_running_guest(scene: Scene, running: Any) -> None:
    """It writes on through a mount that nobody sees: no second one is put in its place."""
    volume = scene.volume()
    scene.attach(RUNNING, volume)
    umount(scene.mount_point(), "-l")
    failed = scene.attach(RUNNING, volume, "--timeout", "0.5", code=5)
    assert "or the daemon that it left, still runs" in failed.stderr
    assert scene.mounts() == []
    assert len(scene.mount_calls()) == 1
    running.destroy()
    until(lambda: not daemons(scene.share))
    scene.attach(RUNNING, volume)
    assert len(scene.mounts()) == 1
    scene.detach(RUNNING, volume)
    assert scene.is_clean()


# --- the disk ----------------------------------------------------------------------


@pytest.mark.parametrize("half", [LIVE, CONFIG], ids=["live", "config"])
def test_half_a_disk_pulled_by_hand_is_put_back(scene: Scene, guest: Guest, half: int) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    guest.wait_for(volume.id)
    target = disk(guest.domain, volume, inactive=half == LIVE)
    pull(guest.domain, VolumeId(volume.id), half)
    assert scene.attachments() == {volume.id: ("attached", "partial")}
    scene.moorline("sweep")
    assert halves(guest.domain, volume) == (True, True)
    now = disk(guest.domain, volume, inactive=half != LIVE)
    assert target is not None
    assert now is not None
    assert now.find("target").attrib == target.find("target").attrib  # type: ignore[union-attr]
    guest.write(volume.id, "whole again")
    assert volume.bytes() == pattern("whole again")
    scene.detach(guest.name, volume)
    assert scene.is_clean()


@pytest.mark.parametrize("half", [LIVE, CONFIG], ids=["live", "config"])
def test_half_a_disk_pulled_by_hand_can_be_detached(scene: Scene, guest: Guest, half: int) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    guest.wait_for(volume.id)
    pull(guest.domain, VolumeId(volume.id), half)
    scene.detach(guest.name, volume)
    assert halves(guest.domain, volume) == (False, False)
    assert scene.is_clean()


# --- the guest ---------------------------------------------------------------------


def test_a_guest_that_is_undefined_leaves_nothing(scene: Scene, libvirt_conn: Any) -> None:
    volume = scene.volume()
    with small_guest(libvirt_conn, "gone") as domain:
        scene.attach("gone", volume)
        assert "is still a disk of gone" in scene.moorline("forget", volume.id, code=3).stderr
        domain.undefine()
        refused = scene.moorline("forget", volume.id, code=3)
        assert "is still there" in refused.stderr  # the mount is
        assert len(scene.mounts()) == 1
        umount(scene.mount_point())
        assert f"forgot volume {volume.id} on gone" in scene.moorline("forget", volume.id).stdout
        assert scene.is_clean()


def test_a_volume_of_a_guest_that_is_undefined_can_be_detached(
    scene: Scene, libvirt_conn: Any
) -> None:
    volume = scene.volume()
    with small_guest(libvirt_conn, "gone") as domain:
        scene.attach("gone", volume)
        domain.undefine()
        scene.detach("gone", volume)
        assert scene.is_clean()


def test_a_guest_that_is_renamed_is_the_same_guest(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    old = stopped.name()
    scene.attach(old, volume)
    stopped.rename("renamed")
    scene.attach("renamed", volume)
    assert len(scene.attachments()) == 1
    assert len(scene.mount_calls()) == 1
    scene.detach("renamed", volume)
    assert halves(stopped, volume) == (False, False)
    assert scene.is_clean()


# --- libvirt -----------------------------------------------------------------------


@contextmanager
def no_libvirtd() -> Iterator[None]:
    host.kill_libvirtd()
    try:
        yield
    finally:
        host.start_libvirtd()


def test_libvirtd_killed_between_commands(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume)
    with no_libvirtd():
        pass
    scene.attach(guest.name, volume)
    guest.write(volume.id, "libvirtd is back")
    assert volume.bytes() == pattern("libvirtd is back")
    scene.detach(guest.name, volume)
    assert guest.disks() == {}
    assert scene.is_clean()


def test_without_libvirtd_nothing_new_is_wanted_and_nothing_old_is_lost(
    scene: Scene, guest: Guest
) -> None:
    import libvirt

    volume, other = scene.volume(), scene.volume()
    scene.attach(guest.name, volume)
    with no_libvirtd():
        failed = scene.attach(guest.name, other, "--timeout", "0.3", code=11)  # not recorded
        assert "qemu:///system cannot be reached" in failed.stderr
        failed = scene.detach(guest.name, volume, "--timeout", "0.3", code=5)
        assert "qemu:///system cannot be reached" in failed.stderr
        assert "the attachment is kept" in failed.stderr
        assert len(scene.mounts()) == 1  # who uses it cannot be told
        (row,) = scene.moorline.json("list")
        assert (row["volume"], row["wanted"], row["seen"]) == (volume.id, "absent", "unknown")
    guest.wait_for(volume.id)
    until(lambda: scene.moorline("sweep", code=None).returncode == 0)
    anew = libvirt.open("qemu:///system")  # the old connection died with its libvirtd
    assert halves(anew.lookupByName(guest.name), volume) == (False, False)
    anew.close()
    assert scene.is_clean()


# --- several at once, and killed ones ----------------------------------------------


def slow_attach(scene: Scene, guest: str, seconds: float) -> tuple[Any, subprocess.Popen[str]]:
    """An attach that is in the middle of mounting."""
    volume = scene.volume()
    scene.share.command(slow=seconds)
    process = scene.moorline.start("attach", guest, "--connection", str(volume.connection))
    until(scene.mount_calls)
    return volume, process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_the_next_command_waits_for_a_dead_owners_mount(scene: Scene, guest: Guest) -> None:
    volume, owner = slow_attach(scene, guest.name, 3)
    kill(owner)
    assert scene.mounts() == []
    scene.attach(guest.name, volume)
    assert len(scene.mount_calls()) == len(scene.mounts()) == 1  # the dead owner's
    guest.write(volume.id, "one mount")
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_an_owner_killed_while_mounting_and_then_detached_leaks_nothing(
    scene: Scene, guest: Guest
) -> None:
    volume, owner = slow_attach(scene, guest.name, 1.5)
    kill(owner)
    scene.detach(guest.name, volume)
    assert scene.is_clean()
    time.sleep(0.5)  # what still ran would have mounted by now
    assert scene.is_clean()
    assert daemons(scene.share) == []


def test_two_commands_at_once_both_succeed(scene: Scene, guest: Guest) -> None:
    volume, first = slow_attach(scene, guest.name, 1.5)
    second = scene.volume()
    done = scene.attach(guest.name, second)
    assert f"waiting for process {first.pid}" in done.stderr or "waiting" not in done.stderr
    assert first.wait(20) == 0
    assert len(scene.mount_calls()) == len(scene.mounts()) == 1
    assert set(scene.attachments().values()) == {("attached", "attached")}
    for each in (volume, second):
        assert halves(guest.domain, each) == (True, True)
        scene.detach(guest.name, each)
    assert scene.is_clean()


def test_the_same_command_twice_at_once_is_done_once(scene: Scene, guest: Guest) -> None:
    volume = scene.volume()
    args = ("attach", guest.name, "--connection", str(volume.connection))
    processes = [scene.moorline.start(*args) for _ in range(4)]
    for process in processes:
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
    assert len(scene.mount_calls()) == len(scene.mounts()) == 1
    aliases = guest.domain.XMLDesc().count(f"ua-{volume.id}")
    assert aliases == 1
    scene.detach(guest.name, volume)
    assert scene.is_clean()
