"""Settings to objects: the only file that names implementations."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from moorline import config
from moorline.api import Moorline
from moorline.care.doctor import Surroundings
from moorline.care.eventlog import Journal
from moorline.core.driver import silent
from moorline.core.locks import Lanes
from moorline.core.reconciler import Reconciler, Report, Took, unreported
from moorline.core.records import Records
from moorline.errors import Denied, Refused, Unavailable
from moorline.loop.controller import EVERY, Upkeep
from moorline.loop.drift import Looker
from moorline.loop.worker import Worker
from moorline.ports import Host, Hypervisor, Option, StorageBackend, Store, Values, Watching
from moorline.ports.guests import Machines

if TYPE_CHECKING:
    from moorline.hypervisors.libvirt.inventory import LibvirtInventory
    from moorline.hypervisors.vsphere import Provisioner

GROUP = "moorline.backends"


class Backends(Mapping[str, StorageBackend[Any]]):
    """The back ends that are installed, each made when it is first asked for."""

    def __init__(self, host: Host, values: Values) -> None:
        self._host = host
        self._values = values
        self._classes = {entry.name: entry for entry in entry_points(group=GROUP)}
        self._made: dict[str, StorageBackend[Any]] = {}

    def __getitem__(self, kind: str) -> StorageBackend[Any]:
        if kind not in self._made:
            backend: type[StorageBackend[Any]] = self._classes[kind].load()
            self._made[kind] = backend.from_options(self._host, self._values)
        return self._made[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)


def settings(
    files: Sequence[Path] = (), *, state_dir: Path | None = None, hypervisor: str | None = None
) -> config.Settings:
    """Read the configuration, with the options of all back ends. Raises Refused."""
    options = [*backend_options(), *config.POWERVM, *config.VSPHERE]
    return config.load(files, options, state_dir=state_dir, hypervisor=hypervisor)


def backend_options() -> list[Option]:
    """The options that the installed back ends declare, each once."""
    found = {
        option.name: option
        for entry in entry_points(group=GROUP)
        for option in entry.load().options
    }
    return [found[name] for name in sorted(found)]


class _Opened(NamedTuple):
    """What an owner is made of; *close* lets go of all of it."""

    moorline: Moorline
    records: Records
    host: Host
    backends: Backends
    hypervisor: Hypervisor
    lanes: Lanes
    report: Report


def open_host(
    given: config.Settings,
    *,
    own: bool = True,
    patience: float = 60.0,
    waiting: Callable[[str], None] = silent,
    report: Report = unreported,
) -> Moorline:
    """Open this host's state and hypervisor; close what is returned.

    *own*: be the host's owner, as all that changes something must; blocks up
    to *patience* seconds while another process is. Raises Busy, Denied,
    Unavailable. The hypervisor is connected when it is first asked something.
    *report* is told of every step that is taken.
    """
    return _open(given, own, patience, waiting, report).moorline


def open_agent(
    given: config.Settings,
    *,
    patience: float = 60.0,
    waiting: Callable[[str], None] = silent,
    report: Report = unreported,
    every: float = EVERY,
) -> tuple[Moorline, Upkeep]:
    """Open the host as its owner, with the loop that keeps its attachments as wished.

    Start the loop; stop it before closing. *every*: seconds between its sweeps.
    Raises as :func:`open_host`.
    """
    from moorline.host.mount.watch import MountTable
    from moorline.host.snapshot import Snapshot

    opened = _open(given, True, patience, waiting, report)
    records, hypervisor = opened.records, opened.hypervisor
    lanes = opened.lanes.impatient()  # workers have other things to do than wait
    hurried = Reconciler(records, opened.backends, hypervisor, lanes, opened.report)
    snapshot = Snapshot(opened.host)
    looking = Reconciler(records, Backends(snapshot, given.values), hypervisor, Lanes())
    watchers: list[Watching] = [MountTable()]
    if isinstance(hypervisor, Watching):
        watchers.append(hypervisor)
    upkeep = Upkeep(
        records,
        Worker(records, hurried),
        Looker(records, looking, hypervisor, snapshot.renew),
        watchers=watchers,
        every=every,
    )
    opened.moorline.pending = upkeep.pending
    return opened.moorline, upkeep


def _open(
    given: config.Settings,
    own: bool,
    patience: float,
    waiting: Callable[[str], None],
    report: Report,
) -> _Opened:
    from moorline.host.linux import Linux
    from moorline.host.lock import HostLock
    from moorline.stores.codec import Codec
    from moorline.stores.sqlite import SqliteStore

    _make_state_dir(given.state_dir)
    with ExitStack() as stack:
        if own:
            lock = HostLock(given.state_dir / "lock")
            lock.take(patience, waiting)
            stack.callback(lock.release)
        store = SqliteStore(given.state_dir / "moorline.db")
        stack.callback(store.close)
        codec = Codec.from_file(given.state_dir / "key")
        host = Linux()
        stack.callback(host.close)
        hypervisor = open_hypervisor(given, store, host, own=own)
        stack.callback(hypervisor.close)
        machines = open_machines(given)
        if machines is not None:
            stack.callback(machines.close)
        lanes = Lanes()
        backends = Backends(host, given.values)
        around, inventory = _surroundings(given, host, backends)
        noted = around.journal.noted
        records = Records(store, codec, config.host_name(given), noted)
        if inventory is not None:
            stack.callback(inventory.close)
        told = _both(around.journal.took, report)
        reconciler = Reconciler(records, backends, hypervisor, lanes, told)
        close = stack.pop_all().close
        moorline = Moorline(records, reconciler, hypervisor, machines, around=around, close=close)
        return _Opened(moorline, records, host, backends, hypervisor, lanes, told)
    raise AssertionError("unreachable")


def _surroundings(
    given: config.Settings, host: Host, backends: Backends
) -> tuple[Surroundings, LibvirtInventory | None]:
    from moorline.host.mount.fuse import FuseConnections
    from moorline.host.state import examine
    from moorline.hypervisors.libvirt.inventory import LibvirtInventory

    elsewhere = given.hypervisor.startswith(("powervm:", "vsphere:"))
    inventory = None if elsewhere else LibvirtInventory(given.hypervisor)
    around = Surroundings(
        backends,
        host.mounts,
        FuseConnections(),
        inventory,
        Journal(given.state_dir),
        lambda: examine(given.state_dir),
    )
    return around, inventory


def _both(journal: Report, report: Report) -> Report:
    def told(took: Took) -> None:
        journal(took)
        report(took)

    return told


def open_hypervisor(given: config.Settings, store: Store, host: Host, *, own: bool) -> Hypervisor:
    """Return the hypervisor that is set, not connected yet. Raises Refused, Denied."""
    if given.hypervisor.startswith("powervm:"):
        return _powervm(given, store, host, own=own)
    if given.hypervisor.startswith("vsphere:"):
        return _vsphere(given)
    from moorline.hypervisors.libvirt import Libvirt

    return Libvirt(given.hypervisor, measure=host.size)


def open_machines(given: config.Settings) -> Machines | None:
    """Return what makes and removes guests, not connected yet; None: nothing here does."""
    if given.hypervisor.startswith(("powervm:", "vsphere:")):
        return None
    from moorline.hypervisors.libvirt import LibvirtMachines

    return LibvirtMachines(given.hypervisor)


def _vsphere(given: config.Settings) -> Hypervisor:
    vsphere = _vsphere_parts()
    session = vsphere.Session(vsphere.Logon.from_uri(given.hypervisor, given.values))
    hypervisor: Hypervisor = vsphere.VSphere(session)
    return hypervisor


@contextmanager
def open_provisioner(
    given: config.Settings,
    name: str,
    *,
    patience: float = 60.0,
    waiting: Callable[[str], None] = silent,
) -> Iterator[Provisioner]:
    """Open what makes and removes machines on vSphere, for the machine *name* ('': only to look).

    Nothing of a machine is in this host's state, so neither the owner's lock nor
    an agent is needed; two on this host who make the same machine wait for each
    other, up to *patience* seconds. Raises Refused, Denied, Busy.
    """
    from moorline.host.lock import HostLock

    if not given.hypervisor.startswith("vsphere:"):
        raise Refused(f"{given.hypervisor} is no vCenter", hint="--hypervisor vsphere://HOST")
    vsphere = _vsphere_parts()
    with ExitStack() as stack:
        if name:
            _make_state_dir(given.state_dir)
            id = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]  # a name may be no file's
            lock = HostLock(given.state_dir / f"launch-{id}.lock", f"is at work on {name}")
            lock.take(patience, waiting)
            stack.callback(lock.release)
        session = vsphere.Session(vsphere.Logon.from_uri(given.hypervisor, given.values))
        stack.callback(session.close)
        yield vsphere.Provisioner(session)


def _vsphere_parts() -> ModuleType:
    try:
        from moorline.hypervisors import vsphere
    except ModuleNotFoundError as e:
        raise Refused(f"vSphere cannot be used: {e}", hint="pip install 'moorline[vsphere]'") from e
    return vsphere


def _powervm(given: config.Settings, store: Store, host: Host, *, own: bool) -> Hypervisor:
    try:
        with warnings.catch_warnings():
            # oslo.utils tries to import eventlet, which warns wherever it is installed.
            warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
            from moorline.hypervisors.powervm import Logon, NovaLink, PowerVM, StoredSlots
    except ModuleNotFoundError as e:
        raise Refused(f"PowerVM cannot be used: {e}", hint="pip install 'moorline[powervm]'") from e
    novalink = NovaLink(Logon.from_uri(given.hypervisor, given.values))
    slots = StoredSlots(store, config.host_name(given), own=own)

    def look(path: Path) -> None:
        host.image(path.parent, path.name, "raw")

    return PowerVM(novalink, slots, look, host.size)


def _make_state_dir(path: Path) -> None:
    try:
        # QEMU's user must get through to the mount points; the files are for their owner alone.
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
    except PermissionError as e:
        raise Denied(
            f"the state directory {path} cannot be made: {e.strerror}",
            hint="run as root, or give --state-dir",
        ) from e
    except OSError as e:
        raise Unavailable(f"the state directory {path} cannot be made: {e.strerror}") from e
