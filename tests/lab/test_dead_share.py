"""A share's client dies under guests that run, or lives and answers with errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from libvirt_rig import until
from scene import Scene, daemons, halves, kill_daemon, small_guest, start_paused

from lab.guest import Guest, Silent, pattern

RUNNING = "small2"


@pytest.fixture
def running(libvirt_conn: Any, leftovers_check: None) -> Iterator[Any]:
    """A guest that holds its disks open and lets none go: it has no system."""
    with small_guest(libvirt_conn, RUNNING, running=True) as domain:
        yield domain


def test_a_dead_daemon_is_replaced_under_a_running_guest(
    scene: Scene, running: Any, stopped: Any
) -> None:
    """Whoever starts afterwards works; the one that ran has lost its disk, and is told so."""
    volume, other = scene.volume(), scene.volume()
    scene.attach(RUNNING, volume)
    kill_daemon(scene.share)
    assert scene.attachments() == {volume.id: ("attached", "broken")}
    scene.attach(stopped.name(), other)
    assert len(scene.mounts()) == len(daemons(scene.share)) == 1
    assert len(scene.mount_calls()) == 2
    seen = {volume.id: ("attached", "broken"), other.id: ("attached", "attached")}
    assert scene.attachments() == seen
    parked = scene.attach(RUNNING, volume, code=7)
    assert "open on a mount" in parked.stderr
    running.destroy()
    start_paused(running)  # as a hard reboot does
    assert set(scene.attachments().values()) == {("attached", "attached")}
    running.destroy()
    scene.detach(RUNNING, volume)
    scene.detach(stopped.name(), other)
    assert scene.is_clean()
    until(lambda: not daemons(scene.share))


@pytest.mark.parametrize("stops", [True, False])
def test_a_guest_is_paused_by_an_error_if_that_was_asked(
    scene: Scene, guest: Guest, pool: Any, *, stops: bool
) -> None:
    volume = scene.volume()
    scene.attach(guest.name, volume, *["--on-error", "stop"] * stops)
    device = guest.wait_for(volume.id)
    kill_daemon(scene.share)
    write = f"dd if=/dev/zero of={device} bs=4k count=1 oflag=direct"
    if stops:
        with pytest.raises(Silent):
            guest.agent.run(write, deadline=5)
    else:
        assert guest.agent.run(write).code != 0
    assert (guest.domain.state() == [3, 5]) == stops  # VIR_DOMAIN_PAUSED, …_PAUSED_IOERROR
    told = scene.moorline("doctor", code=10).stdout
    assert (f"{guest.name} is paused: there was an I/O error of its disk" in told) == stops
    asked = scene.attach(guest.name, volume, "--on-error", "enospace", code=3).stderr
    assert "what an I/O error does is" in asked
    if stops:
        kept = scene.detach(guest.name, volume, "--timeout", "2", code=5).stderr
        assert f"{guest.name} is paused by an I/O error, and lets no disk go" in kept
        assert f"virsh destroy {guest.name}" in kept
        assert scene.moorline.json("explain", volume.id)[0]["next"] == f"virsh destroy {guest.name}"
        released = scene.moorline("release", guest.name, volume.id, code=3).stderr
        assert f"hint: moorline explain {volume.id}" in released
    pool.drop(guest.domain.connect())  # one of them cannot go on
    scene.detach(guest.name, volume)
    assert scene.is_clean()


def test_a_disk_on_a_dead_daemon_can_be_attached_anew(
    scene: Scene, guest: Guest, second_guest: Guest
) -> None:
    volume, other = scene.volume(), scene.volume()
    scene.attach(guest.name, volume)
    guest.write(volume.id, "before")
    kill_daemon(scene.share)
    scene.attach(second_guest.name, other)
    second_guest.write(other.id, "on the new mount")
    assert other.bytes() == pattern("on the new mount")
    scene.detach(guest.name, volume)
    assert halves(guest.domain, volume) == (False, False)
    scene.attach(guest.name, volume)
    guest.write(volume.id, "after")
    assert volume.bytes() == pattern("after")
    assert len(scene.mounts()) == len(daemons(scene.share)) == 1
    scene.detach(guest.name, volume)
    scene.detach(second_guest.name, other)
    assert scene.is_clean()
    until(lambda: not daemons(scene.share))


def test_an_owner_killed_between_the_detach_of_a_dead_mount_and_the_new_one(
    scene: Scene, running: Any, stopped: Any
) -> None:
    volume, other = scene.volume(), scene.volume()
    scene.attach(RUNNING, volume)
    kill_daemon(scene.share)
    scene.share.command(slow=3)
    calls = len(scene.mount_calls())
    owner = scene.moorline.start("attach", stopped.name(), "--connection", str(other.connection))
    until(lambda: len(scene.mount_calls()) > calls)
    owner.kill()
    owner.communicate()
    assert scene.mounts() == []
    scene.share.command()
    scene.moorline("sweep", code=None)
    scene.attach(stopped.name(), other)
    assert len(scene.mounts()) == len(daemons(scene.share)) == 1
    running.destroy()
    scene.detach(RUNNING, volume)
    scene.detach(stopped.name(), other)
    assert scene.is_clean()


def test_a_client_that_lives_and_fails_is_waited_for(
    scene: Scene, running: Any, stopped: Any
) -> None:
    """As GlusterFS's does while its server is away: nothing is done to it, and it heals."""
    volume, other = scene.volume(), scene.volume()
    scene.attach(RUNNING, volume)
    served = daemons(scene.share)
    scene.share.daemon(error={"*": "ENOTCONN"})
    assert scene.attachments() == {volume.id: ("attached", "broken")}
    waits = scene.attach(stopped.name(), other, "--timeout", "1", code=5)
    assert f"({served[0]}), still runs; it may answer again by itself" in waits.stderr
    doctor = scene.moorline("doctor", code=10).stdout
    assert "failing-share" in doctor
    assert "virsh shutdown" not in doctor
    assert len(scene.mount_calls()) == 1
    scene.share.daemon()
    scene.attach(stopped.name(), other)
    assert set(scene.attachments().values()) == {("attached", "attached")}
    assert (len(scene.mount_calls()), daemons(scene.share)) == (1, served)
    running.destroy()
    scene.detach(RUNNING, volume)
    scene.detach(stopped.name(), other)
    assert scene.is_clean()
