"""A toy fleet: hosts, controllers and persons, each of which can be killed, cut off or paused."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from moorline.core.admission import Admission
from moorline.core.driver import Driver
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.storage_names import derived
from moorline.deadline import Clock
from moorline.errors import MoorlineError, Unavailable
from moorline.fleet import keys
from moorline.fleet.controller import Controller
from moorline.fleet.host import FleetHost
from moorline.fleet.host_memory import Marks
from moorline.fleet.local_volumes import LocalVolumes
from moorline.fleet.ownership import Ownership
from moorline.fleet.record_store import Book, Change
from moorline.fleet.records import HostRecord
from moorline.fleet.start_guard import Guard
from moorline.model import Attachment, DiskOptions, GuestId, Key, Level, LinkName, VolumeId
from moorline.ports import Put
from moorline.secret import Secret
from moorline.stores.codec import Codec
from moorline.testing.faults import Killed
from moorline.testing.toy_moving import MovableGuest, ToyCentre, ToyMover, WatchedFaults, halt
from moorline.testing.toy_store import MemoryStore
from moorline.testing.toys import BASE, ToyExport, ToyShare, ToyWorld
from tests.support.fleet_store import BEATS, Backing, Changes, Line, PlainSeal, toy_backing

CODEC = Codec(Secret(b"k" * 32))
SESSIONS = itertools.count()
SILENCE = 3.0
"""Ticks of an observer's own clock."""


class NamedShare(ToyShare):
    """A toy's share by its name, wherever it is mounted: beneath *base*."""

    def __init__(self, world: ToyWorld, base: Path = BASE) -> None:
        super().__init__(world)
        self._base = base

    def link_name(self, c: ToyExport) -> LinkName:
        return c.at or LinkName(str(self._base / c.share))

    def shares(self, c: ToyExport) -> frozenset[str]:
        return frozenset({c.share})


@dataclass
class Agent:
    """One process of a host's agent."""

    fleet: FleetHost
    guard: Guard
    driver: Driver
    records: Records


@dataclass
class Site:
    """One host: its world and its own store outlive its agent."""

    name: str
    world: ToyWorld
    local: Line
    line: Line
    boot: int = 1
    agent: Agent | None = None
    ran: set[GuestId] = field(default_factory=set)
    """Guests that were running when its power was cut."""
    loud: list[str] = field(default_factory=list)
    base: Path = BASE
    """Where its agent mounts shares."""


