"""Every step meets every family of errors, before and after the deed, and is repeated."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest

from moorline.api import Moorline
from moorline.core.locks import Locks
from moorline.core.plan import Step
from moorline.core.reconciler import Reconciler
from moorline.core.took import Took
from moorline.errors import Failed, MoorlineError, NotOurs, Refused, Uncertain
from moorline.model import DiskOptions, GuestId, Level, VolumeId
from moorline.testing.toys import BASE, ToyHypervisor, ToyShare
from tests.support.environment import bare
from tests.support.rig import Rig

FAMILIES = (Refused, Failed, Uncertain, NotOurs)
CALLS = {
    Step.CONNECT: "connect",
    Step.ATTACH: "attach",
    Step.DETACH: "detach",
    Step.DISCONNECT: "disconnect",
    Step.LIMIT: "limit",
    Step.RENEW: "renew",
    Step.UNLOCK: "give_key",
    Step.FORGET: "disconnect",  # of what somebody unmounted: what is left there goes
}
DATA = {"share": "s1", "name": "a", "volume_id": "a"}
CONNECTION = {"driver_volume_type": "toy", "data": DATA}
LUKS = {
    "driver_volume_type": "toy",
    "data": {**DATA, "format": "luks"},
    "encryption": {"provider": "luks", "key": base64.b64encode(b"right").decode()},
}
GOING = (Step.DETACH, Step.DISCONNECT, Step.FORGET)
HELD = ("a", "g1")


@dataclass
class Strike:
    """Lets one call of *name* end in *family*; *done*: after it did what it was to do."""

    name: str
    family: type[MoorlineError]
    done: bool
    struck: int = 0

    def before(self, inner: object) -> Any:
        if not hasattr(inner, self.name):
            return inner
        struck, do = copy(inner), getattr(inner, self.name)
        setattr(struck, self.name, lambda *args: self.call(do, *args))
        return struck

    def call(self, do: Callable[..., Any], *args: Any) -> Any:
        if self.struck:
            return do(*args)
        self.struck += 1
        if self.done:
            do(*args)
        raise self.family("a fault that was planned")


@dataclass
class Stage:
    rig: Rig = field(default_factory=lambda: Rig("g1"))
    met: Counter[tuple[Step, type[MoorlineError] | None]] = field(default_factory=Counter)

    def owner(self, strike: Strike) -> Moorline:
        toy = ToyHypervisor(self.rig.world)
        renewal = strike.before(toy.disk_renewal())
        hypervisor = strike.before(toy)
        hypervisor.disk_renewal = lambda: renewal
        reconciler = Reconciler(
            self.rig.records,
            {"toy": strike.before(ToyShare(self.rig.world))},
            hypervisor,
            Locks(patience=1.0),
            self._count,
        )
        return Moorline(self.rig.records, reconciler, hypervisor, environment=bare())

    def _count(self, took: Took) -> None:
        self.met[took.step, type(took.error) if took.error else None] += 1

    def begin(self, step: Step) -> None:
        """Bring it to where *step* is the next, or comes soon."""
        self.rig.world.write_through = {"s1"} if step is Step.RENEW else set()
        if step in (Step.CONNECT, Step.ATTACH):
            return
        if step in (Step.RENEW, Step.UNLOCK):
            self.rig.world.opened_by["/toy/s1/a"] = b"right"
            self.ask(step, self.owner(Strike("none", Failed, False)))
        else:
            self.rig.attachment("a", "g1", Level.ATTACHED)
        self.rig.settle()
        if step is Step.RENEW:
            self.rig.world.dead.add("s1")
            self.rig.world.guests[GuestId("g1")].waits = True
        if step is Step.UNLOCK:
            self.rig.world.keys.clear()  # libvirtd was restarted
        if step is Step.FORGET:
            guest = self.rig.world.guests[GuestId("g1")]
            for half in (guest.live, guest.defined):
                half.pop(VolumeId("a"))
            self.rig.world.mounts.pop(str(BASE / "s1"))

    def ask(self, step: Step, owner: Moorline) -> None:
        if step in (Step.CONNECT, Step.ATTACH, Step.RENEW):
            owner.attachments.attach("g1", CONNECTION, timeout=0)
        elif step is Step.UNLOCK:
            owner.attachments.attach("g1", LUKS, timeout=0)
        elif step is Step.LIMIT:
            owner.attachments.set("g1", "a", DiskOptions(total_iops_sec=500), timeout=0)
        else:
            owner.attachments.detach("g1", "a", timeout=0)


CASES = [
    *((step, family, False) for step, family in product(CALLS, FAMILIES)),
    *((step, Uncertain, True) for step in CALLS),
]


@pytest.mark.parametrize(("step", "family", "done"), CASES)
def test_a_step_that_ends_in_an_error_says_so_and_can_be_repeated(
    step: Step, family: type[MoorlineError], done: bool
) -> None:
    stage = Stage()
    stage.begin(step)
    strike = Strike(CALLS[step], family, done)
    coming, stood = step not in GOING, step not in (Step.CONNECT, Step.ATTACH)
    error: MoorlineError | None = None
    for _ in range(6):  # each call takes what steps it can without waiting
        error = stage.rig.survive(lambda: stage.ask(step, stage.owner(strike)))
        if strike.struck:
            break
        stage.rig.world.tick()
    assert stage.met[step, family] == 1, "the step did not meet the error"
    assert type(error) is family
    assert "a fault that was planned" in str(error)
    attachments = [row.want for row in stage.rig.records.all()]
    # A new attachment that is refused is withdrawn, and so is a detach of which nothing was done;
    # every other one stands until it is as wanted.
    stands = [] if not stood and family is Refused else [Level.ATTACHED if coming else Level.ABSENT]
    if (step, family) == (Step.DETACH, Refused):
        stands = [Level.ATTACHED]
    assert attachments == stands
    if coming and family is not Refused:
        # A change of limits that a person has to decide about first is withdrawn, and all is well.
        withdrawn = (step, family) == (Step.LIMIT, NotOurs)
        assert withdrawn is not bool(stage.rig.records.trouble(stage.rig.records.all()[0].key))
    for _ in range(6):
        stage.rig.survive(lambda: stage.ask(step, stage.owner(strike)))
        stage.rig.world.tick()
    stage.rig.check({HELD: Level.ATTACHED if coming else Level.ABSENT})
    assert not stage.rig.world.guests[GuestId("g1")].waits
    if step is Step.LIMIT:
        has = stage.rig.world.guests[GuestId("g1")].limits
        assert has == {VolumeId("a"): (("total_iops_sec", 500),)}


def test_every_step_meets_every_family() -> None:
    """What is listed is what there is: a new step or family needs its row."""
    idle = {Step.NOTHING, Step.WAIT, Step.PARK}
    assert set(CALLS) == set(Step) - idle
    ours = [kind for kind in MoorlineError.__subclasses__() if kind.__module__ == "moorline.errors"]
    assert set(FAMILIES) == set(ours)
    assert {(step, family) for step, family, _ in CASES} == set(product(CALLS, FAMILIES))
