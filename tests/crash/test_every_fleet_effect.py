"""Strike every effect of attach, migrate, drain, evacuate and return, whoever has it, once."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import pytest

from moorline.errors import MoorlineError
from moorline.fleet import keys
from moorline.fleet.fencing import fence
from moorline.fleet.record_store import Change
from moorline.fleet.records import Move
from moorline.model import GuestId
from moorline.testing.faults import Fault, Killed
from tests.support.toy_fleet import ToyFleet

HOSTS = ("h1", "h2", "h3")
G1 = GuestId("g1")
A, B = ("g1", "a"), ("g2", "b")
ENCRYPTION = {"provider": "luks", "key": "cmlnaHQ="}


class Strike(Enum):
    """What happens before or after an effect, besides what :class:`Fault` has."""

    CUT_OFF = "whoever has it is cut off"
    POWER = "its host loses its power, and boots later"


def attach(fleet: ToyFleet) -> None:
    fleet.attach("g1", "a")


def detach(fleet: ToyFleet) -> None:
    fleet.detach("g2", "b")


def migrate(fleet: ToyFleet) -> None:
    owner = fleet.person.owner(G1)
    assert owner is not None
    if owner.host != "h3" and fleet.person.move(G1) is None:
        change = Change()
        change.expect(keys.guest_owner(G1), owner)
        move = Move(guest=G1, source=owner.host, destination="h3")
        change.replace(keys.move(G1), None, move)
        fleet.person.commit(change)


def drain(fleet: ToyFleet) -> None:
    fleet.change_host("h2", draining=True, cordoned=True)


def evacuate(fleet: ToyFleet) -> None:
    """It returns at once, in the midst of its evacuation."""

    def switch_off() -> str:
        fleet.power_off("h2")
        return "switched off"

    record = fleet.person.host("h2")
    if record is not None and not record.fenced:
        fence(fleet.person, "h2", lambda *_: True, switch_off, "n")
    fleet.power_on("h2")


def evacuate_for_good(fleet: ToyFleet) -> None:
    """It returns when everything is done."""
    evacuate_it = fleet.power_on
    fleet.power_on = lambda name: None  # type: ignore[method-assign]
    try:
        evacuate(fleet)
        for _ in range(12):
            for name in HOSTS:
                fleet.agent_passes(name)
            fleet.controller_passes("c1")
    finally:
        fleet.power_on = evacuate_it  # type: ignore[method-assign]
    fleet.power_on("h2")


STORIES: list[tuple[Callable[[ToyFleet], None], set[tuple[str, str]]]] = [
    (attach, {A, B}),
    (detach, set()),
    (migrate, {B}),
    (drain, {B}),
    (evacuate, {B}),
    (evacuate_for_good, {B}),
]


@pytest.mark.parametrize("fault", [*Fault, *Strike], ids=lambda fault: fault.name)
@pytest.mark.parametrize(("story", "attached"), STORIES, ids=[s[0].__name__ for s in STORIES])
def test_every_effect(
    story: Callable[[ToyFleet], None],
    attached: set[tuple[str, str]],
    fault: Fault | Strike,
    record_property: Callable[[str, object], None],
) -> None:
    struck = n = 0
    while True:
        fleet = begun()
        strike = _prepared(fleet, fault, n)
        _repeated(fleet, story)
        for _ in range(6):
            _round(fleet)
        _healed(fleet)
        fleet.settle(rest=2)
        fleet.faults.plan()
        fleet.faults.meanwhile = None
        _healed(fleet)  # it may have struck just now
        _repeated(fleet, story)  # whoever was not told does it again
        fleet.settle(rest=2)
        fleet.check(dict.fromkeys(attached, "s1"))
        if not strike():
            break
        n, struck = n + 1, struck + 1
    record_property("crash_points", struck)
    assert struck > 5, f"{story.__name__} has few effects: {struck}"


def begun() -> ToyFleet:
    fleet = ToyFleet(HOSTS, {"g1": "h1", "g2": "h2"}, beats_count=False)
    fleet.settle(rest=2)
    fleet.attach("g2", "b", encryption=ENCRYPTION)
    fleet.settle(rest=2)
    return fleet


def _prepared(fleet: ToyFleet, fault: Fault | Strike, n: int) -> Callable[[], bool]:
    """Have *fault* strike the *n*-th effect from now on; return whether it did."""
    if isinstance(fault, Fault):
        fleet.faults.plan((n, fault))
        return lambda: fleet.faults.struck > 0
    fleet.faults.plan()
    happened: list[bool] = []

    def strike() -> None:
        happened.append(True)
        who = fleet.acting
        if fault is Strike.CUT_OFF and who in HOSTS:
            fleet.sites[who].line.cut = True
            fleet.centre.unreachable.add(who)
        elif fault is Strike.CUT_OFF:
            for line in fleet.controller_lines:
                line.cut = True
        elif who in HOSTS:
            fleet.power_off(who)
            raise Killed

    fleet.faults.meanwhile, fleet.faults.meanwhile_at = strike, n
    return lambda: bool(happened)


def _repeated(fleet: ToyFleet, story: Callable[[ToyFleet], None]) -> None:
    fleet.acting = "person"
    for _ in range(3):
        try:
            story(fleet)
        except (Killed, MoorlineError):
            continue
        return


def _round(fleet: ToyFleet) -> None:
    for name in HOSTS:
        fleet.agent_passes(name)
        fleet.heals(name)
    fleet.clocks["c1"] += 1.0
    fleet.controller_passes("c1")


def _healed(fleet: ToyFleet) -> None:
    fleet.centre.unreachable.clear()
    for line in fleet.controller_lines:
        line.cut = False
    for name, site in fleet.sites.items():
        site.line.cut = False
        fleet.power_on(name)
