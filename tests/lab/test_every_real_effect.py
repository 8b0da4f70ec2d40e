"""The owner is killed before and after every effect, on real libvirt, QEMU and FUSE.

Each command of a short story is run to its n-th effect and killed there, for
every n. Then either the same command is given again, or the opposite one; both
must end as if nothing had happened.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.command import Moorline
from lab.guest import Guest
from lab.quobyte.cluster import Quobyte, QuobyteVolume
from moorline.testing.faults import Fault

OWNER = Path(__file__).with_name("owner.py")
A, B = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
KILLED = -9
MAX_EFFECTS = 12


class Story:
    """Two volumes of one share, on two guests, and what must be so."""

    def __init__(
        self, moorline: Moorline, share: QuobyteVolume, first: Guest, second: Guest
    ) -> None:
        self.moorline = moorline
        self.share = share
        self.guests = {A: first, B: second}
        for volume in (A, B):
            share.disk(volume)

    def connection(self, volume: str) -> dict[str, Any]:
        return self.share.connection(volume, volume_id=volume)

    def run(self, action: str, volume: str) -> None:
        process = self.start(action, volume)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err

    def start(self, action: str, volume: str) -> subprocess.Popen[str]:
        name = self.guests[volume].name
        if action == "detach":
            return self.moorline.start("detach", name, volume)
        file = self.moorline.state.with_name(f"{volume}.json")
        file.write_text(json.dumps(self.connection(volume)))
        return self.moorline.start("attach", name, "--connection", str(file))

    def killed(self, action: str, volume: str, at: int, fault: Fault) -> bool:
        """Run it to its effect number *at*; False if it has fewer."""
        given = {
            "action": action,
            "guest": self.guests[volume].name,
            "what": self.connection(volume) if action == "attach" else volume,
            "state": str(self.moorline.state),
            "at": at,
            "fault": fault.name,
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

    def check(self, *attached: str) -> None:
        """Exactly *attached* are disks, in both halves; the share is mounted if need be, once."""
        mounts = Path("/proc/self/mountinfo").read_text().count(f"/{self.share.name} rw,")
        assert mounts == (1 if attached else 0)
        for volume, guest in self.guests.items():
            for flags in (0, 2):  # live, VIR_DOMAIN_XML_INACTIVE
                there = f"ua-{volume}" in guest.domain.XMLDesc(flags)
                assert there == (volume in attached), (volume, flags)
        views = self.moorline.json("list")
        assert sorted(view["volume"] for view in views) == sorted(attached)
        assert all(view["seen"] == view["wanted"] == "attached" for view in views)


@pytest.fixture
def story(moorline: Moorline, share: QuobyteVolume, guest: Guest, second_guest: Guest) -> Story:
    return Story(moorline, share, guest, second_guest)


STEPS = [
    # command, with what before it, what is so after it, and how many effects it has at least
    ("attach", A, [], [A], 3),
    ("attach", B, [A], [A, B], 2),
    ("detach", A, [A, B], [B], 3),
    ("detach", A, [A], [], 4),
]


@pytest.mark.parametrize("again", [True, False], ids=["again", "opposite"])
@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER])
@pytest.mark.parametrize(
    ("action", "volume", "before", "after", "effects"),
    STEPS,
    ids=["first attach", "second attach", "detach of two", "last detach"],
)
def test_killed_at_every_effect(
    story: Story,
    action: str,
    volume: str,
    before: list[str],
    after: list[str],
    effects: int,
    fault: Fault,
    again: bool,
    record_property: Any,
) -> None:
    opposite = "detach" if action == "attach" else "attach"
    for each in before:
        story.run("attach", each)
    points = 0
    for at in range(MAX_EFFECTS):
        if not story.killed(action, volume, at, fault):
            break
        points += 1
        story.run(action if again else opposite, volume)
        story.check(*(after if again else before))
        for each in (A, B):
            wanted = each in before
            if wanted != (each in (after if again else before)):
                story.run("attach" if wanted else "detach", each)
        story.check(*before)
    else:
        pytest.fail(f"{action} has more than {MAX_EFFECTS} effects")
    record_property("real_crash_points", points)
    assert points >= effects
    for each in (A, B):
        story.run("detach", each)
    story.check()


@pytest.mark.parametrize("delay", [0.05 * n for n in range(2, 14, 2)], ids=lambda d: f"{d:.2f}s")
def test_killed_at_any_time(
    story: Story, quobyte: Quobyte, delay: float, record_property: Any
) -> None:
    quobyte.command(story.share.name, slow=0.2)
    for action, after in (("attach", [A]), ("detach", [])):
        command = story.start(action, A)
        time.sleep(delay)
        command.kill()
        command.communicate()
        story.run(action, A)
        story.check(*after)
    record_property("real_crash_points", 2)