class ToyFleet:
    """Everything that there is, and what can be done to it. Effects are counted in each act."""

    def __init__(
        self,
        hosts: Sequence[str],
        guests: dict[str, str],
        *,
        beats_count: bool = True,
        backing: Backing | None = None,
        late: int = 0,
    ) -> None:
        """*guests*: which host each of them runs on. *backing*: hosts are enrolled there.
        *late*: so many passes later a controller hears what changed.
        """
        self.late = late
        self.backing = backing or toy_backing()
        self.beats_count = beats_count
        self.centre = ToyCentre()
        self.faults = WatchedFaults(self.centre.look)
        self.store = self.backing.store
        self.sites: dict[str, Site] = {}
        for name in hosts:
            world = ToyWorld(faults=self.faults)
            self.centre.hosts[name] = world
            lines = Line(MemoryStore(), self.faults), Line(self.backing.of(name), self.faults)
            lines[1].keep_late, lines[1].beats_count = True, beats_count
            self.sites[name] = Site(name, world, *lines)
        for guest, host in guests.items():
            self.sites[host].world.guests[GuestId(guest)] = MovableGuest(guest)
        self.person = self.book(Line(self.store, self.faults))
        if backing is None:
            for name in hosts:
                self.store.commit([], [Put(keys.host(name), HostRecord().encode())])
        self.sealed: set[tuple[str, str]] = set()
        """The guests and volumes that are LUKS."""
        self.clocks: dict[str, float] = {}
        self.controllers: dict[str, tuple[Controller, Line]] = {}
        self.controller_lines: list[Line] = []
        self.told: list[str] = []
        self.acting = ""
        """Whose act is under way."""

    def book(self, line: Line, host: str = "") -> Book:
        """What one host reads and writes; '': controllers."""
        seal = self.backing.seal_of(host)
        codec = CODEC if isinstance(seal, PlainSeal) else Codec(seal)
        return Book(line, codec, seal, line.cluster)

    def mover(self, name: str) -> ToyMover:
        """The host's hypervisor, which asks the agent before each start."""

        def guard(guest: GuestId) -> None:
            agent = self.sites[name].agent
            if agent is None:
                raise Unavailable("the agent does not run")
            agent.guard.demand(guest)

        return ToyMover(self.sites[name].world, self.centre, name, guard)

    def agent(self, name: str) -> Agent:
        """The agent that runs, or a new process of it."""
        site = self.sites[name]
        if site.agent is None:
            site.agent = self._agent(site)
        return site.agent

    def _agent(self, site: Site) -> Agent:
        mover, book = self.mover(site.name), self.book(site.line, site.name)
        records = Records(site.local, CODEC, site.name)
        backends = dict.fromkeys(self.backing.kinds, NamedShare(site.world, site.base))
        reconciler = Reconciler(records, backends, mover, Locks(patience=1.0))
        driver = Driver(records, reconciler)
        marks = Marks(site.local, site.name)
        guard = Guard(book, site.name, marks, lambda: str(site.boot), site.loud.append)
        fleet = FleetHost(
            book,
            site.name,
            f"s{next(SESSIONS)}",
            marks,
            guard,
            LocalVolumes(
                records, Admission(records, reconciler, mover), driver, mover, reconciler.unlock
            ),
            mover,
            lambda: str(site.boot),
            site.loud.append,
        )
        return Agent(fleet, guard, driver, records)

    def controller(self, name: str) -> tuple[Controller, Line]:
        """The controller of that name, or a new process of it."""
        if name not in self.controllers:
            line = Line(self.store, self.faults)
            line.keep_late, line.beats_count = True, self.beats_count
            self.clocks.setdefault(name, 0.0)
            self.controllers[name] = (
                Controller(
                    self.book(line),
                    f"{name}-{next(SESSIONS)}",
                    Clock(lambda: self.clocks[name]),
                    SILENCE,
                    self.told.append,
                    Changes(self.store, self.late),
                ),
                line,
            )
            self.controller_lines.append(line)
        return self.controllers[name]

    # What happens. Each act is one process's, and may end in its death.

    def agent_passes(self, name: str) -> None:
        """The host's agent takes a pass."""
        self.acting = name
        if name in self.centre.down:
            return
        try:
            self.survive(self.agent(name).fleet.advance)
        except Killed:
            self.sites[name].agent = None

    def heals(self, name: str) -> None:
        """The host's own loop brings its attachments to what they were wanted."""
        self.acting = name
        if name in self.centre.down:
            return
        try:
            self.survive(lambda: self._heal(self.agent(name)))
        except Killed:
            self.sites[name].agent = None

    def _heal(self, agent: Agent) -> None:
        if agent.guard.may_heal():
            for row in agent.records.all():
                of = row.key.guest, row.key.volume
                if agent.guard.waits(*of):
                    continue
                if row.want is Level.ABSENT or not agent.guard.disputes(*of):
                    agent.driver.push(row)

    def controller_passes(self, name: str) -> None:
        """A controller takes a pass."""
        self.acting = name
        try:
            self.survive(self.controller(name)[0].advance)
        except Killed:
            del self.controllers[name]

    def survive(self, do: Callable[[], object]) -> MoorlineError | None:
        """Return the error that *do* ended in. Raises Killed."""
        try:
            do()
        except MoorlineError as e:
            return e
        return None

    def power_off(self, name: str) -> None:
        """Cut the power: all that runs there is gone, and what is written stays."""
        site = self.sites[name]
        self.centre.down.add(name)
        site.agent = None
        for id, guest in list(site.world.guests.items()):
            assert isinstance(guest, MovableGuest)
            if guest.running and guest.copy.value == "running":
                site.ran.add(id)
            halt(guest)
            if not guest.defined and guest.copy.value == "incoming":
                del site.world.guests[id]
        site.world.mounts.clear()
        site.world.keys.clear()

    def power_on(self, name: str) -> None:
        """Let it boot: the agent, then libvirt, which asks it before it starts what ran."""
        site = self.sites[name]
        if name not in self.centre.down:
            return
        self.centre.down.discard(name)
        site.boot += 1
        site.agent = self._agent(site)
        for guest in sorted(site.ran):
            if guest in site.world.guests:
                self.survive(partial(self.mover(name).start, guest))
        site.ran.clear()

    def start(self, name: str) -> None:
        """Somebody starts all that is stopped on a host, by libvirt's own means."""
        if name in self.centre.down:
            return
        for guest, found in list(self.sites[name].world.guests.items()):
            if not found.running:
                self.survive(partial(self.mover(name).start, guest))

    def attach(
        self, guest: str, volume: str, share: str = "s1", *, encryption: Any = None
    ) -> Attachment:
        """A person attaches a volume; with *encryption*, a LUKS one."""
        ownership = Ownership(self.person)
        row = wanted(guest, volume, share)
        if encryption:
            told = dict(row.connection.reveal())
            told["data"] = {**told["data"], "format": "luks"}
            row = replace(row, connection=Secret({**told, "encryption": encryption}))
            self.sealed.add((guest, volume))
        return ownership.attach(ownership.find(guest), row)

    def detach(self, guest: str, volume: str) -> Attachment | None:
        """A person detaches a volume."""
        return Ownership(self.person).detach(GuestId(guest), VolumeId(volume))

    def change_host(self, name: str, **fields: bool) -> None:
        """A person cordons or drains a host, or ends that."""
        before = self.person.host(name)
        assert before is not None
        change = Change()
        change.replace(keys.host(name), before, replace(before, **fields))
        self.person.commit(change)

    def settle(self, rounds: int = 80, rest: int = 5) -> None:
        """Let everything come to rest: nothing happens in *rest* rounds.

        Fewer than it takes to find somebody silent are enough where nobody is.
        """
        still = 0
        for _ in range(rounds):
            before = self._picture()
            for name in self.sites:
                self.agent_passes(name)
                self.heals(name)
                self.sites[name].world.tick()
            for name in ("c1",):
                self.clocks[name] = self.clocks.get(name, 0.0) + 1.0
                self.controller_passes(name)
            still = still + 1 if self._picture() == before else 0
            if still >= rest:
                return
        raise AssertionError(f"no rest: {self._picture()}")

    def check(self, attached: dict[tuple[str, str], str]) -> None:
        """Assert that exactly this is there: a share for each guest and volume; all guests run.

        Each guest is on one host, and nothing of it is left on another.
        """
        assert not self.centre.violations
        owners = self.person.owners()
        assert not self.person.moves()
        home = {guest: owner.host for guest, owner in owners.items()}
        assert set(home) == {guest for site in self.sites.values() for guest in site.world.guests}
        for guest, host in home.items():
            self._check_guest(guest, host, {v for g, v in attached if g == guest})
        for name in self.sites:
            mine = {key: share for key, share in attached.items() if home[GuestId(key[0])] == name}
            self._check_host(name, {guest for guest in home if home[guest] == name}, mine)
        owned: set[tuple[str, str]] = set()
        places: set[str] = set()
        for entry in self.store.list(f"{keys.ROOT}owners/volumes/")[0]:
            volume = VolumeId(keys.last(entry.key))
            owner = self.person.volume_owner(volume)
            owned |= {(guest, volume) for guest in owner.guests} if owner else set()
            places |= set(map(keys.place, owner.places)) if owner else set()
        assert owned == set(attached)
        assert places == {entry.key for entry in self.store.list(f"{keys.ROOT}owners/places/")[0]}

    def _check_guest(self, guest: GuestId, host: str, volumes: set[str]) -> None:
        for name, site in self.sites.items():
            found = site.world.guests.get(guest)
            assert (found is not None) == (name == host), f"{guest} is on {name}"
            if found is not None:
                assert set(found.defined) == volumes, guest
                assert found.running, f"{guest} does not run"
                assert found.live.keys() == found.defined.keys()

    def _check_host(
        self, name: str, guests: set[GuestId], mine: dict[tuple[str, str], str]
    ) -> None:
        rows = {(r.key.guest, r.key.volume) for r in self.agent(name).records.all()}
        assert rows == set(mine), f"{name} has records of {rows}"
        assert set(self.sites[name].world.mounts.values()) == set(mine.values()), name
        assert set(self.sites[name].world.keys) == set(mine) & self.sealed, name
        desired = self.person.desired(name)
        assert set(desired.assignments) == guests
        assert set(desired.attachments) == set(mine)
        assert set(Marks(self.sites[name].local, name).guests()) == guests
        record = self.person.host(name)
        assert record is not None
        assert not record.fenced

    def _picture(self) -> object:
        entries, _ = self.store.list(keys.ROOT)
        kept = [(e.key, e.revision) for e in entries if not e.key.startswith(BEATS)]
        guests = {
            name: sorted(
                (id, g.running, str(g.live), str(g.defined)) for id, g in site.world.guests.items()
            )
            for name, site in self.sites.items()
        }
        return kept, guests


def wanted(guest: str, volume: str, share: str, *, shared: bool = False) -> Attachment:
    """What a person asks for."""
    data = {"share": share, "name": volume, "volume_id": volume}
    return Attachment(
        key=Key("", VolumeId(volume), GuestId(guest)),
        backend="toy",
        connection=Secret({"driver_volume_type": "toy", "data": data}),
        link=LinkName(""),
        place=derived("toy", share, volume),
        want=Level.ATTACHED,
        options=DiskOptions(shared=shared),
        aliases=(derived("toy", "", f"{share}/{volume}"),),
    )
