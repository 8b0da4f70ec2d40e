"""Which hosts a controller looks at in a pass: of thousands, nearly all are at rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from urllib.parse import unquote

from moorline.core.backoff import backoff
from moorline.errors import MoorlineError
from moorline.fleet import keys
from moorline.fleet.liveness import HEARTBEAT_SECONDS
from moorline.fleet.record_store import OfHost
from moorline.fleet.records import Bring, HostRecord, Move, Role
from moorline.model import GuestId, Level
from moorline.ports import Store

PASSES_PER_ROUND = 60
"""In so many passes each host is looked at once, whatever is told of it."""
PASSES_PER_BEAT = 5
"""In so many, each one's sign of life is looked for."""
MOST_AT_ONCE = 500
"""So many a pass looks at, beside those that are emptied or that a guest goes to: who starts, and
knows nothing yet, says between its passes that it leads."""
_WATCHED = (keys.DESIRED, keys.STATUS)

Changed = Callable[[], Collection[str] | None]
"""The hosts of which an entry changed since this was called last; None: it cannot be told."""


class ChangedHosts:
    """Told by watches of what is wanted of hosts, and of what they report.

    Once a backup of the store was brought back nothing is watched until a controller is restarted,
    as all of it would have to be listed at once: it cannot be told then what changed.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._hosts: set[str] = set()
        self._unwatched = {*_WATCHED}
        self._missed = True
        self._stop = threading.Event()

    def __enter__(self) -> ChangedHosts:
        """Begin to watch. Returns at once."""
        for prefix in _WATCHED:
            threading.Thread(target=self._watch, args=[prefix], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def __call__(self) -> Collection[str] | None:
        """See :data:`Changed`."""
        with self._lock:
            hosts, self._hosts = self._hosts, set()
            told = not (self._missed or self._unwatched)
            self._missed = bool(self._unwatched)
            return hosts if told else None

    def _watch(self, prefix: str) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                _, revision = self._store.list(keys.MOVES)
                with self._lock:  # what came before that is read once more
                    self._unwatched.discard(prefix)
                    self._missed = True
                for event in self._store.watch(prefix, revision, self._stop):
                    failures = 0
                    if event.key:
                        with self._lock:
                            self._hosts.add(unquote(keys.below(prefix, event.key)[0]))
            except MoorlineError:
                pass  # the controller's next pass says what is wrong
            finally:  # a defect ends this: then all is read, as if nothing were watched
                with self._lock:
                    self._unwatched.add(prefix)
            failures += 1
            self._stop.wait(backoff(failures, longest=HEARTBEAT_SECONDS))


class AtRest:
    """What is known of hosts at rest: enough to choose one where a guest goes, and no more.

    A host is looked at while something is done or to be done there, and once something changed.
    """

    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._known: dict[str, tuple[OfHost, OfHost]] = {}
        self._restless: set[str] = set()
        self._passes = 0

    def due(self, hosts: Mapping[str, HostRecord], moves: Mapping[GuestId, Move]) -> set[str]:
        """Those that are to be looked at now. They stay so until :meth:`rests`."""
        changed = self._changed()
        self._passes += 1
        if changed is None:
            self._restless = {*hosts}
        else:
            self._restless |= {*changed, *self._in_turn(hosts, PASSES_PER_ROUND)}
        for name in self._known.keys() - hosts.keys():
            del self._known[name]
        moving = {host for move in moves.values() for host in (move.source, move.destination)}
        emptied = {name for name, each in hosts.items() if each.fenced or each.draining}
        return ((moving | emptied) & hosts.keys()) | self._some(hosts)

    def is_complete(self, hosts: Mapping[str, HostRecord]) -> bool:
        """Whether each was looked at: before, nobody can tell where there is room."""
        return hosts.keys() <= self._known.keys()

    def listened_to(self, hosts: Mapping[str, HostRecord]) -> set[str]:
        """Those whose sign of life is looked for now, whether they are due or not."""
        return self._in_turn(hosts, PASSES_PER_BEAT)

    def known(self, host: str) -> tuple[OfHost, OfHost]:
        """What is wanted of a host that is not due, and what it reports: of its guests alone."""
        return self._known.get(host, (OfHost(), OfHost()))

    def saw(self, host: str, desired: OfHost, reports: OfHost) -> None:
        """Keep what is needed of it, when it is at rest."""
        guests, told = dict(desired.assignments), dict(reports.guests)
        self._known[host] = OfHost(assignments=guests), OfHost(guests=told)
        self._restless.add(host)

    def rests(self, host: str) -> None:
        """Nothing is to be done there, and nothing was done in this pass."""
        self._restless.discard(host)

    def _some(self, hosts: Mapping[str, HostRecord]) -> set[str]:
        """Of those that are restless; first whoever was never looked at."""
        new = sorted(hosts.keys() - self._known.keys())[:MOST_AT_ONCE]
        waiting = sorted(self._restless & hosts.keys() - {*new})
        begin = self._passes * MOST_AT_ONCE % max(1, len(waiting))
        return {*new, *[*waiting[begin:], *waiting[:begin]][: MOST_AT_ONCE - len(new)]}

    def _in_turn(self, hosts: Mapping[str, HostRecord], passes: int) -> set[str]:
        return set(sorted(hosts)[self._passes % passes :: passes])


def is_settled(record: HostRecord, desired: OfHost, reports: OfHost) -> bool:
    """Whether nothing there waits for what a host reports, or for what others have."""
    guests = desired.assignments.values()
    waits = (
        any(each.role is not Role.HERE or each.bring is not Bring.NOTHING for each in guests)
        or any(row.want is Level.ABSENT for row in desired.attachments.values())
        or any(report.by_itself for report in reports.volumes.values())
        or any(not report.assignment for report in reports.guests.values())
    )
    return not (waits or record.disputed or record.same_ids)
