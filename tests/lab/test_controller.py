"""The loop heals what people, crashes and reboots do, without anybody asking."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from libvirt_rig import CONFIG, LIVE, pull, small_xml, until
from loop import HEALED, Loop, running_loop
from scene import Scene, daemons, halves, kill_daemon, small_guest, start_paused

from lab import host
from lab.guest import Guest, pattern
from lab.host import umount
from moorline.errors import MoorlineError
from moorline.model import Level, VolumeId

RUNNING = "small2"


@pytest.fixture
def running(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    """A guest that holds its disks open and lets none go: it has no system."""
    with small_guest(libvirt_conn, RUNNING, running=True) as domain:
        yield domain


@pytest.fixture
def loop(scene: Scene) -> Iterator[Loop]:
    # What no event tells (a daemon that died) is found by the looks between the sweeps.
    with running_loop(scene, every=12) as loop:
        yield loop


def healed(true: Callable[[], object]) -> None:
    until(true, HEALED)


# --- guests ------------------------------------------------------------------------


@pytest.mark.parametrize("half", [LIVE, CONFIG], ids=["live", "config"])
def test_a_disk_pulled_by_hand_comes_back(
    scene: Scene, loop: Loop, guest: Guest, half: int
) -> None:
    volume = scene.volume()
    loop.attach(guest.domain, volume)
    guest.wait_for(volume.id)
    guest.domain.detachDeviceAlias(f"ua-{volume.id}", half)
    until(lambda: halves(guest.domain, volume) != (True, True))
    healed(lambda: halves(guest.domain, volume) == (True, True))
    guest.write(volume.id, "it came back")
    assert volume.bytes() == pattern("it came back")
    loop.detach(guest.domain, volume)
    loop.settles()


def test_a_guest_that_is_redefined_without_its_disk_gets_it_again(
    scene: Scene, loop: Loop, stopped: Any
) -> None:
    without = stopped.XMLDesc(2)
    volume = scene.volume()
    loop.attach(stopped, volume)
    stopped.undefine()
    healed(lambda: loop.trouble(volume) and loop.controller.pending()[0].due > 3)  # refused: slowly
    assert len(scene.mounts()) == 1
    again = scene.libvirt.defineXML(without)
    healed(lambda: halves(again, volume) == (False, True))
    loop.detach(again, volume)
    loop.settles()


def test_stops_and_starts_of_a_guest_change_nothing(scene: Scene, loop: Loop, running: Any) -> None:
    volume = scene.volume()
    loop.attach(running, volume)
    for change in (running.destroy, lambda: start_paused(running), running.reset, running.destroy):
        change()
        loop.settles()
        assert halves(running, volume) == (bool(running.isActive()), True)
    assert len(scene.mount_calls()) == 1
    loop.detach(running, volume)
    loop.settles()
    assert scene.is_clean()


# --- shares ------------------------------------------------------------------------


def test_a_share_unmounted_by_hand_is_mounted_again(scene: Scene, loop: Loop, stopped: Any) -> None:
    volume = scene.volume()
    loop.attach(stopped, volume)
    umount(scene.mount_point())
    healed(scene.mounts)
    start_paused(stopped)  # fails if the disk is not there
    stopped.destroy()
    loop.detach(stopped, volume)
    loop.settles()


def test_a_share_unmounted_lazily_under_a_guest_is_mounted_when_the_guest_stops(
    scene: Scene, loop: Loop, running: Any
) -> None:
    volume = scene.volume()
    loop.attach(running, volume)
    assert subprocess.run(["umount", scene.mount_point()], check=False).returncode  # it is busy
    umount(scene.mount_point(), "-l")
    healed(loop.controller.pending)
    assert scene.mounts() == []
    running.destroy()
    healed(scene.mounts)
    start_paused(running)
    running.destroy()
    loop.detach(running, volume)
    loop.settles()


def test_a_dead_daemon_of_a_stopped_guest_is_replaced(
    scene: Scene, loop: Loop, stopped: Any
) -> None:
    volume = scene.volume()
    loop.attach(stopped, volume)
    kill_daemon(scene.share)
    healed(lambda: daemons(scene.share))
    loop.settles()
    assert len(scene.mounts()) == 1
    loop.detach(stopped, volume)
    loop.settles()


def test_a_dead_daemon_under_a_running_guest_is_replaced(
    scene: Scene, loop: Loop, running: Any, stopped: Any
) -> None:
    """Another guest's disk on the share works again; the one that ran is told what it lost."""
    volume, other = scene.volume(), scene.volume()
    loop.attach(running, volume)
    loop.attach(stopped, other)
    kill_daemon(scene.share)
    healed(lambda: daemons(scene.share))
    healed(lambda: "open on a mount" in loop.trouble(volume))
    healed(lambda: loop.trouble(other) == "")
    start_paused(stopped)
    stopped.destroy()
    running.destroy()
    healed(lambda: loop.trouble(volume) == "")
    start_paused(running)
    running.destroy()
    assert len(scene.mount_calls()) == 2
    for domain, each in ((running, volume), (stopped, other)):
        loop.detach(domain, each)
    loop.settles()


