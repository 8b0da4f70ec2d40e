"""Runs a ``moorline`` program of a fleet, which is struck before or after one of its effects.

``python fleet_mortal.py DIRECTORY PROGRAM ARGUMENTS…``. While DIRECTORY has an order, effects are
counted, and the one that it names is struck: the process is killed, or waits until somebody has
cut it off, or killed its host's libvirtd or the leader of etcd.
All of it is real. Signs of life and of who leads are no effects: there is always one.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from moorline.fleet import keys
from moorline.fleet.record_store import Book, Change
from moorline.host.linux import Linux
from moorline.hypervisors.libvirt.moving import MovingLibvirt
from moorline.stores.sqlite import SqliteStore

T = TypeVar("T")
KILL, CUT = "killed", "cut off"
LIBVIRTD, LEADER = "its libvirtd killed", "etcd's leader killed"
BEFORE, AFTER = "before", "after"
_OF_GUESTS = ("attach", "detach", "send", "define", "undefine", "start", "stop", "resume")
_NO_EFFECTS = ("heartbeat", "leader", "decisions")
SAME = 3
"""As long as a guest is on its way, the same is reported in each pass: so many are struck."""
_WAITED_SECONDS = 120.0


class Order(NamedTuple):
    """Which effect is struck, by its number since the order was given, and how."""

    id: int
    at: int
    when: str
    how: str


class Orders:
    """What is exchanged by files in *directory*: an order for a process, and what it met."""

    def __init__(self, directory: Path) -> None:
        self._order = directory / "order"
        self._met = directory / "met"
        self._go = directory / "go"

    def give(self, order: Order) -> None:
        for file in (self._met, self._go):
            file.unlink(missing_ok=True)
        self._written(self._order, json.dumps(order))

    def given(self) -> Order | None:
        try:
            return Order(*json.loads(self._order.read_text()))
        except FileNotFoundError:
            return None

    def withdraw(self) -> None:
        self._order.unlink(missing_ok=True)

    def meet(self, label: str) -> None:
        """It is struck now, and no other one."""
        self._written(self._met, label)
        self.withdraw()

    def met(self) -> str:
        """What the effect was; '': it was not struck yet."""
        return self._met.read_text() if self._met.exists() else ""

    def go_on(self) -> None:
        self._go.touch()

    def await_word(self) -> None:
        end = time.monotonic() + _WAITED_SECONDS
        while not self._go.exists() and time.monotonic() < end:
            time.sleep(0.05)

    def _written(self, file: Path, text: str) -> None:
        new = file.with_suffix(".new")
        new.write_text(text)
        new.replace(file)


class Strikes:
    """Counts the effects of this process since the last order was given."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._lock = threading.Lock()
        self._id = -1
        self._count = 0
        self._last: list[str] = []

    def effect(self, label: str, do: Callable[[], T]) -> T:
        order = self._due(label)
        if order is None:
            return do()
        if order.when == BEFORE:
            self._strike(order, label)
            return do()
        try:
            return do()
        finally:  # however it ended: one that failed is tried again, and would not be struck
            self._strike(order, label)

    def _due(self, label: str) -> Order | None:
        with self._lock:
            order = self._orders.given()
            if order is None:
                return None
            if order.id != self._id:
                self._id, self._count, self._last = order.id, 0, []
            if self._last == [label] * SAME:
                return None
            self._last = [*self._last, label][-SAME:]
            self._count += 1
            return order if self._count - 1 == order.at else None

    def _strike(self, order: Order, label: str) -> None:
        self._orders.meet(label)
        if order.how == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        self._orders.await_word()


def _of_change(_: Any, change: Change) -> str:
    """``put desired, delete moves``, as far as it is an effect."""
    kinds = Counter(
        (type(each).__name__.lower(), key.removeprefix(keys.ROOT).split("/")[0])
        for key, each in change.then.items()
    )
    told = [f"{how} {kind}" for how, kind in sorted(kinds) if kind not in _NO_EFFECTS]
    return ", ".join(told)


def _of_local(_: Any, when: Any, then: Any) -> str:
    return ", ".join(sorted({f"note {each.key.split('/')[2]}" for each in then}))


def _of_command(_: Any, command: Any) -> str:
    name = Path(command.argv[0]).name
    return name if "mount" in name else ""


def _mortal(strikes: Strikes, owner: type, method: str, name: Callable[..., str]) -> None:
    real = getattr(owner, method)

    def called(self: Any, *args: Any, **named: Any) -> Any:
        label = name(self, *args, **named)
        if not label:
            return real(self, *args, **named)
        return strikes.effect(label, lambda: real(self, *args, **named))

    setattr(owner, method, called)


def main() -> None:
    strikes = Strikes(Orders(Path(sys.argv[1])))
    _mortal(strikes, Book, "commit", _of_change)
    _mortal(strikes, SqliteStore, "commit", _of_local)
    _mortal(strikes, Linux, "run", _of_command)
    for method in _OF_GUESTS:
        _mortal(strikes, MovingLibvirt, method, lambda *_, of=method, **__: of)
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
