"""The loop beside callers: what a caller drives is the caller's, and he is told all steps."""

from __future__ import annotations

import threading
import time

import pytest

from moorline.core.plan import Step
from moorline.deadline import Deadline
from moorline.errors import Failed, Refused
from moorline.model import Level
from moorline.testing.toys import BASE
from tests.support.rig import Rig
from tests.support.toy_loop import G1, Loop, until


class Call:
    """An attach in a thread of its own."""

    def __init__(self, loop: Loop, volume: str = "v1", timeout: float = 10.0) -> None:
        self.steps: list[str] = []
        self.told: list[str] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(loop, volume, timeout))
        self._thread.start()

    def _run(self, loop: Loop, volume: str, timeout: float) -> None:
        attach = loop.facade.attachments.attach
        try:
            outcome = attach(
                "g1", "toy://s1/f", volume=volume, timeout=timeout, progress=self.told.append
            )
            self.steps = [*outcome.steps]
        except Failed as e:
            self.error = e

    def ends(self) -> Call:
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self


def test_a_call_that_takes_its_time_tells_all_of_its_steps(rig: Rig, loop: Loop) -> None:
    loop.start()
    loop.share.open.clear()
    call = Call(loop)
    until(lambda: loop.share.connecting)
    # Whatever the loop hears meanwhile, it leaves to the caller.
    for _ in range(3):
        loop.hand.wake(G1)
        loop.controller.wake()
        time.sleep(0.15)
    assert not [thread for thread in threading.enumerate() if thread.name == "worker"]
    loop.share.open.set()
    assert call.ends().steps == ["connect", "attach"]
    assert loop.has(G1, "v1")
    loop.settles()


def test_steps_of_the_loops_are_told_to_the_call_that_waits_for_them(rig: Rig, loop: Loop) -> None:
    loop.share.open.clear()
    rig.attachment("v1", "g1", Level.ATTACHED)
    loop.start()
    until(lambda: loop.share.connecting)  # the loop's own
    (row,) = rig.records.all()
    steps: list[Step] = []

    def waits() -> None:
        steps.extend(loop.driver.settle(row, Deadline(10.0))[0])

    caller = threading.Thread(target=waits)
    caller.start()
    until(lambda: loop.claims.pending())
    loop.share.open.set()
    caller.join(10)
    assert steps == [Step.CONNECT, Step.ATTACH]


def test_two_callers_of_one_attachment_are_told_the_same(rig: Rig, loop: Loop) -> None:
    loop.start()
    loop.share.open.clear()
    first = Call(loop)
    until(lambda: loop.share.connecting)
    made = loop.claims.made
    second = Call(loop)
    until(lambda: loop.claims.made > made)
    loop.share.open.set()
    assert first.ends().steps == ["connect", "attach"]
    assert second.ends().steps == ["connect", "attach"]
    assert loop.share.connecting == 1


def test_what_a_call_gave_up_is_gone_on_with_unasked(rig: Rig, loop: Loop) -> None:
    loop.start()
    until(lambda: not loop.controller.pending())
    rig.world.hung.add("s1")
    assert Call(loop, timeout=0.3).ends().error
    rig.world.hung.clear()
    until(lambda: loop.has(G1, "v1"))
    loop.settles()


def test_what_a_call_drives_is_told_as_pending(rig: Rig, loop: Loop) -> None:
    loop.start()
    rig.world.hung.add("s1")
    call = Call(loop)
    until(lambda: [each.tries for each in loop.controller.pending() if each.tries > 1])
    (pending,) = loop.controller.pending()
    assert pending.key.volume == "v1"
    assert pending.running
    assert "s1" in pending.why
    rig.world.hung.clear()
    assert call.ends().error is None
    loop.settles()


def test_a_refused_attachment_is_withdrawn_and_the_loop_has_not_touched_it(
    rig: Rig, loop: Loop
) -> None:
    loop.start()
    rig.world.missing.add(str(BASE / "s1" / "f"))
    with pytest.raises(Refused):
        loop.facade.attachments.attach("g1", "toy://s1/f", volume="v1")
    assert not rig.records.all()
    loop.settles()
    assert not rig.world.mounts
