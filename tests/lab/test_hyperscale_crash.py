"""The owner is killed around and in every call of os-brick; the next command converges.

Everything is real but the storage, which is the stand-in for HyperScale. Kills at the
effects that are not os-brick's are in test_every_real_effect.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from libvirt_rig import until

from lab.command import Moorline
from lab.hyperscale.installation import HyperScale, HyperScaleVolume
from moorline.testing.faults import Fault

OWNER = Path(__file__).with_name("owner.py")
KILLED = -9


class Story:
    """One volume and one guest, and what must be so."""

    def __init__(self, moorline: Moorline, product: HyperScale, domain: Any) -> None:
        assert moorline.state is not None
        self.moorline = moorline
        self.state = moorline.state
        self.product = product
        self.volume: HyperScaleVolume = product.volume()
        self.domain = domain
        self.file = self.state.with_name("connection.json")
        self.file.write_text(json.dumps(self.volume.connection()))

    def run(self, action: str) -> None:
        out, err = (process := self.start(action)).communicate(timeout=60)
        assert process.returncode == 0, out + err

    def start(self, action: str) -> subprocess.Popen[str]:
        if action == "detach":
            return self.moorline.start("detach", self.domain.name(), self.volume.id)
        return self.moorline.start("attach", self.domain.name(), "--connection", str(self.file))

    def killed(self, action: str, at: int, fault: Fault) -> bool:
        """Run it to its *at*-th call of os-brick; False if it has no more than that."""
        given = {
            "action": action,
            "guest": self.domain.name(),
            "what": self.volume.connection() if action == "attach" else self.volume.id,
            "state": str(self.state),
            "at": at,
            "fault": fault.name,
            "effects": ["call"],
        }
        command = [sys.executable, str(OWNER), json.dumps(given)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode in (0, KILLED), ran.stderr
        return ran.returncode == KILLED

    def check(self, *, attached: bool) -> None:
        """It is connected once and a disk, or nothing is left at all."""
        assert (self.volume.loop is not None) is attached
        assert self.volume.device.exists() is attached
        assert (f"ua-{self.volume.id}" in self.domain.XMLDesc(2)) is attached
        assert bool(list((self.state / "os-brick").glob("*"))) is attached
        views = self.moorline.json("list")
        assert [view["seen"] for view in views] == (["attached"] if attached else [])


@pytest.fixture
def story(moorline: Moorline, stopped: Any, lab: Path) -> Iterator[Story]:
    product = HyperScale(lab)
    yield Story(moorline, product, stopped)
    product.clear()


@pytest.mark.parametrize(
    ("fault", "again"),
    [(Fault.KILL_BEFORE, True), (Fault.KILL_AFTER, False)],
    ids=["before it, then again", "after it, then the opposite"],
)
@pytest.mark.parametrize(("action", "at"), [("attach", 0), ("attach", 1), ("detach", 0)])
def test_killed_at_every_call(
    story: Story, action: str, at: int, fault: Fault, again: bool, record_property: Any
) -> None:
    opposite = "detach" if action == "attach" else "attach"
    if action == "detach":
        story.run("attach")
    assert story.killed(action, at, fault)
    story.run(action if again else opposite)
    story.check(attached=(action if again else opposite) == "attach")
    record_property("real_crash_points", 1)


@pytest.mark.parametrize("action", ["attach", "detach"])
def test_killed_while_hscli_is_at_it(story: Story, action: str, record_property: Any) -> None:
    """hscli goes on, and nobody else touches the volume until it has ended."""
    if action == "detach":
        story.run("attach")
    slow = {"slow": 0.3, "slow_after": 0.5}
    story.volume.command(**(slow if action == "attach" else {"disconnect_volume": slow}))
    before = len(story.product.calls())
    command = story.start(action)
    until(lambda: len(story.product.calls()) > before)
    command.kill()
    command.communicate()
    story.volume.command()
    opposite = "detach" if action == "attach" else "attach"
    story.run(opposite)
    story.check(attached=opposite == "attach")
    record_property("real_crash_points", 1)
