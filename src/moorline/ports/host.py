"""The seam to the host itself: processes, mounts, looks that may hang."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from moorline.model import Format, GuestId
from moorline.ports.mount import IsIts, Mount
from moorline.secret import Secret

T = TypeVar("T")


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
    ended, even if we are killed. Locked already: Busy is raised. A client that it
    leaves keeps it, too: :meth:`Host.only_serves`."""


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
class Root:
    """What a directory says of itself (its own stat, not its mount table line)."""

    size: int
    device: int
    empty: bool | None
    """None: not asked."""
    path: Path
    """The directory's own path, after all symlinks."""


Readable = Callable[[Path, int, int], bool]
"""Tells whether a user can read a file, as :meth:`Host.readable`."""

Measure = Callable[[Path], int]
"""Tells the bytes of a file or block device, as :meth:`Host.size`: bounded in time,
raises Uncertain and OSError."""

MeasureImage = Callable[[Path, str], int]
"""Tells the bytes that a guest sees of an image of that format, as :meth:`Host.size`."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file of an image, as it was when it was opened and checked."""

    path: Path
    format: Format
    mount: int
    """The id of the mount that it is on (:class:`Mount`)."""
    device: int
    inode: int
    """With *device*: which file it is, whatever its name."""
    names: int
    """How many names its file system has for it: more than one are hard links."""
    changed: float = 0.0
    """When its content or what is known of it last changed, by its file system, in seconds since
    the epoch; 0: not told."""


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that may be given to a guest, and the root of the share on which it lies."""

    root: Root
    files: Sequence[CheckedFile]
    """All that is to be opened: the image and then its backing files, down to the last."""


@dataclass(frozen=True, slots=True)
class OpenAs:
    """How a hypervisor is about to open a file or a block device."""

    format: str
    readonly: bool
    shared: bool
    """Others may write to it at the same time."""
    direct: bool
    """Past the page cache."""
    mine: bool = False
    """It has it open for the same guest already: its own locks are no obstacle."""


Openable = Callable[[Path, OpenAs], None]
"""Tells whether a file can be opened, as :meth:`Host.openable`."""

Places = Callable[[Iterable[str]], Mapping[str, frozenset[str] | None]]
"""As :meth:`Host.places`."""


@dataclass(frozen=True, slots=True)
class FileId:
    """Which file or block device a path leads to, whatever it is called."""

    path: str
    """Its own path, after all symlinks."""
    device: int
    """The number of its file system: of one that has no device, the mount's own."""
    inode: int
    node: int = 0
    """Of a block device its number, else 0."""
    filesystem: int = 0
    """What a file system without a device calls itself (statvfs(3), ``f_fsid``); 0: nothing."""
    lower: tuple[int, ...] = ()
    """Of a block device the numbers of those that it lies on: the disk of a partition, and what
    a device of LVM, RAID or the device mapper is made of, down to the disks."""


Images = Sequence[tuple[str, str]]
"""The path and the format of each."""

FilesOf = Sequence[FileId] | OSError
"""An image's file and, after it, those beneath it at any depth; or what a look at it met."""


class FileLocks(Protocol):
    """Files of this host that nobody else gives to a guest meanwhile, whoever has which state."""

    def take(self, files: Mapping[FileId, bool], patience: float) -> None:
        """Lock *files*. True: the guest may write to it; others that all only read go on.

        Blocks for *patience* seconds at most, then raises Busy with who has one of them, and
        may have locked some. Raises Denied, Unavailable (there is nothing to lock).
        """

    def take_left(self, guest: GuestId) -> bool:
        """Lock what *guest* was being given by somebody who never came to an end; is there any?

        Does not block. Raises as :meth:`take`.
        """

    def left(self) -> Mapping[GuestId, float]:
        """The guests that were being given one of them by somebody who never came to an end.

        With the seconds since that was begun last. Raises Unavailable.
        """

    def begin(self, guest: GuestId) -> None:
        """Note that *guest* is being given them, until :meth:`end`. Raises Unavailable."""

    def end(self) -> None:
        """It is known what became of it, and of what was left."""

    def release(self) -> None:
        """Let go of all; without effect if there are none. The kernel does so when we die."""


@runtime_checkable
class Remembering(Protocol):
    """A host for looking alone, that is asked each thing once."""

    def once(self, what: Hashable, ask: Callable[[], T]) -> T:
        """What *ask* answered when *what* was first asked for: of what follows from looks at it.

        An error that it met then is met again.
        """


