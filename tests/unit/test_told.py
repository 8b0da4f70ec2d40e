"""What a caller is told of what was seen, and of what was not."""

from __future__ import annotations

import pytest

from moorline.errors import Failed
from moorline.model import DiskOptions, Level
from moorline.testing.toys import BASE
from tests.support.rig import Rig, connection

S1 = str(BASE / "s1")
ID = "3f2a9c4e-1111-4222-8333-abcdefabcdef"
SHARED = DiskOptions(shared=True)


def test_a_dry_run_says_what_it_could_not_look_at(rig: Rig) -> None:
    outcome = rig.owner().attachments.attach("g1", connection("a"), dry_run=True)
    assert outcome.steps == ["connect", "attach"]
    assert outcome.unseen == (f"the volume itself, its size and format: {S1} is not connected yet")
    rig.owner().attachments.attach("g2", connection("b"))
    assert rig.owner().attachments.attach("g1", connection("a"), dry_run=True).unseen == ""
    rig.world.hung.add("s1")
    assert (
        "does not answer"
        in rig.owner().attachments.attach("g1", connection("a"), dry_run=True).unseen
    )


def test_a_sweep_shows_what_a_list_shows(rig: Rig) -> None:
    rig.attachment("a", "g1", Level.ATTACHED)
    rig.attachment("b", "g1", Level.ATTACHED, share="s2")
    rig.attachment("c", "g2", Level.ATTACHED, share="s3")
    rig.world.missing.add(f"{S1}/a")  # refused once it is connected
    rig.world.passwords["s2"] = "another"  # fails before
    rig.world.mounts[str(BASE / "s3")] = "theirs"  # parked
    left = rig.owner().attachments.sweep()
    assert [view.seen for view in left] == ["connected", "absent", "foreign"]
    assert left == rig.owner().attachments.list()
    assert all(view.trouble for view in left[:2])


def test_a_try_that_is_repeated_is_told_in_one_line(rig: Rig) -> None:
    rig.world.hung.add("s1")
    told: list[str] = []
    with pytest.raises(Failed):
        rig.owner().attachments.attach("g1", connection("a"), timeout=1.5, progress=told.append)
    assert told[0] == "connecting volume a"
    assert len(told) > 2
    assert all("looking again in" in each for each in told[1:])
