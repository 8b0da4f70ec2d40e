"""The seams: what the core asks of the outside world.

Questions return the truth, bounded in time. Commands return nothing and are
idempotent; whether they worked is for the next question to tell. What each
error family means is said once, in :mod:`moorline.errors`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from moorline.model import (
    Disk,
    DiskOptions,
    DiskSource,
    Format,
    Guest,
    GuestId,
    GuestName,
    Link,
    LinkName,
    Sizes,
    VolumeId,
)
from moorline.secret import Secret

# --- options ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """A setting that an adapter declares, under the name that operators know."""

    name: str
    default: str
    """May refer to ``${moorline.state_dir}``."""
    help: str
    group: str = "libvirt"
    """The section of the configuration file; Nova's is ``libvirt``."""


Values = Mapping[str, str]
"""The values of the options that an adapter declared, by name."""


# --- storage ---------------------------------------------------------------


class Connection(Protocol):
    """What every parsed connection can tell. Back ends add what they need."""

    @property
    def volume(self) -> VolumeId | None:
        """The volume's id, if the connection bears one."""

    @property
    def name(self) -> str:
        """The volume's own name within its link ('' if the link is the volume)."""


C = TypeVar("C", bound=Connection)


class StorageBackend(Protocol[C]):
    """Makes a volume reachable on this host."""

    kind: ClassVar[str]
    """Cinder's ``driver_volume_type``; also the scheme of the URLs people type."""
    yields: ClassVar[frozenset[type]]
    """The classes of disk source that :meth:`inspect` can return."""
    options: ClassVar[Sequence[Option]]
    """What can be configured."""

    @classmethod
    def from_options(cls, host: Host, values: Values) -> StorageBackend[C]:
        """Make one. Raises Refused if a value is unusable."""

    def from_url(self, url: str, format: Format | None) -> Mapping[str, Any]:
        """Turn what a person types into a connection. Raises Refused."""

    def parse(self, connection: Mapping[str, Any]) -> C:
        """Validate untrusted input; touch nothing. Raises Refused."""

    def link_name(self, c: C) -> LinkName:
        """Where the link appears. Connections with equal names share the link."""

    def inspect(self, c: C) -> Link:
        """Tell what is there. Bounded: a share that hangs is Unknown."""

    def verify(self, c: C) -> None:
        """Check that the volume on the link may be given to a guest. Bounded.

        Raises Refused with the reason (no such file, outside the share, not of
        the declared format), Failed, Uncertain (no answer within the deadline).
        """

    def connect(self, c: C) -> None:
        """Make the link. May block up to the client command's deadline.

        Raises Refused, Failed, Uncertain (deadline passed), NotOurs.
        """

    def disconnect(self, c: C) -> None:
        """Take the link away; its absence is success. May block like connect.

        Raises Failed (busy), Uncertain, NotOurs.
        """


Backends = Mapping[str, StorageBackend[Any]]


# --- hypervisor ------------------------------------------------------------


class Hypervisor(Protocol):
    """Plugs disk sources into guests."""

    kind: ClassVar[str]
    accepts: ClassVar[frozenset[type]]
    """The classes of disk source that :meth:`attach` takes."""

    def find(self, guest: str) -> GuestName:
        """Look a guest up by name or id. Raises NotFound, Unavailable, Uncertain."""

    def survey(self) -> Sequence[Guest]:
        """Every guest on this host, running or stopped, in few calls.

        All or nothing: raises Uncertain or Unavailable if one guest cannot be
        looked at, because what it uses is then unknown.
        """

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        """The guest's disks that bear our mark. A guest that is gone has none.

        Raises Unavailable, Uncertain.
        """

    def check(self, guest: GuestId, source: DiskSource, options: DiskOptions) -> None:
        """Refuse now what attach would refuse later; touch nothing. Raises Refused."""

    def attach(
        self, guest: GuestId, volume: VolumeId, source: DiskSource, options: DiskOptions
    ) -> None:
        """Plug the source in, marked with the volume's id in the same call.

        Live and persistently in a running guest, persistently in a stopped
        one. Heals PARTIAL. Already there is success.
        Raises Refused, Failed, Uncertain (may have happened), NotOurs.
        """

    def detach(self, guest: GuestId, volume: VolumeId) -> None:
        """Ask for the disk that bears the volume's mark to go, and wait a moment.

        Returning does not mean that it is gone: ask :meth:`disks`. A guest
        that was not listening is asked again by calling this again.
        Raises Failed, Uncertain.
        """

    def close(self) -> None:
        """Drop the connection to the hypervisor."""


@runtime_checkable
class ExtendingHypervisor(Hypervisor, Protocol):
    """A hypervisor that can let a guest see that its disk became larger."""

    def sizes(self, guest: GuestId, volume: VolumeId) -> Sizes:
        """How large the disk that bears the volume's mark is. Bounded in time.

        Raises NotFound (the guest has no such disk), Refused (it cannot be
        extended), Failed, Unavailable, Uncertain.
        """

    def extend(self, guest: GuestId, volume: VolumeId, size: int) -> int:
        """Let the guest see *size* bytes, and return how many it was told of.

        *size* is what :meth:`sizes` says of the storage, if it says anything:
        then nothing of the storage is changed, least of all made shorter. As
        large already is success. Raises as :meth:`sizes`.
        """