class Host(Protocol):
    """This machine, as far as back ends need it."""

    def run(self, command: Command) -> Output:
        """Start a process and wait for it.

        Raises Failed (exit status not 0, or cannot be started; the text bears
        stderr), Uncertain (deadline), Busy (*hold* is locked).
        """

    def held(self, hold: Path) -> bool:
        """Whether a command that was run with this *hold* is still alive, whoever ran it."""

    def only_serves(self, hold: Path, at: Path, is_its: IsIts) -> bool:
        """Whether all that have *hold* locked serve mounts that are made, none of which is *at*.

        Such processes are clients that a command left: their mounts live on elsewhere, as bind
        mounts or in other mount namespaces, and they will not mount at *at* any more. False if
        that cannot be told. It looks at the process table, never at a mount.
        """

    def elsewhere(self, at: Path) -> Sequence[str]:
        """Name a process of each other mount namespace that has a mount where *at* is here.

        As ``name (pid)``, for people to read; best effort, as :meth:`users_of`.
        """

    def call(self, call: Call) -> Mapping[str, Any]:
        """Return what the function answers. Several calls run at once; none delays another.

        Raises what it raises of our errors, Refused (the module cannot be
        imported), Failed (no process can be started), Busy (*hold* is locked),
        Uncertain (deadline, or the process ended).
        """

    def mounts(self) -> Sequence[Mount]:
        """The mount table, in mount order. Never blocks on a hung share."""

    def clients(self, mount: Mount) -> Sequence[str] | None:
        """Name the processes that serve a FUSE mount, as ``name (pid)``; [] if none is left.

        None: that cannot be told. It looks at the process table, never at the mount.
        """

    def has_ended(self, mount: Mount) -> bool:
        """Whether the kernel tells that a FUSE mount's connection has ended; its client may live.

        False if it does not tell: its control file system must be mounted. Never asks the mount.
        """

    def root(self, path: Path, *, list: bool = False) -> Root:
        """Look at a directory that may hang, in a killable child.

        Raises Uncertain (no answer within the deadline, or the share is in
        quarantine) and OSError as the child met it (ENOTCONN, ENOENT …).
        """

    def size(self, path: Path, format: str = "raw") -> int:
        """The bytes of a file or a block device, looked at in a killable child.

        Of an image in *format* qcow2 those that a guest sees. Raises Uncertain (no answer
        in time), Refused (it is no such image), OSError.
        """

    def places(self, paths: Iterable[str]) -> Mapping[str, frozenset[str] | None]:
        """Tell where absolute *paths* lead, through symlinks and copies of their mounts.

        None: it cannot be told (a share hangs, or /proc). Raises nothing; bounded by a
        look's deadline for each share that hangs.
        """

    def readable(self, path: Path, user: int, group: int) -> bool:
        """Whether a user (by numbers) can open a file for reading, tried in a killable child.

        With that user's other groups. Who may not try as another user (is not
        root) cannot tell, and says yes. Raises Uncertain (no answer in time), OSError.
        """

    def openable(self, path: Path, use: OpenAs) -> None:
        """See in a killable child that QEMU could open *path* so, and that nobody has it locked.

        Raises Refused with the reason, Busy (another process has it locked, whose name
        is told if it is of this host), Uncertain (no answer in time), OSError.
        """

    def files(
        self,
        share: Path,
        images: Images,
        like: Collection[int] | None = None,
        *,
        first: bool = False,
    ) -> Sequence[FilesOf]:
        """Look which files each of *images* on *share* consists of, in a killable child.

        *like*: the inode numbers of files that they are to be compared with. Of a file that
        has none of them, and so is another, only its numbers are told, and the path by
        which it was named. *first*: the first image's files are told in full, and are
        among those with which the others are compared; what the look at it met is told
        of the others as well. Raises Uncertain (no answer in time).
        """

    def users_of(self, path: Path) -> Sequence[str]:
        """Name processes that have something open at or beneath *path*, for people to read.

        Best effort: it looks at this host's process table, never at *path*.
        """

    def image(self, share: Path, name: str, format: Format) -> CheckedImage:
        """Check that *name* beneath *share* may be given to a guest, in a killable child.

        It is a regular file (ploop: a directory) reached without a symlink and
        without leaving *share* or its mount, its header agrees with *format*,
        and its backing files pass the same check (ploop: the files that its
        descriptor names). An image that refers to any other file, or goes up
        with "..", is refused. What *share* itself is comes with the answer, as
        :meth:`root` tells it.

        Raises Refused with the reason, Uncertain (no answer in time), OSError.
        """
