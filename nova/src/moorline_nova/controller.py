"""Releases volumes that Nova needs no more, even if the agent was away when Nova said so.

There are two ways. What the agent could not be told is remembered and told later. And what the
agent keeps is compared with what Nova knows, which needs no memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from moorline.deadline import CLOCK, Clock, Deadline
from moorline.errors import Conflict, Failed, MoorlineError, NotOurs, Unavailable
from moorline_nova.agent import Agent
from moorline_nova.pending import Pending, Use

LOG = logging.getLogger(__name__)

COMPARE_INTERVAL_SECONDS = 600.0
"""Seconds between two comparisons with Nova."""
_SOONEST, _LATEST = 1.0, 60.0
"""Seconds to the next try, after the first that failed and after many."""
Knows = Callable[[Use], bool]
"""Tells whether Nova has a use on this host, or is about to. May raise anything, and block."""


class Controller:
    """Knows which uses are needed, and tells the agent of those that are not.

    It runs a plain thread, and needs nothing of Nova's concurrency. Code that changes a
    use takes its *turn*, so that a late release never undoes a newer request.
    """

    def __init__(
        self,
        agent: Agent,
        pending: Pending,
        knows: Knows,
        *,
        clock: Clock = CLOCK,
    ) -> None:
        self._clock = clock
        self._agent = agent
        self._pending = pending
        self._knows = knows
        self._remembered: set[Use] = set()
        """All pending releases, including those that could not be written."""
        self._connected: set[Use] = set()
        """Uses that this process connected. It says itself when they are needed no more; until then
        Nova may not know of the volume yet (as when it swaps one)."""
        self._guard = threading.Lock()
        self._turns: WeakValueDictionary[Use, threading.Lock] = WeakValueDictionary()
        self._wake = threading.Event()
        self._stopped = False
        self._compare_again = Deadline(0.0, clock)
        self._left: dict[str, Deadline] = {}
        """Instances that Nova took away, and until when each is watched."""

    def start(self) -> None:
        """Begin with what an earlier process remembered, and compare with Nova."""
        try:
            with self._guard:
                self._remembered |= self._pending.all()
        except OSError as e:
            LOG.warning("What the agent was not told yet cannot be read: %s", e)
        # Not before this: Nova may fork after it has made its drivers.
        threading.Thread(target=self._run, name="moorline-controller", daemon=True).start()

    def stop(self) -> None:
        """Begin nothing more. Pending releases stay, for the next process."""
        self._stopped = True
        self._wake.set()

    @contextmanager
    def turn(self, use: Use) -> Iterator[None]:
        """Be the only one that changes *use*. Blocks while another releases it."""
        with self._turn(use):
            yield

    def needed(self, use: Use) -> None:
        """Nova is about to use it: no pending release may undo that. Raises OSError."""
        self._pending.discard(use)
        with self._guard:
            self._remembered.discard(use)
            self._connected.add(use)

    def not_needed(self, use: Use) -> None:
        """The agent could not be told: tell it later. The release is on disk when this returns."""
        with self._guard:
            self._connected.discard(use)
            self._remembered.add(use)
        try:
            self._pending.add(use)
        except OSError as e:
            LOG.warning(
                "That volume %s of instance %s is not needed could not be written down: %s. It is"
                " told the agent as long as nova-compute runs, and found by comparison after that",
                use.volume,
                use.instance,
                e,
            )
        self._wake.set()

    def told(self, use: Use) -> None:
        """The agent was told that *use* is not needed."""
        with self._guard:
            self._connected.discard(use)
            self._remembered.discard(use)
        try:
            self._pending.discard(use)
        except OSError as e:  # then it is told once more, before anything else
            LOG.warning("What the agent was told cannot be forgotten: %s", e)

    def left(self, instance: str) -> None:
        """Nova took *instance* away, and may not have let go of all that it had here.

        Of an attach that an earlier nova-compute did not live to finish Nova knows the volume, but
        not how it was connected. It disconnects nothing, and forgets both a moment later.
        """
        with self._guard:
            self._left[instance] = Deadline(COMPARE_INTERVAL_SECONDS, self._clock)
        self._wake.set()

    def make_room(self, use: Use) -> None:
        """Release the volume of *use* for other instances first: the agent gives it to only one.

        Blocks while another thread releases it. Call it after :meth:`needed`, or two who want the
        volume may wait for each other.
        """
        for other in self._waiting():
            if other.volume == use.volume and other != use:
                self._deliver(other, wait=True)

    def look(self) -> bool:
        """Tell pending releases and, if it is time, compare; return whether all was done."""
        told = [self._deliver(use) for use in self._waiting() if not self._stopped]
        if self._stopped:
            return all(told)
        if self._compare_again.over() and not self.compare():
            return False
        return self._compare_left() and all(told)

    def compare(self) -> bool:
        """Release uses that Nova does not know; return whether that could be found out.

        Volumes that were attached by hand are not Nova's, and the agent keeps them.
        """
        if self._compare_all(lambda use: True) is None:
            return False
        self._compare_again = self._compare_again.anew(COMPARE_INTERVAL_SECONDS)
        return True

    def _compare_left(self) -> bool:
        """Compare the instances that Nova took away; return whether none has to be watched on."""
        with self._guard:
            watched = {instance for instance, end in self._left.items() if not end.over()}
        kept = self._compare_all(lambda use: use.instance in watched) if watched else []
        if kept is None:
            return False
        with self._guard:
            own = self._connected  # as when it was rebooted hard
            rest = watched & {use.instance for use in kept if use not in own}
            for instance in self._left.keys() - rest:
                if instance in watched or self._left[instance].over():
                    del self._left[instance]
        return not rest

    def _compare_all(self, those: Callable[[Use], bool]) -> list[Use] | None:
        """Compare *those* uses that the agent keeps; None: that could not be found out."""
        try:
            kept = list(filter(those, self._agent.uses()))
            for use in kept:
                self._compare(use)
        except Exception as e:  # noqa: BLE001 - Nova's database and its messages fail in many ways
            LOG.warning("What the agent keeps was not compared with what Nova knows: %s", e)
            return None
        return kept

    def _compare(self, use: Use) -> None:
        with self._turn(use, wait=False) as mine:
            if not mine or use in self._connected or use in self._remembered or self._knows(use):
                return
            try:
                gone = self._agent.tell(use)
            except MoorlineError as e:
                if not is_told(e):
                    raise
                gone = True
            if gone:
                LOG.info("Nova knows no volume %s of instance %s: let go", use.volume, use.instance)

    def _deliver(self, use: Use, *, wait: bool = False) -> bool:
        with self._turn(use, wait=wait) as mine:
            if not mine:
                return False
            if use not in self._remembered:
                return True
            try:
                self._agent.tell(use)
            except MoorlineError as e:
                if not is_told(e):
                    LOG.debug("Volume %s of %s is not let go: %s", use.volume, use.instance, e)
                    return False
            self.told(use)
            LOG.info("Volume %s of instance %s is let go now", use.volume, use.instance)
            return True

    def _run(self) -> None:
        pause = 0.0
        while not self._stopped:
            if self._wake.wait(pause):
                self._wake.clear()
                pause = 0.0
            if self._stopped:
                return
            try:
                done = self.look()
            except Exception:  # a defect: it must not end what nobody else does
                LOG.exception("What Nova needs no more was not looked at")
                done = False
            pause = _LATEST if done else min(max(2 * pause, _SOONEST), _LATEST)

    def _waiting(self) -> list[Use]:
        with self._guard:
            return sorted(self._remembered)

    @contextmanager
    def _turn(self, use: Use, *, wait: bool = True) -> Iterator[bool]:
        with self._guard:
            lock = self._turns.setdefault(use, threading.Lock())
        mine = lock.acquire(blocking=wait)
        try:
            yield mine
        finally:
            if mine:
                lock.release()


def is_told(error: MoorlineError) -> bool:
    """Whether the agent has recorded what is wanted, and goes on by itself."""
    return isinstance(error, Failed | NotOurs) and not isinstance(error, Unavailable | Conflict)
