"""What a host does about a guest, and how a move goes on: each row, and what never happens."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from moorline.fleet.plan import HostStep, MoveStep, SeenMove, Side, next_host_step, next_move_step
from moorline.fleet.records import Bring, Role
from moorline.ports.moving import Presence

A, S, R = Presence.ABSENT, Presence.STOPPED, Presence.RUNNING
SENT, IN, ARR = Presence.SENT, Presence.INCOMING, Presence.ARRIVED
NO = HostStep.NOTHING

HOST = [
    # role, in the order ABSENT STOPPED RUNNING SENT INCOMING ARRIVED
    (None, Bring.NOTHING, [NO] * 6),
    (
        Role.GONE,
        Bring.NOTHING,
        [NO, HostStep.UNDEFINE, *[HostStep.STOP] * 4],
    ),
    (
        Role.ARRIVING,
        Bring.NOTHING,
        [NO, HostStep.UNDEFINE, HostStep.STOP, HostStep.STOP, NO, NO],
    ),
    (
        Role.LEAVING,
        Bring.RUNNING,
        [NO, HostStep.UNDEFINE, HostStep.SEND, HostStep.RESUME, HostStep.STOP, HostStep.SEND],
    ),
    (
        Role.HERE,
        Bring.NOTHING,
        [NO, NO, NO, HostStep.RESUME, HostStep.STOP, HostStep.RESUME],
    ),
    (
        Role.HERE,
        Bring.DEFINED,
        [HostStep.DEFINE, NO, NO, HostStep.RESUME, HostStep.STOP, HostStep.RESUME],
    ),
    (
        Role.HERE,
        Bring.RUNNING,
        [HostStep.DEFINE, HostStep.START, NO, HostStep.RESUME, HostStep.STOP, HostStep.RESUME],
    ),
]


@pytest.mark.parametrize(("role", "bring", "steps"), HOST)
def test_what_a_host_does(role: Role | None, bring: Bring, steps: list[HostStep]) -> None:
    assert [next_host_step(role, bring, presence) for presence in Presence] == steps


@pytest.mark.parametrize("presence", Presence)
def test_what_was_promised_stands(presence: Presence) -> None:
    """But for a guest that is paused half-way: it is this host's still, and goes on."""
    step = next_host_step(Role.LEAVING, Bring.RUNNING, presence, promised=True)
    assert step is (HostStep.RESUME if presence is SENT else NO)


def test_a_guest_whose_definition_is_not_kept_stays_defined() -> None:
    assert next_host_step(Role.LEAVING, Bring.RUNNING, S, kept=False) is NO


def test_nothing_starts_and_nothing_resumes_but_where_the_guest_is_at_home() -> None:
    for role, bring, presence, kept, promised in product(
        [None, *Role], Bring, Presence, [True, False], [True, False]
    ):
        step = next_host_step(role, bring, presence, kept=kept, promised=promised)
        if step is HostStep.START or (step is HostStep.RESUME and presence is ARR):
            assert role is Role.HERE


READY = Side(Role.ARRIVING, A, ready=True)
HERE, LEAVING = Side(Role.HERE, R), Side(Role.LEAVING, R)
WENT = Side(Role.LEAVING, A)
FENCED = Side(Role.HERE, R, silent=True, fenced=True)
SILENT = Side(Role.ARRIVING, silent=True)

