"""ploop images end to end, on the stand-in for ``ploop``, and the stand-in itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from libvirt_rig import until
from virtuozzo_story import ID, Story

from lab import host, processes
from lab.command import Moorline
from lab.guest import Guest, digest, pattern
from lab.virtuozzo.cluster import Virtuozzo
from lab.virtuozzo.ploop import BASE, DESCRIPTOR, Ploop, create
from moorline.testing.faults import Fault

KIB = 1 << 10


class PloopStory(Story):
    """The volume is a ploop image."""

    def make(self) -> None:
        self.ploop = Ploop(host.LAB)
        self.file = create(self.cluster.path / ID)

    def publish(self) -> None:
        connection = self.cluster.connection(ID, "ploop", volume_id=ID)
        self.connection.write_text(json.dumps(connection))

    def verbs(self) -> list[str]:
        return [call[1] for call in self.ploop.calls()]

    def named(self) -> bool:
        """Whether the device has got its name; its command alone does not give it one."""
        return any(name.is_symlink() for name in Path("/dev/moorline").glob("*"))

    def kill_when(self, action: str, verb: str, true: Callable[[], bool]) -> int:
        """Kill it at its first effect after ``ploop VERB`` at which that is *true*.

        Returns how many verbs were called before it. What earlier kills left is taken away.
        """
        # The effects before that are the record, the share, or the disk, and questions about them.
        for at in count(6 if action == "attach" else 10):
            if action == "detach":
                self.run("attach")
            before = len(self.verbs())
            assert self.killed(action, at, Fault.KILL_AFTER), "it has no such effect"
            if verb in self.verbs()[before:] and true():
                return before
            self.run("detach")
        raise AssertionError("unreachable")


@pytest.fixture
def story(lab: Path, moorline: Moorline, guest: Guest) -> Iterator[PloopStory]:
    virtuozzo = Virtuozzo(lab)
    story = PloopStory(moorline, virtuozzo.cluster("vault", password="secret"), guest)
    yield story
    story.forget_node()
    story.ploop.clear()
    virtuozzo.clear()
    assert list(Path("/dev").glob("ploop*")) == []


def source(guest: Guest) -> str:
    (line,) = [line for line in guest.domain.XMLDesc(2).splitlines() if "/dev/moorline" in line]
    return line.split("'")[1]


def test_the_guest_writes_to_a_ploop_image(story: PloopStory, second_guest: Guest) -> None:
    story.run("attach")
    story.check(True)
    device = Path(source(story.guest))
    assert device.readlink().name.startswith("ploop")
    assert device.owner() == "root"  # libvirt gave away a node of its own, not the host's
    story.guest.write(ID, "seed", offset=64 * KIB, length=256 * KIB)
    with story.file.open("rb") as file:
        file.seek(64 * KIB)
        assert file.read(256 * KIB) == pattern("seed", 256 * KIB)
    story.run("detach")
    story.check(False)
    assert story.verbs() == ["mount", "umount"]
    assert not device.is_symlink()
    story.guest = second_guest
    story.run("attach")
    read = second_guest.digest(ID, offset=64 * KIB, length=256 * KIB)
    assert read == digest(pattern("seed", 256 * KIB))
    story.run("detach")
    story.check(False)


def test_what_was_refused_or_stopped_halfway_leaves_nothing(story: PloopStory) -> None:
    story.file.rename(story.file.with_name("hidden"))
    assert "no file" in story.run("attach", code=3).stderr
    story.check(False)
    story.file.with_name("hidden").rename(story.file)
    before = story.kill_when("attach", "mount", lambda: not story.named())
    assert story.mounts() == 1
    story.run("detach")
    story.check(False)
    assert story.verbs()[before:] == ["mount", "umount"]


def test_a_device_that_nobody_attachments_is_found_and_taken_away(story: PloopStory) -> None:
    options = ("--config-file", str(story.config))
    story.run("attach", "--level", "connected")
    story.moorline("release", story.guest.name, ID, *options)
    assert story.mounts() == 1
    (leaked,) = story.moorline.json("doctor", *options, code=10)["findings"]
    assert (leaked["check"], leaked["next"]) == ("leaked-link", "moorline repair")
    assert Path(leaked["subject"]).is_symlink()
    story.moorline("repair", *options)
    story.check(False)
    assert story.verbs() == ["mount", "umount"]
    assert story.moorline.json("doctor", *options)["findings"] == []


def test_a_busy_device_keeps_the_mount(story: PloopStory) -> None:
    story.run("attach")
    device = Path(source(story.guest))
    with device.open("rb"):
        busy = story.run("detach", "--timeout", "0.5", code=5)
        assert "busy" in busy.stderr
        assert device.exists()
        assert story.mounts() == 1
    story.run("detach")
    story.check(False)


def client(cluster: str) -> int:
    """The process that serves the cluster's mount."""
    (pid,) = processes.running("vstorage-mount", cluster)
    return pid