Wake = Callable[[GuestId | None], None]
"""Told that something changed: with a guest, or with anything (None). Never blocks."""


@runtime_checkable
class Watching(Protocol):
    """What can tell that the world changed, so that nobody needs to look all the time."""

    def watch(self, wake: Wake, stop: threading.Event) -> None:
        """Tell each change until *stop* is set. Blocks until then, and raises nothing.

        Changes may be told late, twice, or lost: whoever must know looks now
        and then. After a time in which it was blind it wakes all.
        """


# --- store -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored value; *revision* is that of the last commit that wrote it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class At:
    """Demands that *key* is still at *revision* (0: that it does not exist)."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a key. *entry* None: deleted. *key* '': all up to *revision* is told."""

    revision: int
    key: str
    entry: Entry | None


class Store(Protocol):
    """A small ordered map with atomic conditional commits.

    Keys are ``/``-separated UTF-8, ordered bytewise; prefixes end in ``/``.
    Values are opaque, at most 256 KiB. Each commit that succeeds has one
    revision, greater than all before it; gaps are legal. A commit is atomic,
    linearizable, durable when it returns, of at most 100 operations, and names
    a key at most once.

    All methods may block for the engine's time-out, and raise Unavailable
    (nothing changed), Denied, or, from commit alone, Conflict (nothing
    changed) and Uncertain (it may have been applied: read again).
    """

    def get(self, key: str) -> Entry | None: ...

    def list(self, prefix: str) -> tuple[list[Entry], int]:
        """One snapshot of all entries below *prefix*, in order, and its revision."""

    def commit(self, when: Sequence[At], then: Sequence[Put | Delete]) -> int:
        """Apply *then* if all of *when* holds; return the new revision."""

    def watch(self, prefix: str, after: int, stop: threading.Event) -> Iterator[Event]:
        """Tell each change after revision *after*, in order, until *stop* is set.

        Intermediate states may be skipped, a final one never. Raises Compacted.
        """

    def close(self) -> None: ...


# --- host ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """A process to start: arguments, never a shell line."""

    argv: tuple[str, ...]
    deadline: float
    """Seconds after which its process group is killed and Uncertain is raised."""
    stdin: Secret[str] | None = None
    user: str = ""
    """Run as this user ('' keeps ours)."""
    outlives: bool = False
    """It leaves a daemon behind that must outlive us: a scope of its own under systemd."""
    hold: Path | None = None
    """A file that is kept locked until the command and all that it started have
    ended, even if we are killed. Locked already: Busy is raised."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command printed; it exited 0."""

    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function to call in a process of its own: slow to import, or it may hang."""

    name: str
    """Whose library it is, for people to read."""
    module: str
    """Has ``answer(question)``; it is imported once, and called in forks of that process."""
    question: Secret[Mapping[str, Any]]
    """What can be written as JSON; it goes through a socket."""
    deadline: float
    """Seconds after which it is killed with all that it started, and Uncertain is raised."""
    hold: Path | None = None
    """As a command's: kept locked until the process has ended, even if we are killed first."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    id: int
    source: str
    target: str
    fstype: str
    device: str
    """``major:minor``"""
    shared: bool
    """Whether mounts made beneath it propagate to other mount namespaces."""


@dataclass(frozen=True, slots=True)
class Root:
    """What a directory says of itself (its own stat, not its mount table line)."""

    size: int
    device: int
    empty: bool | None
    """None: not asked."""
    path: Path
    """The directory's own path, after all symlinks."""


class Host(Protocol):
    """This machine, as far as back ends need it."""

    def run(self, command: Command) -> Output:
        """Start a process and wait for it.

        Raises Failed (exit status not 0, or cannot be started; the text bears
        stderr), Uncertain (deadline), Busy (*hold* is locked).
        """

    def held(self, hold: Path) -> bool:
        """Whether a command that was run with this *hold* is still alive, whoever ran it."""

    def call(self, call: Call) -> Mapping[str, Any]:
        """Return what the function answers. Several calls run at once; none delays another.

        Raises what it raises of our errors, Refused (the module cannot be
        imported), Failed (no process can be started), Busy (*hold* is locked),
        Uncertain (deadline, or the process ended).
        """

    def mounts(self) -> Sequence[Mount]:
        """The mount table, in mount order. Never blocks on a hung share."""

    def root(self, path: Path, *, list: bool = False) -> Root:
        """Look at a directory that may hang, in a killable child.

        Raises Uncertain (no answer within the deadline, or the share is in
        quarantine) and OSError as the child met it (ENOTCONN, ENOENT …).
        """

    def size(self, path: Path) -> int:
        """The bytes of a file or a block device, looked at in a killable child.

        Raises Uncertain (no answer in time), OSError.
        """

    def openers(self, path: Path) -> Sequence[str]:
        """Name processes that have something open at or beneath *path*, for people to read.

        Best effort: it looks at this host's process table, never at *path*.
        """

    def image(self, share: Path, name: str, format: Format, *, within: Path | None = None) -> None:
        """Check that *name* beneath *share* may be given to a guest, in a killable child.

        It is a regular file (ploop: a directory) reached without a symlink and
        without leaving *share* or its file system, its header agrees with
        *format*, and all that it refers to (backing and data files) lies
        within *within* (default: *share*) and passes the same check.

        Raises Refused with the reason, Uncertain (no answer in time), OSError.
        """