MOVES = [
    ("to begin", SeenMove(HERE, Side()), MoveStep.PREPARE),
    ("nobody there", SeenMove(HERE, Side(silent=True)), MoveStep.WAIT),
    ("fenced there", SeenMove(HERE, Side(fenced=True)), MoveStep.FORGET),
    ("a disk on its way out", SeenMove(HERE, Side(), blocked=True), MoveStep.WAIT),
    ("dead, a disk on its way", SeenMove(FENCED, Side(), blocked=True), MoveStep.PREPARE),
    ("one is its host's own", SeenMove(HERE, Side(), kept=True), MoveStep.FORGET),
    ("another has its id", SeenMove(HERE, Side(another=True)), MoveStep.FORGET),
    ("by then another has", SeenMove(HERE, Side(Role.ARRIVING, S, another=True)), MoveStep.BACK),
    ("dead, another has", SeenMove(FENCED, replace(READY, another=True)), MoveStep.BACK),
    ("dead, not heard there", SeenMove(FENCED, replace(READY, state=None)), MoveStep.CALL),
    ("given up at once", SeenMove(HERE, Side(), given_up=True), MoveStep.FORGET),
    ("of an earlier stay", SeenMove(HERE, Side(Role.GONE)), MoveStep.WAIT),
    ("not ready", SeenMove(HERE, Side(Role.ARRIVING)), MoveStep.WAIT),
    ("links not there", SeenMove(HERE, Side(Role.ARRIVING, A)), MoveStep.WAIT),
    ("ready", SeenMove(HERE, READY), MoveStep.SEND),
    ("a copy is there", SeenMove(HERE, replace(READY, state=ARR)), MoveStep.WAIT),
    ("refused", SeenMove(HERE, replace(READY, error="refused")), MoveStep.BACK),
    ("failed: again", SeenMove(HERE, replace(READY, error="failed")), MoveStep.WAIT),
    ("cut off before", SeenMove(HERE, SILENT), MoveStep.BACK),
    ("given up before", SeenMove(HERE, READY, given_up=True), MoveStep.BACK),
    ("by then one is its host's own", SeenMove(HERE, READY, kept=True), MoveStep.BACK),
    ("dead, one its own", SeenMove(FENCED, READY, kept=True), MoveStep.BACK),
    ("went, one its host's own", SeenMove(WENT, READY, kept=True), MoveStep.HAND_OVER),
    ("under way", SeenMove(LEAVING, READY), MoveStep.WAIT),
    ("given up under way", SeenMove(LEAVING, READY, given_up=True), MoveStep.WAIT),
    ("destination cut off", SeenMove(LEAVING, SILENT), MoveStep.WAIT),
    ("not heard yet", SeenMove(Side(Role.LEAVING), READY), MoveStep.WAIT),
    ("stays", SeenMove(replace(LEAVING, error="failed"), READY), MoveStep.BACK),
    ("went, not ready", SeenMove(WENT, Side(Role.ARRIVING, A)), MoveStep.CALL),
    ("no answer yet", SeenMove(WENT, Side(Role.ARRIVING), called=True), MoveStep.WAIT),
    ("arrived", SeenMove(WENT, Side(Role.ARRIVING, ARR)), MoveStep.HAND_OVER),
    ("stopped, or told later", SeenMove(WENT, READY), MoveStep.HAND_OVER),
    ("links failed", SeenMove(WENT, Side(Role.ARRIVING, A), called=True), MoveStep.WAIT),
    ("lost on the way", SeenMove(WENT, SILENT), MoveStep.BACK),
    ("given up late", SeenMove(WENT, READY, given_up=True), MoveStep.HAND_OVER),
    (
        "given up, not ready",
        SeenMove(WENT, Side(Role.ARRIVING, A), called=True, given_up=True),
        MoveStep.BACK,
    ),
    (
        "refused, and asked whether it came",
        SeenMove(WENT, Side(Role.ARRIVING, A, "refused"), called=True),
        MoveStep.BACK,
    ),
    ("dead", SeenMove(FENCED, READY), MoveStep.HAND_OVER),
    ("both dead", SeenMove(FENCED, replace(SILENT, fenced=True)), MoveStep.BACK),
    ("done", SeenMove(HERE, READY, "destination"), MoveStep.FORGET),
    ("another's", SeenMove(HERE, READY, "other"), MoveStep.FORGET),
]


@pytest.mark.parametrize(("seen", "step"), [row[1:] for row in MOVES], ids=[r[0] for r in MOVES])
def test_how_a_move_goes_on(seen: SeenMove, step: MoveStep) -> None:
    assert next_move_step(seen) is step


def sides() -> list[Side]:
    return [
        Side(role, state, error, ready, silent, fenced)
        for role, state, error, ready, silent, fenced in product(
            [None, *Role], [None, *Presence], ["", "failed", "refused"], *[[False, True]] * 3
        )
    ]


def test_what_never_happens() -> None:
    """Whatever both sides say: nothing is taken from a source that may have the guest still."""
    flags = list(product([False, True], repeat=3))
    # What is not asked about the other side does not multiply the cases.
    some = [READY, Side(), SILENT, Side(Role.ARRIVING, ARR), Side(Role.GONE), FENCED]
    for source, destination in [*product(sides(), some), *product([*some, HERE, WENT], sides())]:
        for called, given_up, blocked in flags:
            seen = SeenMove(source, destination, "source", called, given_up, blocked)
            step = next_move_step(seen)
            without = source.fenced or (source.role is Role.LEAVING and source.state is A)
            if step is MoveStep.HAND_OVER:
                assert without
                assert not destination.silent
                assert not destination.fenced
            if step is MoveStep.BACK and without and not (destination.silent or destination.fenced):
                assert called, "its memory may have arrived"
                assert destination.state is not ARR
            if step is MoveStep.BACK and source.role is Role.LEAVING and not source.fenced:
                assert without or source.error
            if step in (MoveStep.HAND_OVER, MoveStep.BACK):
                assert destination.role is Role.ARRIVING
            if step is MoveStep.SEND:
                assert destination.ready
                assert destination.state is A
