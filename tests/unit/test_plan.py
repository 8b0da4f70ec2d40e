"""next_step(): every case of it, and what it never does."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from moorline.core.own_disk import diverged
from moorline.core.plan import Step, foresee, next_step
from moorline.core.reconciler import reason
from moorline.core.views import state_of
from moorline.model import (
    BlockDevice,
    Broken,
    Client,
    Disk,
    DiskState,
    Foreign,
    Held,
    ImageFile,
    Level,
    Link,
    Linked,
    Seen,
    Unknown,
    Unlinked,
)

SOURCE = ImageFile(Path("/mnt/share/disk"), "raw")
LINKED, GIVEN = Linked(SOURCE), Linked(SOURCE, given=True)
UNLINKED, BROKEN = Unlinked(), Broken("dead")
DEAD, FAILING = Broken("dead", Client.GONE), Broken("its server is away", Client.ALIVE)
CUT_OFF = Broken("aborted, and its client still writes", Client.CUT_OFF)
FOREIGN, UNKNOWN = Foreign("theirs"), Unknown("hangs")
BUSY = Unknown("a command still runs", hangs=False)
LINKS: list[Link] = [
    LINKED,
    GIVEN,
    UNLINKED,
    BROKEN,
    DEAD,
    FAILING,
    CUT_OFF,
    FOREIGN,
    UNKNOWN,
    BUSY,
]
NONE, PARTIAL, WHOLE, LEAVING = DiskState
FREE, HELD, DONT_KNOW = Held
ABSENT, CONNECTED, ATTACHED = Level

CASES = [
    # what is wanted, the link, the disk, held: the step
    # Nothing is done to what cannot be looked at, or is on its way.
    (ATTACHED, UNKNOWN, NONE, FREE, Step.WAIT),
    (ABSENT, UNKNOWN, WHOLE, FREE, Step.WAIT),
    (ATTACHED, BUSY, NONE, FREE, Step.WAIT),
    (ABSENT, BUSY, NONE, FREE, Step.WAIT),
    (ABSENT, LINKED, LEAVING, FREE, Step.WAIT),
    (ATTACHED, LINKED, LEAVING, FREE, Step.WAIT),
    # A disk that is not wanted goes first, whatever became of the link.
    (ABSENT, LINKED, WHOLE, FREE, Step.DETACH),
    (ABSENT, LINKED, PARTIAL, FREE, Step.DETACH),
    (CONNECTED, LINKED, WHOLE, FREE, Step.DETACH),
    (ABSENT, BROKEN, WHOLE, HELD, Step.DETACH),
    (ABSENT, FOREIGN, WHOLE, FREE, Step.DETACH),
    (ABSENT, BUSY, WHOLE, FREE, Step.DETACH),
    (ABSENT, UNLINKED, PARTIAL, FREE, Step.DETACH),
    # What is someone else's is for a person.
    (ATTACHED, FOREIGN, NONE, FREE, Step.PARK),
    (CONNECTED, FOREIGN, NONE, FREE, Step.PARK),
    (ABSENT, FOREIGN, NONE, FREE, Step.PARK),
    # The last user takes the link away; unknown counts as in use.
    (ABSENT, LINKED, NONE, FREE, Step.DISCONNECT),
    (ABSENT, LINKED, NONE, HELD, Step.FORGET),
    (ABSENT, LINKED, NONE, DONT_KNOW, Step.WAIT),
    (ABSENT, BROKEN, NONE, FREE, Step.DISCONNECT),
    (ABSENT, BROKEN, NONE, HELD, Step.FORGET),
    (ABSENT, BROKEN, NONE, DONT_KNOW, Step.WAIT),
    (ABSENT, UNLINKED, NONE, DONT_KNOW, Step.FORGET),
    (ABSENT, GIVEN, NONE, FREE, Step.FORGET),
    (ABSENT, GIVEN, NONE, DONT_KNOW, Step.FORGET),
    # A broken link is renewed, never under a running guest.
    (ATTACHED, BROKEN, NONE, FREE, Step.DISCONNECT),
    (ATTACHED, BROKEN, WHOLE, FREE, Step.DISCONNECT),
    (ATTACHED, BROKEN, WHOLE, HELD, Step.PARK),
    (ATTACHED, BROKEN, NONE, HELD, Step.PARK),
    (CONNECTED, BROKEN, NONE, DONT_KNOW, Step.WAIT),
    # What is dead is dead for everybody: made anew for those who start now.
    (ATTACHED, DEAD, WHOLE, HELD, Step.DISCONNECT),
    (ATTACHED, DEAD, NONE, HELD, Step.DISCONNECT),
    (CONNECTED, DEAD, NONE, DONT_KNOW, Step.DISCONNECT),
    (CONNECTED, DEAD, WHOLE, HELD, Step.DETACH),
    (ABSENT, DEAD, NONE, HELD, Step.FORGET),
    (ABSENT, DEAD, NONE, DONT_KNOW, Step.WAIT),
    (ABSENT, DEAD, NONE, FREE, Step.DISCONNECT),
    # A client that lives may answer again by itself.
    (ATTACHED, FAILING, WHOLE, HELD, Step.WAIT),
    (ATTACHED, FAILING, NONE, HELD, Step.WAIT),
    (CONNECTED, FAILING, NONE, DONT_KNOW, Step.WAIT),
    (ATTACHED, FAILING, WHOLE, FREE, Step.WAIT),
    (ABSENT, FAILING, NONE, FREE, Step.DISCONNECT),
    (ATTACHED, CUT_OFF, WHOLE, HELD, Step.WAIT),
    (CONNECTED, CUT_OFF, NONE, FREE, Step.WAIT),
    (ABSENT, CUT_OFF, NONE, FREE, Step.DISCONNECT),
    # Up the ladder.
    (CONNECTED, UNLINKED, NONE, DONT_KNOW, Step.CONNECT),
    (ATTACHED, UNLINKED, NONE, DONT_KNOW, Step.CONNECT),
    (ATTACHED, UNLINKED, WHOLE, DONT_KNOW, Step.CONNECT),
    (ATTACHED, LINKED, NONE, DONT_KNOW, Step.ATTACH),
    (ATTACHED, LINKED, PARTIAL, DONT_KNOW, Step.ATTACH),
    (ATTACHED, GIVEN, NONE, DONT_KNOW, Step.ATTACH),
    # There.
    (CONNECTED, LINKED, NONE, DONT_KNOW, Step.NOTHING),
    (ATTACHED, LINKED, WHOLE, DONT_KNOW, Step.NOTHING),
]


@pytest.mark.parametrize(("want", "link", "disk", "held", "step"), CASES)
def test_case(want: Level, link: Link, disk: DiskState, held: Held, step: Step) -> None:
    assert next_step(want, Seen(link, Disk(disk), held)) is step


def test_a_disk_of_other_limits_is_limited_once_it_is_whole_and_ours() -> None:
    seen = Seen(LINKED, Disk(WHOLE), other_limits=True)
    assert next_step(ATTACHED, seen) is Step.LIMIT
    assert foresee(ATTACHED, seen) == [Step.LIMIT]
    assert next_step(ATTACHED, replace(seen, disk=Disk(PARTIAL))) is Step.ATTACH
    assert next_step(ATTACHED, replace(seen, elsewhere="another")) is Step.PARK
    assert next_step(ABSENT, seen) is Step.DETACH
    assert next_step(ATTACHED, replace(seen, link=UNLINKED)) is Step.CONNECT


def test_a_disk_on_another_path_is_not_taken_for_ours() -> None:
    seen = Seen(LINKED, Disk(WHOLE, source="/elsewhere"), elsewhere="it is /elsewhere")
    assert next_step(ATTACHED, seen) is Step.PARK
    assert next_step(ABSENT, seen) is Step.DETACH


@pytest.mark.parametrize("state", [WHOLE, PARTIAL])
def test_a_disk_on_a_mount_that_is_no_more_is_not_made_whole(state: DiskState) -> None:
    """What is missing would be plugged beside a half that has lost its file."""
    disk = Disk(state, source=str(SOURCE.path), stale="open on a mount that is no more")
    seen = Seen(LINKED, disk, elsewhere=disk.stale)
    assert next_step(ATTACHED, seen) is Step.PARK
    assert reason(Step.PARK, seen) == disk.stale
    assert state_of(seen) == "broken"
    for want in (CONNECTED, ABSENT):
        assert next_step(want, seen) is Step.DETACH
    # The mount first: who starts now needs it.
    assert next_step(ATTACHED, replace(seen, link=DEAD)) is Step.DISCONNECT


@pytest.mark.parametrize("state", [WHOLE, PARTIAL])
def test_a_disk_that_holds_what_the_volume_does_not_is_never_taken(state: DiskState) -> None:
    disk = Disk(state, source="/copy")
    seen = Seen(LINKED, disk, FREE, elsewhere="it is /copy", diverged=True)
    for want in Level:
        assert next_step(want, seen) is Step.PARK
    assert reason(Step.PARK, seen).startswith("it is /copy: what the guest writes is there alone")
    assert state_of(seen) == ("foreign" if state is WHOLE else "partial")
    assert next_step(ABSENT, replace(seen, disk=Disk(NONE))) is not Step.PARK


AT = str(SOURCE.path)
NODE = Linked(BlockDevice(Path("/dev/volume")))


@pytest.mark.parametrize(
    ("link", "disk", "told"),
    [
        (LINKED, Disk(WHOLE, source=AT), False),
        (LINKED, Disk(WHOLE, source=""), False),
        (LINKED, Disk(WHOLE, source="/copy"), True),
        (LINKED, Disk(WHOLE, source=AT, replaced="it was deleted"), True),
        (LINKED, Disk(PARTIAL, source="/copy"), True),
        (NODE, Disk(WHOLE, source="/copy"), True),
        # A snapshot, or perhaps one, is told by itself.
        (LINKED, Disk(WHOLE, source="/above", beneath=(AT,)), False),
        (LINKED, Disk(WHOLE, source="/above", beneath=None), False),
        # A device has several names.
        (NODE, Disk(WHOLE, source="/dev/dm-3"), False),
        # What is open on a mount that is no more is lost, or reachable where it is.
        (LINKED, Disk(WHOLE, source=AT, stale="on a mount that is no more"), False),
        # What cannot be looked at is not compared: it must be possible to let it go.
        (DEAD, Disk(WHOLE, source=AT, replaced="it was deleted"), False),
        (UNKNOWN, Disk(WHOLE, source=AT, replaced="it was deleted"), False),
        (UNLINKED, Disk(WHOLE, source="/copy"), False),
    ],
)
def test_what_counts_as_another_file(link: Link, disk: Disk, told: bool) -> None:
    assert diverged(link, disk) is told


@pytest.mark.parametrize("snapshot", [True, None])
@pytest.mark.parametrize("state", [WHOLE, PARTIAL])
@pytest.mark.parametrize("link", LINKS)
def test_a_disk_above_its_volume_is_never_taken_nor_made_whole(
    link: Link, state: DiskState, snapshot: bool | None
) -> None:
    seen = Seen(link, Disk(state, source="/above"), FREE, snapshot=snapshot)
    for want in Level:
        assert next_step(want, seen) not in (Step.DETACH, Step.FORGET)
    if isinstance(link, Linked):
        assert next_step(ABSENT, seen) is Step.PARK
        assert next_step(CONNECTED, seen) is Step.PARK
    if isinstance(link, Linked) and snapshot:
        assert next_step(ATTACHED, seen) is (Step.NOTHING if state is WHOLE else Step.PARK)


@pytest.mark.parametrize(
    ("want", "link", "state", "held"), list(itertools.product(Level, LINKS, DiskState, Held))
)
def test_it_is_total_and_safe(want: Level, link: Link, state: DiskState, held: Held) -> None:
    step = next_step(want, Seen(link, Disk(state), held))
    if step is Step.DISCONNECT:
        assert held is Held.FREE or (link is DEAD and want > ABSENT)
        assert isinstance(link, Linked | Broken)
        assert not isinstance(link, Linked) or state is NONE
    if step is Step.ATTACH:
        assert isinstance(link, Linked)
        assert want is ATTACHED
    if step is Step.FORGET:
        assert want is ABSENT
        assert state is NONE
    if step is Step.DETACH:
        assert want < ATTACHED


@pytest.mark.parametrize(
    ("want", "link", "state", "held"), list(itertools.product(Level, LINKS, DiskState, Held))
)
def test_foreseeing_ends(want: Level, link: Link, state: DiskState, held: Held) -> None:
    steps = foresee(want, Seen(link, Disk(state), held))
    assert len(steps) <= 4
    assert Step.NOTHING not in steps


def test_it_foresees_the_way_up_and_down() -> None:
    assert foresee(ATTACHED, Seen(UNLINKED)) == [Step.CONNECT, Step.ATTACH]
    down = Seen(LINKED, Disk(WHOLE), FREE)
    assert foresee(ABSENT, down) == [Step.DETACH, Step.DISCONNECT, Step.FORGET]
