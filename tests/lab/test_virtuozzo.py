"""Virtuozzo Storage end to end: killed at every effect, and silent about its password."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from virtuozzo_story import ID, Story

from lab import host
from lab.command import Moorline
from lab.guest import Guest, pattern
from lab.virtuozzo.cluster import Virtuozzo
from moorline.testing.faults import Fault

PASSWORD = "geh:/eim, really"
MOST = 12


@pytest.fixture
def story(lab: Path, moorline: Moorline, guest: Guest) -> Iterator[Story]:
    virtuozzo = Virtuozzo(lab)
    story = Story(moorline, virtuozzo.cluster("vault", password=PASSWORD), guest)
    yield story
    story.forget_node()
    virtuozzo.clear()


@pytest.mark.parametrize("again", [True, False], ids=["again", "opposite"])
@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
@pytest.mark.parametrize(("action", "effects"), [("attach", 4), ("detach", 4)])
def test_killed_at_every_effect(
    story: Story, action: str, effects: int, fault: Fault, again: bool, record_property: Any
) -> None:
    opposite = "detach" if action == "attach" else "attach"
    if action == "detach":
        story.run("attach")
    points = 0
    for at in range(MOST):
        if action == "attach":
            story.forget_node()  # so that authentication is among the effects
        if not story.killed(action, at, fault):
            break
        points += 1
        story.run(action if again else opposite)
        story.check((action if again else opposite) == "attach")
        if again:
            story.run(opposite)
        story.check(action == "detach")
    else:
        pytest.fail(f"{action} has more than {MOST} effects")
    record_property("real_crash_points", points)
    assert points >= effects
    story.run("detach")
    story.check(False)


def test_the_guest_writes_to_the_cluster(story: Story) -> None:
    story.run("attach")
    story.guest.write(ID, "seed")
    assert story.file.read_bytes()[:65536] != bytes(65536)
    story.run("detach")
    story.check(False)


def test_defect_2_rotation_moves_nothing(story: Story) -> None:
    story.run("attach")
    before = story.guest.domain.XMLDesc(2)
    story.cluster.rotate("another")
    story.cluster.servers = story.cluster.servers[::-1]
    story.publish()
    calls = story.cluster.owner.calls()
    story.run("attach")
    assert story.guest.domain.XMLDesc(2) == before
    assert story.cluster.owner.calls() == calls
    story.run("detach")
    story.run("attach")  # with the new password, on a node that knows the old one
    story.check(True)
    story.run("detach")


def test_defect_1_the_password_is_nowhere(story: Story) -> None:
    story.cluster.command(auth={"fail": {"code": 1, "stderr": f"wrong: {PASSWORD}"}})
    failed = story.moorline.start(
        *("attach", story.guest.name, "--connection", str(story.connection), "--timeout", "1"),
        *("--config-file", str(story.config)),
    )
    printed = "".join(failed.communicate(timeout=60))
    assert failed.returncode == 5
    assert "wrong: ***" in printed
    printed += json.dumps(story.views())
    story.cluster.command()
    done = story.run("attach")
    printed += done.stdout + done.stderr + json.dumps(story.views())
    printed += story.guest.domain.XMLDesc(0) + Path("/proc/self/mountinfo").read_text()
    printed += json.dumps(story.cluster.owner.calls()) + host.command_lines()
    assert PASSWORD not in printed
    places = [host.VSTORAGE, story.state, Path("/var/log/libvirt")]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
    story.run("detach")


def test_defect_5_nobody_else_is_unmounted(story: Story) -> None:
    other = "bbbbbbbb-0000-4000-8000-000000000002"
    story.cluster.disk(other)
    second = story.state.with_name("second.json")
    second.write_text(json.dumps(story.cluster.connection(other, volume_id=other)))
    config = ("--config-file", str(story.config))
    story.run("attach")
    story.moorline("attach", story.guest.name, "--connection", str(second), *config)
    story.run("detach")
    assert story.mounts() == 1
    story.moorline("detach", story.guest.name, other, *config)
    story.check(False)
    assert not os.path.ismount(story.state / "mnt")


NOVA = """\
<disk type='file' device='disk'><driver name='qemu' type='raw' cache='writeback'/>
<source file='{path}'/><target dev='vdb' bus='virtio'/><serial>{id}</serial>
<alias name='ua-{id}'/></disk>
"""


def test_a_disk_that_nova_attached_is_taken_over_where_it_is(story: Story) -> None:
    """Nova's mount point is a hash of the share; its disks bear the mark that ours do."""
    story.run("attach")  # so that the node is authenticated, as it was for Nova
    story.run("detach")
    old = story.state.with_name(hashlib.md5(story.cluster.export.encode()).hexdigest())
    old.mkdir()
    owner = ("-u", story.user, "-g", story.group, "-m", "770")
    subprocess.run(["vstorage-mount", "-c", "vault", old, *owner], check=True)
    story.guest.domain.attachDeviceFlags(NOVA.format(path=old / ID, id=ID), 3)  # LIVE, CONFIG
    before = story.guest.domain.XMLDesc(0), story.guest.domain.XMLDesc(2)
    with story.config.open("a") as config:
        config.write(f"vzstorage_mounted=vault={old}\n")
    refused = story.run("attach", code=3)  # it would be taken for a disk of ours, and go with it
    assert "no record of having plugged it" in refused.stderr
    story.run("adopt")
    assert (story.guest.domain.XMLDesc(0), story.guest.domain.XMLDesc(2)) == before
    story.check(True)
    story.guest.write(ID, "seed")
    assert story.file.read_bytes()[:65536] == pattern("seed")
    story.run("detach")
    assert story.mounts() == 1  # the operator's
    subprocess.run(["umount", old], check=True)
    story.check(False)
