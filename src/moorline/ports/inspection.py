"""What adapters can tell of this host beyond what was asked of them: for doctor, repair and adopt.

Each protocol is optional. Questions are bounded in time and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from moorline.model import (
    Broken,
    DiskOptions,
    Foreign,
    Guest,
    GuestId,
    LinkName,
    Unknown,
    Unlinked,
    VolumeId,
)
from moorline.ports.mount import Mount


@dataclass(frozen=True, slots=True)
class Finding:
    """Something on this host that is not as it should be."""

    check: str
    """Its kind; a heading of docs/troubleshooting.md."""
    subject: str
    """What it is about: a mount point, a volume, a guest, a file."""
    what: str
    why: str
    """Why it matters."""
    next: str
    """The next command to run."""

    def to_dict(self) -> dict[str, Any]:
        """The same facts for JSON and YAML; the keys are stable."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Found:
    """A link on this host, or what is left of one, whoever asked for it."""

    link: LinkName
    ill: Broken | Foreign | Unknown | Unlinked | None
    """None: it works. Unlinked: only its empty place is left."""
    elsewhere: tuple[str, ...] = ()
    """Processes of other mount namespaces that have it still, as ``name (pid)``: for them the
    empty place stays."""


@runtime_checkable
class Discovering(Protocol):
    """A back end that can tell its links on this host, also those that nobody wants."""

    def places(self) -> Sequence[Path]:
        """The directories in which it makes links."""

    def links(self) -> Sequence[Found]:
        """All that look like its own. Blocks for a look's deadline for each that hangs."""

    def claims(self, mount: Mount) -> bool:
        """Whether a mount, wherever it is, is of its kind."""

    def clear(self, link: LinkName) -> None:
        """Take away a link that :meth:`links` told. Raises as disconnect, and Refused."""


@runtime_checkable
class Diagnosing(Protocol):
    """A back end that can tell what it lacks on this host."""

    def diagnose(self) -> Sequence[Finding]: ...


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """A disk of a guest, whether it bears our mark or not."""

    device: str
    path: str
    format: str
    bus: str
    mark: str
    """The volume whose mark it bears; ''."""
    serial: str
    readonly: bool
    shared: bool
    running: bool
    """Whether the running guest has it."""
    defined: bool
    """Whether the guest's definition has it."""
    boots: bool = False
    """Whether the guest boots from it, or may."""
    nova: bool = False
    """Whether its guest is one that Nova defines."""
    alias: str = ""
    """What somebody named it for the hypervisor, as we do with our mark; ''."""
    options: DiskOptions = field(default_factory=DiskOptions)
    """Those with which it would be plugged as it is, as far as is told."""

    def bears(self, volume: str) -> bool:
        """Whether it is said to be *volume* by its mark, its serial or its alias."""
        id = volume.casefold()
        return bool(id) and id in (each.casefold() for each in (self.mark, self.serial, self.alias))


class Inventory(Protocol):
    """Looks at guests and their hypervisor more closely than attaching needs.

    All raise NotFound, Unavailable, Uncertain.
    """

    def disks(self, guest: GuestId) -> Sequence[GuestDisk]:
        """All disks of a guest, by their device."""

    def mark(self, guest: GuestId, device: str, volume: VolumeId) -> None:
        """Let a disk of a *stopped* guest bear our mark; nothing else of it changes.

        Raises Refused (the guest runs, or there is no such disk), Failed.
        """

    def diagnose(self, places: Sequence[Path]) -> Sequence[Finding]:
        """What would keep guests from links in *places*."""

    def facts(self) -> Mapping[str, str]:
        """Versions, for people."""


NAMELESS = " (deleted)"
"""What the kernel writes behind the path of an open file that has no name any more."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file or a block device that the process of a running guest has open."""

    path: str
    """What the kernel calls it now, for that process: on a mount that is no more, the path
    within that alone; see :data:`NAMELESS`."""
    inode: int
    node: int
    """Of a block device its number, else 0."""
    readonly: bool
    mount: Mount | None
    """None: it is no more, or not to be seen."""


OpenedBy = Callable[[Guest, Collection[int] | None], Sequence[OpenFile]]
"""As :meth:`OpenImages.open_files`."""


@runtime_checkable
class OpenImages(Protocol):
    """A hypervisor that can tell which files its running guests have open."""

    def open_files(
        self, guest: Guest, numbers: Collection[int] | None = None
    ) -> Sequence[OpenFile]:
        """What a running guest has open, wherever its paths lead; of *numbers* those alone.

        They are numbers of inodes, or of block devices. The kernel's table of processes is asked,
        no share and no hypervisor. Nothing, if the guest's process is not to be seen.
        """

    def replaced(self, guest: Guest, volume: VolumeId) -> str:
        """Why what a guest has open as a volume is not the file at its path; mostly ''.

        *guest*: as it was seen just now; what is known of it is not asked again.

        A guest that is stopped has nothing open. What cannot be told is ''. Bounded in time.
        Raises Failed, Unavailable, Uncertain.
        """


class FuseControl(Protocol):
    """The kernel's control of FUSE connections."""

    def abort(self, mount: Mount) -> None:
        """End a connection: all who wait for its daemon get an error, for good.

        Raises Refused (it cannot be reached), Denied.
        """

    def killable(self, mount: Mount, mounts: Sequence[Mount]) -> Sequence[str]:
        """Name the processes that serve a mount, as ``name (pid)``; [] if there are none.

        *mounts*: the mount table. Raises Refused: that cannot be told, or one of them serves
        another mount, too, which would end with it.
        """

    def kill(self, mount: Mount, mounts: Sequence[Mount]) -> None:
        """Kill these processes, and wait until they are seen gone.

        Raises Refused as :meth:`killable`, Denied; Uncertain: one does not end.
        """
