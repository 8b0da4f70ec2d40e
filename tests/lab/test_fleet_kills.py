"""Migrate, drain, evacuate and return on real hosts: whoever has an effect is struck, once at each.

``make test-fleet-kills`` takes some hours. Toys: ``tests/crash/test_every_fleet_effect.py``.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import libvirt
import pytest
from conftest import GUESTS
from fleet_mortal import AFTER, BEFORE, CUT, KILL, LEADER, LIBVIRTD, Order, Orders

from lab import leftovers
from lab.demo import until
from lab.etcd import Cluster, Missing
from lab.fleet.node import Node
from lab.fleet.site import BLOCKS, BOOT_SECONDS, UNAVAILABLE, Fleet, Watch, states
from tests.support.missing import missing

MORTAL = Path(__file__).with_name("fleet_mortal.py")
LONG = 240.0
"""Seconds: a controller is found silent after 30, and the machine may be busy."""
EVERY = int(os.environ.get("MOORLINE_FLEET_EVERY", "1"))
"""Of so many effects one is struck."""
FEWEST = 3
MOST = 80
pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.skipif("MOORLINE_FLEET_EVERY" not in os.environ, reason="`make test-fleet-kills`"),
]


class Raised:
    """Starts again whoever was killed, as systemd does."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._raise_them, daemon=True)
        self.lock = threading.Lock()
        """Held while somebody switches a host off or on."""

    def __enter__(self) -> Raised:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(20)

    def _raise_them(self) -> None:
        fleet = self._fleet
        while not self._over.wait(0.1):
            with self.lock:
                for node in fleet.nodes:
                    agent = fleet.agents.get(node.name)
                    if agent is not None and agent.poll() is not None and node.has_power:
                        fleet.start_agent(node)
                for name, controller in list(fleet.controllers.items()):
                    if controller.poll() is not None:
                        controller.communicate()
                        fleet.start_controller(name)


class Struck:
    """The fleet, a guest that writes to its volume, and who is struck."""

    def __init__(self, fleet: Fleet, watch: Watch, raised: Raised, at: Path) -> None:
        self.fleet, self.watch, self.raised = fleet, watch, raised
        (self.writer,) = fleet.boot(web01=fleet.nodes[0])
        self.volume = fleet.volume(fleet.quobyte.volume("vol"), 1)
        fleet.order("attach", self.writer.name, "--connection", str(self.volume.connection))
        self.writer.write_all_the_time(self.volume)
        self.owner = self.volume.file.stat().st_uid
        self._at = at
        self._ids = itertools.count()

    @property
    def here(self) -> Node:
        return self.writer.node

    @property
    def there(self) -> Node:
        return next(node for node in self.fleet.nodes if node is not self.here)

    def orders(self, who: str) -> Orders:
        return Orders(self._at / who)

    def give(self, who: str, at: int, when: str, how: str) -> Orders:
        orders = self.orders(who)
        orders.give(Order(next(self._ids), at, when, how))
        return orders

    def order(self, *words: str) -> tuple[int, str]:
        """Type a command, again where etcd does not answer: the exit code, and what it says."""
        admin = ("--directory", str(self.fleet.admin), "--timeout", str(LONG))
        for _ in range(3):
            order = self.fleet.command.start("fleet", *words, *admin)
            out, err = order.communicate(timeout=LONG + 60)
            if order.returncode != UNAVAILABLE:
                break
        return order.returncode, out + err

    def settle(self) -> Node:
        """Wait until the guest runs on the host that has it, nothing of it is elsewhere, and all
        that is wanted is so.
        """
        name = self.writer.name
        home = until(lambda: self._settled(name), "it comes to rest", LONG)
        self.writer.at(home)
        return home

    def _settled(self, name: str) -> Node | None:
        told = {each["guest"]: each for each in self.fleet.ask("guests")}[name]
        if told["moving_to"]:
            return None
        home = self.fleet.node(told["host"])
        elsewhere = [states(node, name) for node in self._on() if node is not home]
        (row,) = self.fleet.ask("list")
        as_wanted = row["wanted"] == row["seen"] == "attached" and row["host"] == home.name
        alone = states(home, name) == "running" and not any(elsewhere)
        return home if alone and as_wanted and not self._leaks(home) else None

    def _leaks(self, home: Node) -> list[str]:
        """Where the share is mounted, and nobody is to have it."""
        return [n.name for n in self._on() if n is not home and "fuse.quobyte" in _mounts(n)]

    def _on(self) -> list[Node]:
        return [node for node in self.fleet.nodes if node.has_power]

    def check(self, *, booted: bool = False) -> None:
        """The guest was never twice, has its disk once, and what it wrote is there."""
        assert self.watch.twice == []
        xml = self.here.run("virsh", "dumpxml", self.writer.name)
        assert xml.count(self.volume.file.name) == 1, xml
        assert _mounts(self.here).count("fuse.quobyte") == 1
        assert self.volume.file.stat().st_uid == self.owner
        if booted:
            return
        last = self.writer.writes_on()
        assert self.volume.wrong(last) == []
        if last > BLOCKS // 2:
            self.writer.write_all_the_time(self.volume)


def _mounts(node: Node) -> str:
    return node.run("cat", "/proc/self/mountinfo")


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


class Blow:
    """What is done to others than the process that meets *orders*, which waits meanwhile."""

    def __init__(self, struck: Struck, orders: Orders, node: Node | None, how: str) -> None:
        self._fleet = struck.fleet
        self._orders = orders
        self._node = node
        self._how = how
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._strike, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(90)
        if self._node is not None:
            self._node.reconnect()
        self._fleet.etcd.mend()

    def _strike(self) -> None:
        while not self._orders.met():
            if self._over.wait(0.05):
                return
        if self._node is None:
            self._kill_the_leader(self._fleet.etcd)
        elif self._how == CUT:
            self._pull_the_cable(self._node)
        else:
            self._node.kill_libvirtd()
            self._orders.go_on()
            self._node.start_libvirtd()

    def _kill_the_leader(self, etcd: Cluster) -> None:
        leader = etcd.leader()
        etcd.kill(leader)
        self._orders.go_on()
        etcd.wait()
        etcd.restart(leader)

    def _pull_the_cable(self, node: Node) -> None:
        """And plug it in once it was noticed."""
        log = self._fleet.log / f"{node.name}.log"
        known = log.stat().st_size
        node.cut_off()
        self._orders.go_on()
        with suppress(AssertionError, TimeoutError):  # it may have had nothing more to say
            until(lambda: b"the fleet: " in log.read_bytes()[known:], "it notices", 30)
        node.reconnect()


def _blow(struck: Struck, name: str, orders: Orders, how: str) -> AbstractContextManager[None]:
    """Of *name*, a host or a controller. One that is killed kills itself."""
    if how == KILL:
        return nullcontext()
    return Blow(struck, orders, None if how == LEADER else struck.fleet.node(name), how)


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
        with _blow(struck, name, orders, how):
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
        with _blow(struck, name, orders, how):
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
        with _blow(struck, name, orders, how):
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
