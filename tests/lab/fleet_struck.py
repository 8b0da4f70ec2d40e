"""A fleet whose processes are struck at their effects, and a guest in it that writes."""

from __future__ import annotations

import itertools
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from fleet_mortal import CUT, KILL, LEADER, Order, Orders

from lab.demo import until
from lab.etcd import Cluster
from lab.fleet.node import Node
from lab.fleet.site import BLOCKS, UNAVAILABLE, Fleet, Watch, states

LONG = 240.0
"""Seconds: a controller is found silent after 30, and the machine may be busy."""


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


def blow(struck: Struck, name: str, orders: Orders, how: str) -> AbstractContextManager[None]:
    """Of *name*, a host or a controller. One that is killed kills itself."""
    if how == KILL:
        return nullcontext()
    return Blow(struck, orders, None if how == LEADER else struck.fleet.node(name), how)
