"""Virtuozzo Storage end to end: killed at every effect, and silent about its password."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import host
from lab.command import Moorline
from lab.guest import Guest
from lab.virtuozzo import Cluster, Virtuozzo
from moorline.testing.faults import Fault

OWNER = Path(__file__).with_name("owner.py")
ID = "aaaaaaaa-0000-4000-8000-000000000001"
PASSWORD = "geh:/eim, really"
KILLED = -9
MOST = 12


class Story:
    """A volume on a cluster with a password, a guest, and what must be so."""

    def __init__(self, moorline: Moorline, cluster: Cluster, guest: Guest) -> None:
        assert moorline.state is not None
        self.moorline = moorline
        self.cluster = cluster
        self.guest = guest
        self.state = moorline.state
        self.file = cluster.disk(ID)
        self.config = self.state.with_name("nova.conf")
        qemu = pwd.getpwuid(host.qemu_user())
        group = grp.getgrgid(qemu.pw_gid).gr_name
        self.config.write_text(
            f"[libvirt]\nvzstorage_mount_user={qemu.pw_name}\nvzstorage_mount_group={group}\n"
        )
        self.connection = self.state.with_name("connection.json")
        self.publish()

    def publish(self) -> None:
        """Write the connection with the servers and the password as they are now."""
        self.connection.write_text(json.dumps(self.cluster.connection(ID, volume_id=ID)))

    def run(self, action: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        what = ["--connection", str(self.connection)] if action == "attach" else [ID]
        words = [action, self.guest.name, *what, "--config-file", str(self.config)]
        return self.moorline(*words, code=code)

    def views(self) -> list[dict[str, Any]]:
        views = self.moorline.json("list", "--config-file", str(self.config))
        assert isinstance(views, list)
        return views

    def killed(self, action: str, at: int, fault: Fault) -> bool:
        """Run it to its effect number *at*; False if it has fewer."""
        attach = action == "attach"
        given = {
            "action": action,
            "guest": self.guest.name,
            "what": json.loads(self.connection.read_text()) if attach else ID,
            "state": str(self.state),
            "at": at,
            "fault": fault.name,
            "files": [str(self.config)],
        }
        ran = subprocess.run(
            [sys.executable, str(OWNER), json.dumps(given)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode in (0, KILLED), ran.stderr
        return ran.returncode == KILLED

    def mounts(self) -> int:
        table = Path("/proc/self/mountinfo").read_text()
        return table.count(f" - fuse.vstorage vstorage://{self.cluster.name} ")

    def check(self, attached: bool) -> None:
        """It is a disk in both halves and mounted once, or neither, and nothing is left."""
        assert self.mounts() == attached
        for flags in (0, 2):  # live, VIR_DOMAIN_XML_INACTIVE
            assert (f"ua-{ID}" in self.guest.domain.XMLDesc(flags)) == attached
        assert [(view["volume"], view["seen"]) for view in self.views()] == (
            [(ID, "attached")] if attached else []
        )
        mnt = self.state / "mnt"
        assert attached or not mnt.exists() or list(mnt.iterdir()) == []

    def forget_node(self) -> None:
        shutil.rmtree(host.VSTORAGE / "clusters", ignore_errors=True)


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
    printed += json.dumps(story.cluster.owner.calls()) + _command_lines()
    assert PASSWORD not in printed
    places = [host.VSTORAGE, story.state, Path("/var/log/libvirt")]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
    story.run("detach")


def _command_lines() -> str:
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_text() + (process / "environ").read_text())
        except OSError:
            continue
    return "".join(lines)


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
