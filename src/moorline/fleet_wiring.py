"""Credentials to a fleet: what its hosts, controllers and whoever orders them are made of."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from moorline import config
from moorline.core import luks
from moorline.core.admission import Admission
from moorline.core.connection_fields import disk_options, usable_id
from moorline.core.driver import Driver
from moorline.core.locks import Locks
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.deadline import Deadline
from moorline.errors import MoorlineError, NotFound, Refused
from moorline.fleet import fencing_proofs
from moorline.fleet.controller import Controller
from moorline.fleet.event_sender import News
from moorline.fleet.fencing import Proof
from moorline.fleet.fleet import Fleet
from moorline.fleet.guest_sender import Sending
from moorline.fleet.host import FleetHost
from moorline.fleet.host_memory import Marks
from moorline.fleet.host_threads import Following
from moorline.fleet.hosts_at_rest import ChangedHosts
from moorline.fleet.leaving import farewell
from moorline.fleet.local_volumes import LocalVolumes
from moorline.fleet.record_store import Book
from moorline.fleet.start_guard import Guard
from moorline.host.boot_id import boot_id
from moorline.host.linux import Linux
from moorline.installed import InstalledBackends, for_fleets
from moorline.model import Attachment, DiskOptions, Format, GuestId, Key, Level, LinkName
from moorline.ports import Hypervisor, Watching
from moorline.ports.moving import MovingHypervisor
from moorline.secret import Secret
from moorline.state_wiring import host_called
from moorline.stores.codec import Codec
from moorline.stores.key_files import private

if TYPE_CHECKING:
    from moorline.stores.etcd.administration import Administration
    from moorline.stores.etcd.joining import Membership

_OF_THE_HOST_MIB = 512
"""What the host itself needs, as Nova has it by default."""
_LOG = logging.getLogger("moorline.fleet")


@contextmanager
def open_fleet(directory: Path) -> Iterator[Fleet]:
    """The fleet, for one who gives it orders with the credentials in *directory*.

    Raises NotFound (there are none), Refused, Denied, Unavailable.
    """
    with _fleet_book(directory) as book:
        yield Fleet(book)


def run_fleet_controller(
    directory: Path,
    every: float,
    told: Callable[[str], None],
    beside: Callable[[Fleet], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> None:
    """Be one of the fleet's controllers until interrupted. Blocks.

    *every*: seconds between its passes. *beside*: what is open meanwhile.
    """
    with (
        _fleet_book(directory) as book,
        beside(Fleet(book)),
        ChangedHosts(book.store) as changed,
    ):
        controller = Controller(book, uuid.uuid4().hex, told=told, changed=changed)
        while True:
            deadline = Deadline(every)
            try:
                controller.advance()
            except MoorlineError as e:
                told(f"this pass is not done: {e}")
            deadline.sleep(every)


def administration(directory: Path) -> Administration:
    """The fleet that is administered from *directory*. Raises Refused."""
    with for_fleets():
        from moorline.stores.etcd.administration import Administration
    return Administration(directory)


def join_fleet(
    file: Path, directory: Path, given: config.Settings, *, dry_run: bool = False
) -> str:
    """Install the credentials in *file*, which must be for its owner alone; return whose they are.

    Raises Refused (it is no such file, or another host's), Denied, Unavailable.
    """
    with for_fleets():
        from moorline.stores.etcd.joining import Joining
    from moorline.stores.key_files import private

    joining = Joining.load(private(file).reveal())
    # Elsewhere may be the credentials of a host whose state is not the one that is opened here.
    own = config.fleet_dir(given) or config.FLEET_DIR
    joining.check(directory, host_called(given) if directory.resolve() == own.resolve() else "")
    if not dry_run:
        joining.install(directory)
    return joining.host


def depart(directory: Path) -> str:
    """Remove this host's credentials, once the fleet was told; return why it was not; ''."""
    with for_fleets():
        from moorline.stores.etcd.joining import Membership, uninstall
        from moorline.stores.etcd.store import EtcdStore
    untold = ""
    try:
        member = Membership.open(directory)
        with closing(EtcdStore(member.access)) as store:
            farewell(Book(store, Codec(member.box), member.box), member.host)
    except NotFound:
        pass  # they were removed before
    except MoorlineError as e:
        untold = e.message
    uninstall(directory)
    return untold


def write_credentials(credentials: Secret[bytes], to: Path) -> None:
    """Write them to a new file, for its owner alone. Raises Refused (it exists), Unavailable."""
    from moorline.stores.key_files import write_new

    write_new(to, credentials.reveal())


class Followed(NamedTuple):
    """What a host that follows a fleet has besides; *close* closes the fleet's store."""

    guard: Guard
    following: Following
    hindrance: Callable[[Key], str]
    close: Callable[[], None]


def follow(
    member: Membership,
    marks: Marks,
    records: Records,
    reconciler: Reconciler,
    driver: Driver,
    hypervisor: Hypervisor,
    saw: Callable[[str], None],
    news: News,
    memory: int,
) -> Followed:
    """Have a host that is opened follow its fleet. *saw*: writes down what people must hear of;
    *news*: what is written down; *memory*: MiB that guests may have here in all.

    Raises Refused: the guests of this hypervisor stay on their host.
    """
    if not isinstance(hypervisor, MovingHypervisor):
        raise Refused(f"{hypervisor.kind} guests cannot be of a fleet: they stay on their host")
    with for_fleets():
        from moorline.stores.etcd.store import EtcdStore
    store = EtcdStore(member.access)
    book = Book(store, Codec(member.box), member.box, store.cluster)
    guard = Guard(book, member.host, marks, boot_id, saw)
    mover = Sending(hypervisor)

    def loud(text: str) -> None:
        following.copies_stopped += 1
        _LOG.error("%s", text)
        saw(text)

    host = FleetHost(
        book,
        member.host,
        uuid.uuid4().hex,
        marks,
        guard,
        LocalVolumes(
            records,
            Admission(records, reconciler, hypervisor),
            driver,
            hypervisor,
            reconciler.unlock,
        ),
        mover,
        boot_id,
        loud,
        news,
        memory,
    )
    watchers = [hypervisor] if isinstance(hypervisor, Watching) else []
    following = Following(host, member.host, store, watchers)
    mover.ended = following.wake
    guard.recorded = following.wake

    def hindrance(key: Key) -> str:
        try:
            row = records.get(key) if guard.disputes(key.guest, key.volume) else None
            if row is not None and row.want > Level.ABSENT:
                return "another has the volume in the fleet, and this host attached it without that"
            waits = not following.tried.is_set() or guard.waits(key.guest, key.volume)
            if waits and (key.guest, key.volume) in marks.volumes():
                return "it cannot be told yet whether the fleet has given it to another host"
        except MoorlineError as e:
            return str(e)
        return ""

    def close() -> None:
        with suppress(MoorlineError):
            host.end()
        store.close()

    return Followed(guard, following, hindrance, close)


def memory_for_guests(said: str) -> int:
    """MiB that guests may have on this machine, as was said or as it has. Raises Refused."""
    if not said:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
        return max(1, machine - _OF_THE_HOST_MIB)
    if not (said.isascii() and said.isdigit() and int(said) > 0):
        raise Refused(f"the option agent_fleet_memory is {said[:80]!r}, no number of MiB")
    return int(said)


@contextmanager
def _fleet_book(directory: Path) -> Iterator[Book]:
    with for_fleets():
        from moorline.stores.etcd.administration import orders
    with orders(directory) as (store, box):
        yield Book(store, Codec(box), box)


def wanted_of_fleet(
    given: config.Settings,
    connection: Mapping[str, Any] | str,
    format: Format | None,
    volume: str | None,
    options: DiskOptions,
) -> Attachment:
    """What the fleet may be asked to attach: parsed by the back ends that are installed here.

    Where it is on its host, that host finds. Raises Refused, Denied (who asks may not name it).
    """
    host = Linux()
    try:
        nothing: Any = None  # admitting asks nothing but the back ends
        backends = InstalledBackends(host, given.values)
        reconciler = Reconciler(nothing, backends, nothing, Locks())
        accepted = Admission(nothing, reconciler, nothing).admit(connection, format)
        luks.demand_known(accepted.connection, reconciler.backend(accepted.backend))
    finally:
        host.close()
    if volume is not None and accepted.volume and volume != accepted.volume:
        raise Refused(f"the connection is of volume {accepted.volume}, not {volume}")
    id = usable_id(volume or accepted.volume or accepted.id)
    return Attachment(
        key=Key("", id, GuestId("")),
        backend=accepted.backend,
        connection=Secret(accepted.connection),
        link=LinkName(""),
        place=accepted.id,
        want=Level.ATTACHED,
        options=disk_options(options, accepted.connection, hands_off=False),
        since=time.time(),
        aliases=accepted.aliases,
    )


def proof_of_fencing(word: str | None, agent: Path | None, options: Path | None) -> Proof:
    """How it is proved that a host is dead. Raises Refused, Denied (others can read *options*)."""
    if agent is None:
        return fencing_proofs.word(word or "")
    told = private(options).reveal().decode() if options else ""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return fencing_proofs.fence_agent(Linux(), agent.absolute(), lines)
