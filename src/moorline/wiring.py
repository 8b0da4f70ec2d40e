"""Makes the objects of an opened host from its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from moorline import config, installed
from moorline.api import Moorline
from moorline.care.environment import Environment
from moorline.care.eventlog import EventLog
from moorline.care.shared_files import SharedFiles
from moorline.core.admission import Admission
from moorline.core.backoff import Pending
from moorline.core.claims import Claims
from moorline.core.connection_renewal import ConnectionRenewer
from moorline.core.driver import Driver
from moorline.core.file_clashes import FileClashes, opened_by
from moorline.core.file_locking import FileLocking
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.reservations import Reservations
from moorline.core.state_owner import Identity, Owner
from moorline.core.took import Report, both, no_report
from moorline.errors import Refused
from moorline.fleet.host_memory import Marks
from moorline.installed import InstalledBackends
from moorline.ports import (
    GuestLifecycle,
    Host,
    Hypervisor,
    Inspecting,
    MakingGuests,
    OpenContext,
    Settling,
    Store,
    Watching,
)
from moorline.ports.guarding import Guarding
from moorline.ports.progress import no_progress
from moorline.ports.volume_service import VolumeService
from moorline.state_wiring import (
    demand_followers,
    guard_of,
    kept_elsewhere,
    known_states,
    launched_elsewhere,
    make_known,
    make_state_dir,
    owner_of,
    volume_service_of,
)

if TYPE_CHECKING:
    from moorline.fleet.host_threads import Following
    from moorline.loop.controller import Controller
    from moorline.stores.etcd.joining import Membership

_LEAVING_PATIENCE_SECONDS = 2.0
"""To wait for the end of whoever owns the host: an agent does not end."""


def settings(
    files: Sequence[Path] = (), *, state_dir: Path | None = None, hypervisor: str | None = None
) -> config.Settings:
    """Read the configuration, with the options of all that is installed. Raises Refused."""
    return config.load(files, installed.options, state_dir=state_dir, hypervisor=hypervisor)


class OpenedAgent(NamedTuple):
    """What an agent runs. Start *following* first, stop all before closing *moorline*."""

    moorline: Moorline
    controller: Controller
    following: Following | None
    """None: this host is in no fleet."""


class _Opened(NamedTuple):
    """The objects of an opened host; *close* closes them all."""

    records: Records
    backends: InstalledBackends
    hypervisor: Hypervisor
    lifecycle: GuestLifecycle[Any] | None
    report: Report
    file_clashes: FileClashes
    turns: FileLocking
    looking: Callable[[], InstalledBackends]
    environment: Environment
    guard: Guarding
    marks: Marks
    volume_service: Callable[[], VolumeService]
    close: Callable[[], None]

    def facade(
        self,
        reconciler: Reconciler,
        driver: Driver | None = None,
        pending: Callable[[], Sequence[Pending]] = tuple,
        reservations: Reservations | None = None,
    ) -> Moorline:
        return Moorline(
            self.records,
            reconciler,
            self.hypervisor,
            self.lifecycle,
            environment=self.environment,
            guard=self.guard,
            driver=driver,
            pending=pending,
            reservations=reservations or self.reservations(reconciler),
            close=self.close,
        )

    def reservations(self, reconciler: Reconciler) -> Reservations:
        return Reservations(self.records, reconciler, self.hypervisor, self.volume_service)

    def reconciler(self) -> Reconciler:
        return Reconciler(
            self.records,
            self.backends,
            self.hypervisor,
            Locks(),
            self.report,
            self.file_clashes,
            self.turns,
            self.looking,
        )


def open_host(
    given: config.Settings,
    *,
    own: bool = True,
    patience: float = 60.0,
    waiting: Callable[[str], None] = no_progress,
    report: Report = no_report,
) -> Moorline:
    """Open this host's state and hypervisor; close what is returned.

    *own*: be the host's owner, as all that changes something must; blocks up
    to *patience* seconds while another process is. Without, nothing is made:
    where there is no state, it is an empty one. Raises Busy, Denied, Refused (the
    state is another's), Unavailable. The hypervisor is connected when it is first
    asked something.
    *report* is told of every step that is taken.
    """
    opened = _open(given, own, patience, waiting, report)
    return opened.facade(opened.reconciler())


def open_agent(
    given: config.Settings,
    *,
    patience: float = 60.0,
    waiting: Callable[[str], None] = no_progress,
    report: Report = no_report,
    every: float | None = None,
) -> OpenedAgent:
    """Open the host as its owner, with the loop that keeps its attachments as wanted.

    *every*: seconds between its sweeps (None: a minute). Raises as :func:`open_host`.
    """
    from moorline.host.mount.watch import MountTable
    from moorline.loop.controller import SWEEP_INTERVAL_SECONDS, Controller
    from moorline.loop.drift import DriftDetector
    from moorline.loop.reservation_keeper import ReservationKeeper
    from moorline.loop.worker import Hindrance, Worker, unhindered

    member = _membership(given)
    opened = _open(given, True, patience, waiting, report)
    records, hypervisor = opened.records, opened.hypervisor
    reconciler, claims = opened.reconciler(), Claims()
    driver = Driver(records, reconciler, claims)
    reservations = opened.reservations(reconciler)
    following: Following | None = None
    hindrance: Hindrance = unhindered
    if member is not None:
        from moorline.fleet_wiring import follow, memory_for_guests

        demand_followers(given, opened.marks)
        followed = follow(
            member,
            opened.marks,
            records,
            reconciler,
            driver,
            hypervisor,
            opened.environment.event_log.saw,
            opened.environment.event_log.news,
            memory_for_guests(given.agent["agent_fleet_memory"]),
        )
        following, hindrance = followed.following, followed.hindrance
        closing = ExitStack()
        closing.callback(opened.close)
        closing.callback(followed.close)
        opened = opened._replace(guard=followed.guard, close=closing.close)
    admission = Admission(records, reconciler, hypervisor, opened.guard)
    renewer = ConnectionRenewer(records, reservations, admission, driver)
    keeper = ReservationKeeper(reservations, renewer)
    watchers = [each for each in (MountTable(), keeper, hypervisor) if isinstance(each, Watching)]
    controller = Controller(
        records,
        Worker(driver, hindrance),
        DriftDetector(records, reconciler, hypervisor),
        claims,
        watchers=watchers,
        every=SWEEP_INTERVAL_SECONDS if every is None else every,
    )
    facade = opened.facade(reconciler, driver, controller.pending, reservations)
    return OpenedAgent(facade, controller, following)


def leave_fleet(
    given: config.Settings, *, vouch: str, dry_run: bool = False
) -> tuple[Sequence[str], str]:
    """Make this host one of its own; return the guests that it has, and why the fleet was not told.

    *vouch*: why a person is sure that no other host gets them. Raises Refused (one is not this
    host's alone; nobody vouches; it is in no fleet), Busy (its agent runs), Denied, Unavailable.
    """
    from moorline.fleet.leaving import leave
    from moorline.fleet_wiring import depart

    directory = config.fleet_dir(given)
    opened = _open(given, True, _LEAVING_PATIENCE_SECONDS, no_progress, no_report)
    with closing(opened):
        joined = directory is not None and config.has_credentials(directory)
        if not (joined or opened.marks.epoch()):
            raise Refused("this host is in no fleet")
        guests = leave(opened.marks, opened.environment.event_log.saw, vouch=vouch, dry_run=dry_run)
    return guests, "" if directory is None or dry_run else depart(directory)


def _membership(given: config.Settings) -> Membership | None:
    """This host as one of a fleet; None: it is in none. Raises Denied, Unavailable, Refused."""
    directory = config.fleet_dir(given)
    if directory is None or not config.has_credentials(directory):
        return None
    with installed.for_fleets():
        from moorline.stores.etcd.joining import Membership
    return Membership.open(directory)


def _open(
    given: config.Settings,
    own: bool,
    patience: float,
    waiting: Callable[[str], None],
    report: Report,
) -> _Opened:
    from moorline.host.file_lock import FileLock
    from moorline.host.linux import Linux
    from moorline.host.state_lock import HostLock
    from moorline.stores.codec import Codec
    from moorline.stores.sqlite import SqliteStore

    with ExitStack() as stack:
        if own:
            make_state_dir(given.state_dir)
            lock = HostLock(given.state_dir / "lock")
            lock.take(patience, waiting)
            stack.callback(lock.release)
        store = SqliteStore(given.state_dir / "moorline.db", make=own)
        stack.callback(store.close)
        codec = Codec.from_file(given.state_dir / "key", make=own)
        host = Linux()
        stack.callback(host.close)
        known = known_states(host)
        owner = owner_of(given, store, codec, known)
        name = _whose(given, owner, own)
        if own:
            make_known(given, store, known)
        driver = installed.driver(given.hypervisor)
        values = config.only(given.values, driver.options)
        context = OpenContext(values, host, store, name, own, partial(owner.on_identity, own=own))
        hypervisor = driver.open(given.hypervisor, context)
        stack.callback(hypervisor.close)
        lifecycle = hypervisor.lifecycle() if isinstance(hypervisor, MakingGuests) else None
        backends = InstalledBackends(host, given.values)
        environment = _environment_of_host(given, host, store, backends, hypervisor)
        noted = environment.event_log.noted
        records = Records(store, codec, name, noted)
        told = both(environment.event_log.took, report)
        file_clashes = FileClashes(host, opened_by(hypervisor))
        settled = hypervisor.settled if isinstance(hypervisor, Settling) else None
        turns = FileLocking(host, FileLock, settled)
        looking = partial(_looking, backends, host)
        marks = Marks(store, name)
        close = stack.pop_all().close
        return _Opened(
            records,
            backends,
            hypervisor,
            lifecycle,
            told,
            file_clashes,
            turns,
            looking,
            environment,
            guard_of(given, marks, environment.event_log.saw),
            marks,
            volume_service_of(given, name),
            close,
        )
    raise AssertionError("unreachable")


def _looking(backends: InstalledBackends, host: Host) -> InstalledBackends:
    """The back ends, for a look in which each share is asked once."""
    from moorline.host.caching_host import Snapshot

    return backends.on(Snapshot(host))


def _whose(given: config.Settings, owner: Owner, own: bool) -> str:
    """The name of this host in its records. Raises Refused if the state has another owner."""
    now = _identity(given, owner)
    owner.check(now, own=own)
    if own and not given.host:
        config.remember_host(given, now.host)
    return now.host


def _identity(given: config.Settings, owner: Owner) -> Identity:
    """The owner that a state would have that is made here and now."""
    from moorline.host.machine_id import machine_id_digest

    name = given.host or owner.host() or config.host_name(given, remember=False)
    return Identity(name, machine_id_digest(), config.hypervisor_of(given))


@contextmanager
def open_state(given: config.Settings, *, own: bool) -> Iterator[tuple[Owner, Identity]]:
    """Open the record of the state's owner, without a check; and the present owner.

    *own*: as of :func:`open_host`. Raises Refused (there is no state), Busy, Denied, Unavailable.
    """
    from moorline.host.linux import Linux
    from moorline.host.state_lock import HostLock
    from moorline.stores.codec import Codec
    from moorline.stores.sqlite import SqliteStore

    if not (given.state_dir / "moorline.db").exists():
        raise Refused(f"there is no state in {given.state_dir}")
    with ExitStack() as stack:
        if own:
            lock = HostLock(given.state_dir / "lock")
            lock.take(0.0, no_progress)
            stack.callback(lock.release)
        store = stack.enter_context(closing(SqliteStore(given.state_dir / "moorline.db")))
        host = stack.enter_context(closing(Linux()))
        codec = Codec.from_file(given.state_dir / "key", make=own)
        owner = owner_of(given, store, codec, known_states(host))
        yield owner, _identity(given, owner)


def has_state(given: config.Settings) -> bool:
    """Whether anything is recorded in the state directory. Raises Denied, Unavailable, Refused."""
    from moorline.stores.sqlite import SqliteStore

    with closing(SqliteStore(given.state_dir / "moorline.db", make=False)) as store:
        return bool(store.list("/moorline/")[0])


def _environment_of_host(
    given: config.Settings,
    host: Host,
    store: Store,
    backends: InstalledBackends,
    hypervisor: Hypervisor,
) -> Environment:
    from moorline.host.image.growing import grow
    from moorline.host.mount.fuse_abort import FuseConnections
    from moorline.host.state_dir import examine

    return Environment(
        backends,
        host.mounts,
        FuseConnections(),
        hypervisor.inventory() if isinstance(hypervisor, Inspecting) else None,
        EventLog(given.state_dir),
        lambda: examine(given.state_dir),
        SharedFiles(host, opened_by(hypervisor)).find,
        host.size,
        kept_elsewhere(store, known_states(host)),
        launched_elsewhere(store, known_states(host)),
        partial(grow, host.run),
    )
