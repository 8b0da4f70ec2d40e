"""Migrate, drain, evacuate and return on real hosts: whoever has an effect is struck, once at each.

``make test-fleet-kills`` takes some hours. Toys: ``tests/crash/test_every_fleet_effect.py``.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import libvirt
import pytest
from conftest import GUESTS
from fleet_mortal import AFTER, BEFORE, CUT, KILL, LEADER, LIBVIRTD
from fleet_struck import LONG, Raised, Struck, blow

from lab import leftovers
from lab.demo import until
from lab.etcd import Missing
from lab.fleet.site import BOOT_SECONDS, Fleet, Watch
from tests.support.missing import missing

MORTAL = Path(__file__).with_name("fleet_mortal.py")
EVERY = int(os.environ.get("MOORLINE_FLEET_EVERY", "1"))
"""Of so many effects one is struck."""
FEWEST = 3
MOST = 80
pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.skipif("MOORLINE_FLEET_EVERY" not in os.environ, reason="`make test-fleet-kills`"),
]


@pytest.fixture(autouse=True)
def leftovers_check() -> None:
    """Nothing: the hosts live from test to test. What they leave is looked for at their end."""


@pytest.fixture(scope="module")
def struck(lab: Path) -> Iterator[Struck]:
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("qemu:///system")
    before = leftovers.look(connection)
    with ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(dir=lab, prefix="kills-"))
        orders = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=lab)))
        for path in (Path(made), orders):
            path.chmod(0o755)

        def mortal(who: str) -> tuple[str, ...]:
            (orders / who).mkdir(exist_ok=True)
            return sys.executable, str(MORTAL), str(orders / who)

        try:
            fleet = Fleet(Path(made), 2, before=mortal)
        except Missing as e:
            missing(str(e))
        with fleet, Watch(fleet.nodes) as watch, Raised(fleet) as raised:
            yield (made_one := Struck(fleet, watch, raised, orders))
            made_one.writer.agent.ready(BOOT_SECONDS)
            fleet.order("detach", made_one.writer.name, made_one.volume.id, deadline=LONG)
        assert watch.looks > 10
        assert watch.twice == []
    assert leftovers.after(connection, before, GUESTS) == []
    connection.close()


def migrate(struck: Struck) -> tuple[int, str]:
    return struck.order("migrate", struck.writer.name, struck.there.name)


def drain(struck: Struck) -> tuple[int, str]:
    return struck.order("drain", struck.here.name)


def evacuate(struck: Struck) -> tuple[int, str]:
    """Its host lost its power."""
    dead = struck.here
    with struck.raised.lock:
        agent = struck.fleet.agents.pop(dead.name)
        dead.power_off()
        agent.wait(20)
    return struck.order("evacuate", dead.name, "--fenced", "its power was cut by N.N.")


def returns(struck: Struck) -> tuple[int, str]:
    """A host that was evacuated boots, and is let in again."""
    (back,) = [node for node in struck.fleet.nodes if not node.has_power]
    with struck.raised.lock:
        back.power_on()
        struck.fleet.start_agent(back)
    until(lambda: not struck.fleet.host(back.name)["fenced"], "it is let in again", LONG)
    struck.fleet.order("uncordon", back.name)
    return 0, ""


def source(struck: Struck) -> str:
    return struck.here.name


def destination(struck: Struck) -> str:
    return struck.there.name


def controller(struck: Struck) -> str:
    return "c1"


Story = Callable[[Struck], tuple[int, str]]
Who = Callable[[Struck], str]
# A controller is on no host that has a cable and a libvirtd.
OF_HOSTS, OF_CONTROLLERS = (KILL, CUT, LIBVIRTD), (KILL, LEADER)
MOVES = [
    (story, who, how)
    for story, who in itertools.product((migrate, drain), (source, destination, controller))
    for how in (OF_CONTROLLERS if who is controller else OF_HOSTS)
]
DEATHS = [
    *((controller, how) for how in OF_CONTROLLERS),
    *((destination, how) for how in OF_HOSTS),
]
RETURNS = [
    *(("returning", how) for how in OF_HOSTS),
    *(("controller", how) for how in OF_CONTROLLERS),
]


def _told(value: object) -> str:
    return str(getattr(value, "__name__", value)).replace(" ", "-")


def _each(strike: Callable[[int], str], record: Callable[[str, object], None], when: str) -> None:
    """Strike every effect until there is none of that number."""
    met: list[str] = []
    for at in range(0, MOST, EVERY):
        label = strike(at)
        sys.stdout.write(f"{at}: {when} {label or 'nothing'}\n")
        sys.stdout.flush()
        if not label:
            break
        met.append(label)
    else:
        pytest.fail(f"more than {MOST} effects: {met}")
    record("fleet_kill_points", json.dumps(met))
    assert len(met) * EVERY >= FEWEST, met


@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize(("story", "who", "how"), MOVES, ids=_told)
def test_a_guest_moves_whoever_is_struck(
    struck: Struck, story: Story, who: Who, how: str, when: str, record_property: Any
) -> None:
    """Whoever was killed, the command ends well; one that was cut off, or a host whose libvirtd
    was killed, may make it stay.
    """

    def strike(at: int) -> str:
        here, there = struck.here, struck.there
        name = who(struck)
        orders = struck.give(name, at, when, how)
        with blow(struck, name, orders, how):
            code, said = story(struck)
        said += struck.fleet.logs()
        home = struck.settle()
        orders.withdraw()
        assert code == 0 or how in (CUT, LIBVIRTD), said
        assert home is there or code, said
        struck.check()
        if home is not there:
            code, said = story(struck)
            assert code == 0, said
            assert struck.settle() is there, said
            struck.check()
        if story is drain:
            struck.fleet.order("uncordon", here.name)
        return orders.met()

    _each(strike, record_property, when)


@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize(("who", "how"), DEATHS, ids=_told)
def test_a_host_dies_and_whoever_brings_its_guest_elsewhere_is_struck(
    struck: Struck, who: Who, how: str, when: str, record_property: Any
) -> None:
    def strike(at: int) -> str:
        name, there = who(struck), struck.there
        orders = struck.give(name, at, when, how)
        with blow(struck, name, orders, how):
            code, said = evacuate(struck)
            assert code == 0, said + struck.fleet.logs()
        assert struck.settle() is there
        orders.withdraw()
        struck.check(booted=True)
        returns(struck)
        assert struck.settle() is there
        struck.check(booted=True)
        return orders.met()

    _each(strike, record_property, when)
    _boot(struck)


@pytest.mark.parametrize("when", [BEFORE, AFTER])
@pytest.mark.parametrize(("who", "how"), RETURNS, ids=_told)
def test_a_dead_host_returns_and_is_struck(
    struck: Struck, who: str, how: str, when: str, record_property: Any
) -> None:
    def strike(at: int) -> str:
        dead, there = struck.here, struck.there
        code, said = evacuate(struck)
        assert code == 0, said
        assert struck.settle() is there
        name = dead.name if who == "returning" else "c1"
        orders = struck.give(name, at, when, how)
        with blow(struck, name, orders, how):
            returns(struck)
        assert struck.settle() is there
        orders.withdraw()
        struck.check(booted=True)
        return orders.met()

    _each(strike, record_property, when)
    _boot(struck)


def _boot(struck: Struck) -> None:
    """It writes again, and all that it had written is there."""
    struck.writer.agent.ready(BOOT_SECONDS)
    struck.writer.write_all_the_time(struck.volume)
    struck.check()
