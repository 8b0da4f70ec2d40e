"""A toy host with its owner's loop, and what a test may do to both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from moorline.api import Moorline
from moorline.core.claims import Claims
from moorline.core.driver import Driver
from moorline.core.locks import Locks
from moorline.core.plan import Step
from moorline.core.reconciler import Reconciler
from moorline.errors import Uncertain
from moorline.loop.controller import Controller
from moorline.loop.drift import DriftDetector
from moorline.loop.worker import Worker
from moorline.model import Attachment, Broken, GuestId, ImageFile, Key, Link, VolumeId
from moorline.ports import Wake
from moorline.ports.results import Trouble
from moorline.testing.toys import ToyExport, ToyHypervisor, ToyShare
from tests.support.environment import bare
from tests.support.rig import Rig

G1, G2 = GuestId("g1"), GuestId("g2")


def until(true: Callable[[], object], deadline: float = 30.0) -> None:
    """Wait for less than a loop's sweeps are apart, so that nothing is owed to a sweep."""
    end = time.monotonic() + deadline
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


class Share(ToyShare):
    """Its mount command can be stopped, and it can have a defect."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.world)
        self.open = threading.Event()
        self.open.set()
        self.defect = ""
        self.late = False
        self.connecting = 0

    def inspect(self, c: ToyExport) -> Link:
        link = super().inspect(c)
        # Of what fails here, nobody can tell whether its client lives.
        return Broken(link.reason) if isinstance(link, Broken) else link

    def disconnect(self, c: ToyExport) -> None:
        super().disconnect(c)
        self._world.failing.discard(c.share)

    def connect(self, c: ToyExport) -> None:
        self.connecting += 1
        self.open.wait(10)
        if self.late:
            raise Uncertain("the mount command did not end")
        super().connect(c)

    def verify(self, c: ToyExport) -> ImageFile:
        if c.name == self.defect:
            raise AssertionError("a defect")
        return super().verify(c)


class Counted(Claims):
    """How many there were can be told."""

    made = 0

    @contextmanager
    def claim(self, row: Attachment) -> Iterator[list[Step]]:
        with super().claim(row) as steps:
            self.made += 1
            yield steps


class Hand:
    """A watcher by which a test tells news."""

    def __init__(self) -> None:
        self.wake: Wake = lambda guest: None

    def watch(self, wake: Wake, stop: threading.Event) -> None:
        self.wake = wake
        stop.wait()


class Loop:
    """The controller of a toy host, and the parts that tests look into."""

    def __init__(self, rig: Rig, *, every: float = 60.0, wall: Callable[[], float] = time.time):
        self.rig = rig
        self.world = rig.world
        self.share = Share(rig)
        self.hand = Hand()
        locks = Locks(patience=5.0)
        backends = {"toy": self.share}
        hypervisor = ToyHypervisor(rig.world)
        reconciler = Reconciler(rig.records, backends, hypervisor, locks)
        claims = Counted()
        driver = Driver(rig.records, reconciler, claims, wall)
        self.claims, self.driver = claims, driver
        self.facade = Moorline(
            rig.records, reconciler, hypervisor, environment=bare(), driver=driver
        )
        self.controller = Controller(
            rig.records,
            Worker(driver),
            DriftDetector(rig.records, reconciler, hypervisor),
            claims,
            watchers=[self.hand],
            every=every,
        )

    def start(self) -> None:
        self.controller.start()
        until(lambda: self.controller.swept)

    def has(self, guest: GuestId, volume: str) -> bool:
        toy = self.world.guests[guest]
        return volume in toy.live and volume in toy.defined

    def settles(self) -> None:
        until(lambda: not self.controller.pending())

    def whys(self) -> Sequence[str]:
        return [each.why for each in self.controller.pending()]

    def trouble(self, volume: str, guest: str = "g1") -> Trouble | None:
        return self.rig.records.trouble(Key("h1", VolumeId(volume), GuestId(guest)))


@contextmanager
def running(rig: Rig) -> Iterator[Loop]:
    """A loop that has ended afterwards, and that broke no rule of the world."""
    loop = Loop(rig)
    yield loop
    loop.share.open.set()
    assert loop.controller.stop(5)
    assert not rig.world.violations