def test_a_foreign_mount_is_waited_out(scene: Scene, loop: Loop, stopped: Any) -> None:
    volume = scene.volume()
    loop.attach(stopped, volume)
    at = scene.mount_point()
    subprocess.run(["mount", "-t", "tmpfs", "somebodys", at], check=True)
    try:
        healed(lambda: "another file system (tmpfs, somebodys)" in loop.trouble(volume))
    finally:
        umount(at)
    healed(lambda: not loop.controller.pending())
    assert loop.trouble(volume) == ""
    assert len(scene.mount_calls()) == 1
    loop.detach(stopped, volume)
    loop.settles()


def test_a_mount_point_written_to_beneath_is_waited_out(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    with running_loop(scene) as loop:
        loop.attach(stopped, volume)
    at = scene.mount_point()
    umount(at)
    subprocess.run(["chattr", "-i", at], check=False, stderr=subprocess.DEVNULL)
    at.chmod(0o700)
    (at / "precious").write_text("data")
    with running_loop(scene) as loop:
        healed(lambda: f"nothing is mounted at {at}, yet it is not empty" in loop.trouble(volume))
        assert (at / "precious").read_text() == "data"
        (at / "precious").unlink()
        healed(scene.mounts)
        loop.detach(stopped, volume)
        loop.settles()
    assert scene.is_clean()


# --- services and the host ---------------------------------------------------------


def test_an_attachment_goes_on_when_libvirtd_comes_back(
    scene: Scene, loop: Loop, guest: Guest
) -> None:
    volume, other = scene.volume(), scene.volume()
    loop.attach(guest.domain, volume)
    guest.wait_for(volume.id)
    host.kill_libvirtd()
    try:
        with pytest.raises(MoorlineError):
            loop.moorline.attachments.detach(guest.name, volume.id, timeout=0.2)
        umount_fails = subprocess.run(["umount", scene.mount_point()], check=False).returncode
        assert umount_fails
    finally:
        host.start_libvirtd()
    healed(lambda: not loop.controller.pending() and not scene.mounts())
    import libvirt

    anew = libvirt.open("qemu:///system")  # the old connection died with its libvirtd
    domain = anew.lookupByName(guest.name)
    assert halves(domain, volume) == (False, False)
    # Events come on the new connection too.
    loop.attach(domain, other)
    guest.wait_for(other.id)
    pull(domain, VolumeId(other.id), CONFIG)
    healed(lambda: halves(domain, other) == (True, True))
    loop.detach(domain, other)
    loop.settles()
    anew.close()
    assert scene.is_clean()


def test_after_a_reboot_links_are_there_before_libvirtd_is(
    scene: Scene, libvirt_conn: Any, guest: Guest
) -> None:
    """All mounts and processes are gone, the state is kept, and libvirtd starts late."""
    import libvirt

    volume, linked = scene.volume(), scene.volume()
    xml = ET.fromstring(small_xml("q35", 6, "virtio-scsi"))
    before = libvirt_conn.defineXML(ET.tostring(xml, encoding="unicode"))
    with running_loop(scene) as loop:
        loop.attach(before, volume)
        loop.attach(guest.domain, linked, level=Level.CONNECTED)
    host.kill_libvirtd()
    try:
        for pid in daemons(scene.share):
            os.kill(pid, signal.SIGKILL)
        umount(scene.mount_point(), "-l")
        with running_loop(scene) as loop:
            healed(scene.mounts)
            assert loop.controller.pending()  # its guest cannot be asked
            host.start_libvirtd()
            loop.settles()
            anew = libvirt.open("qemu:///system")
            domain = anew.lookupByName("small")
            start_paused(domain)  # fails if the disk is not there
            domain.destroy()
            loop.detach(domain, volume)
            loop.moorline.attachments.detach(guest.name, linked.id)
            loop.settles()
            domain.undefine()
            anew.close()
    finally:
        if not host.LIBVIRT_PID.exists():
            host.start_libvirtd()
    assert scene.is_clean()


def test_a_full_state_disk_stops_no_healing(scene: Scene, stopped: Any) -> None:
    volume = scene.volume()
    state = scene.directory / "moorline"
    state.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=711", "state", state], check=True)
    try:
        # No event tells of a definition that lost a disk: a sweep finds it.
        with running_loop(scene, every=12) as loop:
            loop.attach(stopped, volume)
            fill(state / "ballast")
            with pytest.raises(MoorlineError, match="cannot be"):
                loop.detach(stopped, volume, timeout=0.2)  # not acknowledged
            pull(stopped, VolumeId(volume.id), CONFIG)
            healed(lambda: halves(stopped, volume) == (False, True))
            umount(scene.mount_point())
            healed(scene.mounts)
        umount(scene.mount_point())
        with running_loop(scene) as loop:  # as after a reboot: the next one can begin at all
            healed(scene.mounts)
            told = scene.moorline("doctor", code=10).stdout
            assert "full-state-disk" in told
            with pytest.raises(MoorlineError, match="its disk is full"):
                loop.detach(stopped, volume, timeout=0.2)
            (state / "ballast").unlink()
            loop.detach(stopped, volume)
            loop.settles()
            assert not scene.mounts()
    finally:
        shutil.rmtree(state / "mnt", ignore_errors=True)
        umount(state)


def fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
