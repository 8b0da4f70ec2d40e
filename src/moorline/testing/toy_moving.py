"""Toy hosts whose guests go from one to another, on storage that sees who may write to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial

from moorline.errors import Failed, NotFound, Refused, Unavailable
from moorline.model import GuestId, Use, VolumeId
from moorline.ports.moving import Presence, Present
from moorline.testing.faults import Faults
from moorline.testing.toys import ToyGuest, ToyHypervisor, ToyWorld


@dataclass
class MovableGuest(ToyGuest):
    """A guest that may be a copy of another host's."""

    copy: Presence = Presence.RUNNING
    """Of one that is running: RUNNING, SENT, INCOMING or ARRIVED."""

    @property
    def writes(self) -> bool:
        """Whether it may write now."""
        return self.running and self.copy is Presence.RUNNING


@dataclass
class ToyCentre:
    """All hosts; what must never be is looked for after each effect, whoever had it."""

    hosts: dict[str, ToyWorld] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    """Hosts that the storage refuses to serve: their guests may run, and cannot write."""
    unreachable: set[str] = field(default_factory=set)
    """Hosts that no other host reaches."""
    down: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    """Volumes that several guests may write to."""
    violations: list[str] = field(default_factory=list)

    def look(self) -> None:
        """Note each guest that runs twice, and each file that two hosts may write to."""
        runs: dict[str, list[str]] = {}
        writers: dict[str, set[str]] = {}
        for host, id, guest in self._running():
            runs.setdefault(id, []).append(host)
            for volume, path in guest.live.items():
                if volume not in self.shared:
                    writers.setdefault(path, set()).add(f"{id} on {host}")
        twice = [f"guest {id} runs on {' and '.join(at)}" for id, at in runs.items() if at[1:]]
        torn = [f"{p} is written by {' and '.join(w)}" for p, w in writers.items() if len(w) > 1]
        self.violations += twice + torn

    def _running(self) -> Iterator[tuple[str, GuestId, ToyGuest]]:
        for host, world in self.hosts.items():
            if host in self.revoked or host in self.down:
                continue
            for id, guest in world.guests.items():
                if isinstance(guest, MovableGuest) and guest.writes:
                    yield host, id, guest