def test_a_dead_share_leaves_the_device_to_the_guest_that_runs(story: PloopStory) -> None:
    """Seen gone, its client lets a file's mount be made anew under guests; a device is not."""
    options = ("--config-file", str(story.config))
    story.run("attach")
    device = Path(source(story.guest))
    processes.kill(client(story.cluster.name))
    until(lambda: story.views()[0]["seen"] == "broken")
    parked = story.run("attach", code=7)
    assert f"who has it open: {story.guest.name}" in parked.stderr
    assert story.moorline("sweep", *options, code=5)
    assert story.verbs() == ["mount"]
    assert device.exists()
    assert story.mounts() == 1
    story.run("detach")  # its user is told, and lets go
    story.check(False)
    story.run("attach")
    story.check(True)
    story.run("detach")
    story.check(False)


@pytest.mark.parametrize(
    ("named", "verbs"), [(False, ["mount", "umount", "mount"]), (True, ["mount"])]
)
def test_killed_when_the_device_is_made(story: PloopStory, named: bool, verbs: list[str]) -> None:
    """The contract's tests are of every point; here the device and the mount are real.

    One without its name is taken away and made anew, one that has it is found.
    """
    before = story.kill_when("attach", "mount", lambda: story.named() is named)
    story.run("attach")
    story.check(True)
    assert story.verbs()[before:] == verbs
    story.run("detach")
    story.check(False)


def test_killed_when_the_device_is_gone(story: PloopStory) -> None:
    before = story.kill_when("detach", "umount", lambda: story.mounts() == 1)
    story.run("detach")
    story.check(False)
    assert story.verbs()[before:] == ["umount"]


def test_a_descriptor_that_leads_out_reaches_neither_kernel_nor_guest(
    story: PloopStory, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.hds"
    secret.write_bytes(bytes(1 << 20))
    descriptor = story.file.with_name(DESCRIPTOR)
    descriptor.write_text(descriptor.read_text().replace(BASE, str(secret)))
    refused = story.run("attach", code=3)
    assert f"names the file '{secret}', which is outside of " in refused.stderr
    assert story.ploop.calls() == []
    story.check(False)


def test_without_the_command_it_is_refused(story: PloopStory, tmp_path: Path) -> None:
    clients = tmp_path / "clients"
    shutil.copytree(host.SOFTWARE / "commands", clients, symlinks=True)
    (clients / "ploop").unlink()
    path = os.environ["PATH"].replace(str(host.SOFTWARE / "commands"), str(clients))
    story.moorline = replace(story.moorline, environment={"PATH": path})
    refused = story.run("attach", code=3)
    assert "this host does not have" in refused.stderr
    story.check(False)


# --- the stand-in ---


def call(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)


def test_the_stand_in_makes_lists_and_takes_away_devices(lab: Path, tmp_path: Path) -> None:
    ploop = Ploop(lab)
    file = create(tmp_path / "disk", 1 << 20)
    descriptor = tmp_path / "disk" / DESCRIPTOR
    assert call("ploop", "list").stdout == ""
    done = call("ploop", "mount", descriptor)
    device = Path(done.stdout.split("dev=")[1].split()[0])
    assert device.is_block_device()
    assert call("ploop", "mount", descriptor).returncode == 1
    (line,) = call("ploop", "list").stdout.splitlines()
    assert line.split()[:2] == [device.name, str(file)]
    with device.open("r+b", buffering=0) as disk:
        disk.write(b"x" * 4096)
        assert "busy" in call("ploop", "umount", "-d", device).stderr
    assert file.read_bytes()[:4096] == b"x" * 4096
    ploop.command(umount={"fail": {"code": 1, "stderr": "not today"}})
    assert "not today" in call("ploop", "umount", "-d", device).stderr
    ploop.command()
    assert call("ploop", "umount", descriptor).returncode == 0
    assert call("ploop", "list").stdout == ""
    assert not device.exists()
    assert call("ploop", "umount", "-d", device).returncode == 1
    ploop.clear()