class WatchedFaults(Faults):
    """Faults that have something looked at after each effect, and may let others in before it."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look
        self.meanwhile: Callable[[], None] | None = None
        """Done before the next effect: whoever had decided on it finds the world changed."""
        self.meanwhile_at = 0

    def effect(self, do: Callable[[], object]) -> object:  # type: ignore[override]
        """As before, and look."""
        if self.meanwhile is not None and self.count >= self.meanwhile_at:
            other, self.meanwhile = self.meanwhile, None
            other()
        try:
            return super().effect(do)
        finally:
            self._look()


class ToyMover(ToyHypervisor):
    """A hypervisor whose guests can go to the other hosts of its centre."""

    def __init__(
        self,
        world: ToyWorld,
        centre: ToyCentre,
        host: str,
        guard: Callable[[GuestId], None] = lambda guest: None,
    ) -> None:
        """*guard* is asked before each start, and raises if it may not be."""
        super().__init__(world)
        self._centre = centre
        self._host = host
        self._guard = guard

    def present(self) -> Mapping[GuestId, Present]:
        if self._world.blind:
            raise Unavailable("the hypervisor does not answer")
        return {
            id: Present(guest.name, _presence(guest)) for id, guest in self._world.guests.items()
        }

    def definition(self, guest: GuestId) -> bytes:
        found = self._found(guest)
        uses = sorted(asdict(use).items() for use in found.uses if use.volume in found.defined)
        return json.dumps(
            {"name": found.name, "defined": found.defined, "uses": [dict(use) for use in uses]}
        ).encode()

    def define(self, guest: GuestId, definition: bytes, volumes: Container[VolumeId]) -> None:
        if guest not in self._world.guests:
            self._world.faults.effect(lambda: self._define(guest, definition, volumes))

    def undefine(self, guest: GuestId) -> None:
        found = self._world.guests.get(guest)
        if found is None:
            return
        if found.running:
            raise Failed(f"{guest} runs")
        self._world.faults.effect(partial(self._undefine, guest))

    def start(self, guest: GuestId) -> None:
        found = self._found(guest)
        if found.running:
            return
        self._guard(guest)
        for path in found.defined.values():
            self._refuse_missing(path)
        _demand_keys(self._world, guest, found)
        self._world.faults.effect(partial(self._start, guest))

    def stop(self, guest: GuestId) -> None:
        found = self._world.guests.get(guest)
        if found is not None and found.running:
            self._world.faults.effect(partial(self._stop, guest))

    def resume(self, guest: GuestId) -> None:
        found = self._found(guest)
        if found.copy in (Presence.SENT, Presence.ARRIVED):
            self._world.faults.effect(lambda: setattr(found, "copy", Presence.RUNNING))

    def send(self, guest: GuestId, host: str) -> None:
        """Four effects: a copy there, paused here, whole there, gone here."""
        if guest not in self._world.guests:
            return
        found, there = self._found(guest), self._there(host)
        if not found.running:
            raise Refused(f"{guest} does not run")
        if guest in there.guests:
            raise Failed(f"{host} has a copy of {guest}")
        for path in found.live.values():
            if path.rsplit("/", 1)[0] not in there.mounts:
                raise Failed(f"{path} cannot be opened on {host}")
        _demand_keys(there, guest, found)
        effect = self._world.faults.effect
        copy = MovableGuest(found.name, copy=Presence.INCOMING)
        effect(lambda: there.guests.__setitem__(guest, copy))
        self._demand_copy(guest, host, copy)
        effect(lambda: setattr(found, "copy", Presence.SENT))
        try:
            self._demand_copy(guest, host, copy)
        except Failed:
            effect(lambda: setattr(found, "copy", Presence.RUNNING))
            raise
        effect(partial(_arrive, copy, found))
        effect(lambda: self._world.guests.pop(guest, None))

    def _demand_copy(self, guest: GuestId, host: str, copy: ToyGuest) -> None:
        if self._there(host).guests.get(guest) is not copy:
            raise Failed(f"{host} has lost the copy of {guest}")

    def _there(self, host: str) -> ToyWorld:
        away = self._centre.unreachable | self._centre.down
        if host not in self._centre.hosts or host in away or self._host in away:
            raise Failed(f"{host} does not answer")
        return self._centre.hosts[host]

    def _found(self, guest: GuestId) -> MovableGuest:
        found = self._world.guests.get(guest)
        if not isinstance(found, MovableGuest):
            raise NotFound(f"there is no guest {guest}")
        return found

    def _define(self, guest: GuestId, definition: bytes, volumes: Container[VolumeId]) -> None:
        text = json.loads(definition)
        made = MovableGuest(text["name"], running=False)
        made.defined = {VolumeId(v): path for v, path in text["defined"].items() if v in volumes}
        made.uses = {Use(**use) for use in text["uses"]}
        self._world.guests[guest] = made

    def _undefine(self, guest: GuestId) -> None:
        found = self._world.guests.get(guest)
        if found is not None and not found.running:  # started meanwhile, it runs on
            del self._world.guests[guest]

    def _start(self, guest: GuestId) -> None:
        found = self._world.guests.get(guest)
        if isinstance(found, MovableGuest):  # undefined meanwhile, it does not start
            found.running, found.copy = True, Presence.RUNNING
            found.live = dict(found.defined)

    def _stop(self, guest: GuestId) -> None:
        """A copy that was never defined here is gone with its power."""
        found = self._world.guests.get(guest)
        if not isinstance(found, MovableGuest):
            return
        halt(found)
        if found.copy is Presence.INCOMING:
            del self._world.guests[guest]


def halt(guest: ToyGuest) -> None:
    """As if its power was cut."""
    guest.running = False
    guest.live.clear()
    guest.leaving.clear()


def _arrive(copy: MovableGuest, source: MovableGuest) -> None:
    copy.copy = Presence.ARRIVED
    copy.live, copy.defined, copy.uses = dict(source.live), dict(source.defined), set(source.uses)


def _presence(guest: ToyGuest) -> Presence:
    if not guest.running:
        return Presence.STOPPED
    return guest.copy if isinstance(guest, MovableGuest) else Presence.RUNNING


def _demand_keys(world: ToyWorld, id: GuestId, guest: ToyGuest) -> None:
    """Raise Failed unless the host of *world* has the keys of what the guest is to open."""
    for use in guest.uses:
        locked = use.format == "luks" and (id, VolumeId(use.volume)) not in world.keys
        if locked and use.volume in {*guest.live, *guest.defined}:
            raise Failed(f"there is no key of {use.volume}")
