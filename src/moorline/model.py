"""The values that all rooms exchange: frozen, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple, NewType
from uuid import UUID

from moorline.disk_options import DiskOptions as DiskOptions
from moorline.disk_options import Limits as Limits
from moorline.network_disk import NetworkDisk as NetworkDisk
from moorline.secret import Secret

VolumeId = NewType("VolumeId", str)
"""1 to 64 of ``A-Za-z0-9_-``: it becomes a libvirt alias, a serial and a tag."""

GuestId = NewType("GuestId", str)
"""The hypervisor's own stable id of a guest (libvirt: the domain's UUID)."""

LinkName = NewType("LinkName", str)
"""Where a link appears on the host (mount point, device node). Bears no secret."""

ALIAS_PREFIX = "ua-"
"""libvirt's, of all aliases that others choose; after it the alias of a disk of ours has its id."""
_VOLUME_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def volume_id(text: object) -> VolumeId | None:
    """Return *text* if it can be a volume's id."""
    return VolumeId(text) if isinstance(text, str) and _VOLUME_ID.fullmatch(text) else None


def is_uuid(text: str) -> bool:
    """Whether *text* is a UUID as libvirt and Cinder write it: in small letters, with dashes."""
    return _UUID.fullmatch(text) is not None


def as_uuid(text: str) -> str:
    """*text*, a UUID in any spelling, as :func:`is_uuid` has it; '' if it is none."""
    try:
        return str(UUID(text))
    except ValueError:
        return ""


Format = Literal["raw", "qcow2", "ploop", "luks"]


class Level(IntEnum):
    """How far a volume shall be brought: each level includes those below it."""

    ABSENT = 0
    CONNECTED = 1
    ATTACHED = 2

    def __str__(self) -> str:
        return self.name.lower()


class Key(NamedTuple):
    """Names an attachment. During a migration a volume has one on each host."""

    host: str
    volume: VolumeId
    guest: GuestId


class Caching(Enum):
    """What the storage needs of the hypervisor's cache, which has its own names for it."""

    DEFAULT = "default"
    DIRECT = "direct"
    """Bypass the host's page cache wherever the hypervisor does that safely."""
    WRITEBACK = "writeback"


@dataclass(frozen=True, slots=True)
class BackingFile:
    """A file beneath an image: what the image does not hold itself is read from it."""

    path: Path
    format: Format


class CheckedAs(NamedTuple):
    """Which file it was that was checked, whatever its name leads to later."""

    path: Path
    device: int
    inode: int
    changed: float = 0.0
    """When it was last changed, seconds since the epoch by its file system; 0: not told."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that holds a disk. The format is declared, never probed."""

    path: Path
    format: Format
    caching: Caching = Caching.DEFAULT
    relabel: bool = True
    """Whether the hypervisor may change the file's owner and label."""
    backing: tuple[BackingFile, ...] = ()
    """All that lies beneath it, from its own backing file down: nothing else may be opened."""
    checked: tuple[CheckedAs, ...] = field(default=(), compare=False)
    """The file and those beneath it, as they were when they were checked; empty: not told."""


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A block device node."""

    path: Path
    caching: Caching = Caching.DIRECT
    discard: bool = False
    """Whether what a guest discards is given back to the storage."""
    format: Format = "raw"
    """``luks``, if the hypervisor is to decipher it."""


@dataclass(frozen=True, slots=True)
class DatastoreDisk:
    """A virtual disk on a datastore of a vCenter."""

    datastore: str
    file: str
    """The VMDK's place beneath the datastore's root: ``folder/disk.vmdk``."""
    datacenter: str = ""
    """The datacenter of the datastore, whose name is unique in that alone; '': the guest's."""

    @property
    def path(self) -> str:
        """As vCenter spells it within a datacenter: ``[datastore] folder/disk.vmdk``."""
        return f"[{self.datastore}] {self.file}"


@dataclass(frozen=True, slots=True)
class ShadowDisk:
    """The one disk of a machine that only holds it, as Cinder keeps volumes in a vCenter."""

    machine: str
    """vCenter's reference of the machine: ``vm-123``."""


PathSource = ImageFile | BlockDevice | DatastoreDisk | NetworkDisk
"""Disk sources whose path, or what they are known by, is what their guest's disk bears."""

DiskSource = PathSource | ShadowDisk


@dataclass(frozen=True, slots=True)
class Linked:
    """The volume is reachable on this host."""

    source: DiskSource
    given: bool = False
    """It was there before us (a local file, a share of the operator's): nothing is disconnected."""
    verified: bool = False
    """*source* was found fit for a guest by the same look."""


@dataclass(frozen=True, slots=True)
class Unlinked:
    """Nothing is there: no mount, no device."""


class Client(Enum):
    """Of a broken link: what became of the process that served it."""

    GONE = "gone"
    """Seen gone, and its link for good: who has a file open there has lost it."""
    ALIVE = "alive"
    """It runs, and may answer again by itself: its server may be away."""
    CUT_OFF = "cut-off"
    """It runs, but its link has ended (``moorline abort``), for good: it may still be writing."""
    UNKNOWN = "unknown"
    """There is none, or it cannot be told."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Our link is there but does not work (a dead FUSE daemon, say)."""

    reason: str
    client: Client = Client.UNKNOWN
    presumed: bool = False
    """That it is gone was not seen: its link has ended, for good, and it may still be writing."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that is not ours stands where the link would be."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It cannot be told now: the share hangs, or a command on it still runs."""

    reason: str
    hangs: bool = True
    """Whether a guest that is asked to let go of a disk on it might hang, too."""


Link = Linked | Unlinked | Broken | Foreign | Unknown


class DiskState(Enum):
    """How a volume is a disk of a guest."""

    NONE = "none"
    PARTIAL = "partial"
    """In the running guest or in its definition, not in both that should have it."""
    WHOLE = "whole"
    LEAVING = "leaving"
    """The guest was asked to let go and has not done so yet."""


@dataclass(frozen=True, order=True, slots=True)
class Use:
    """How one definition of a guest has a file or a device as its disk."""

    path: str
    format: str
    """The image's; '' where the definition does not tell it."""
    readonly: bool = False
    shared: bool = False
    """Others may write to it at the same time."""
    volume: str = ""
    """The id of the volume whose mark the disk bears; '' if it bears none."""
    beneath: bool = False
    """It lies beneath the disk, as a backing file of it."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a guest that bears our mark."""

    state: DiskState
    device: str = ""
    """The name under which the hypervisor knows it (``vdb``)."""
    source: str = ""
    """The path that the guest's disk names."""
    uses: frozenset[Use] = frozenset()
    """How each of the guest's definitions has it; empty where the hypervisor does not tell."""
    beneath: tuple[str, ...] | None = ()
    """The files beneath *source* (it is a snapshot of them), nearest first; None: not known."""
    stale: str = ""
    """Why what the running guest has open can never be what is there at that path now; ''."""
    replaced: str = ""
    """Why the file that the running guest has open has no name any more, as far as is known; ''."""
    limits: frozenset[Limits] | None = None
    """How each of the guest's definitions limits it; None: the hypervisor does not tell."""
    locked: bool = False
    """The hypervisor has lost the password by which its server would give it again."""


NO_DISK = Disk(DiskState.NONE)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large an attached volume is, in bytes, by the guest and by the storage."""

    guest: int
    """What the guest was told."""
    storage: int | None
    """What the storage has now. None: the hypervisor makes the storage larger itself."""


@dataclass(frozen=True, slots=True)
class Growable:
    """How large a volume is, in bytes, whose file could be made larger."""

    guest: int
    """What the guest sees, or will see when it is started."""
    storage: int
    """What its file could show it now."""
    running: bool
    """Whether the guest runs, and has the file open: then only it may make it larger."""


class Held(Enum):
    """Whether a link must stay as it is.

    If the volume is to go: because another attachment or any guest needs the link. If that is
    broken, and not known to be dead: because a running guest has it open.
    """

    FREE = "free"
    HELD = "held"
    UNKNOWN = "unknown"
    """Not looked at, or could not be told. Never disconnect on this."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation of an attachment: the link, the disk, and the link's other users."""

    link: Link
    disk: Disk = NO_DISK
    held: Held = Held.UNKNOWN
    users: tuple[str, ...] = ()
    """The names of the guests that hold the link."""
    unsure: str = ""
    """Why it cannot be told who holds the link, if it is UNKNOWN and was looked at."""
    elsewhere: str = ""
    """Why the disk that bears our mark is not, or no more, the one that is wanted; mostly empty."""
    snapshot: bool | None = False
    """Whether the guest writes to an external snapshot above the volume. None: it is not told."""
    renews: bool = False
    """Whether the running guest is to be given its lost file anew, or was, and is to go on."""
    diverged: bool = False
    """Whether what the guest writes is in another file, which goes with its disk (`elsewhere`)."""
    other_limits: bool = False
    """Whether the disk has limits that are not those that are wanted."""
    locked: bool = False
    """Whether the hypervisor has no key or password any more to open the disk with again."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What is known of a disk whose share's client was seen gone, until its guest goes on."""

    seen_dead: float
    """When that was seen first, seconds since the epoch: the guest cannot have written later."""
    inode: int = 0
    """The number of the file that the guest had open; 0: nothing was begun."""
    done: bool = False
    """The guest has the file of the new mount: it may go on when all its disks are as far."""
    let_go: bool = False
    """It may have gone on since: what was written then may be its own."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """What is wanted: that a volume be a disk of a guest on a host, up to a level."""

    key: Key
    backend: str
    connection: Secret[Mapping[str, Any]]
    """Cinder's ``connection_info`` as given. It may hold credentials."""
    link: LinkName
    place: str
    """Identifies the storage behind the volume, whatever id it goes by."""
    want: Level
    guest_name: str = ""
    options: DiskOptions = field(default_factory=DiskOptions)
    since: float = 0.0
    """When the attachment was first made, seconds since the epoch."""
    hands_off: bool = False
    """The guest's disk is plugged and unplugged by somebody else (Nova): only the link is ours.
    Never wanted above CONNECTED."""
    link_only: bool = False
    """It was never wanted above CONNECTED: a disk that bears its mark is somebody else's."""
    label: str = ""
    """What belongs together by a person's will: ``moorline apply --prune`` goes by it; ''."""
    aliases: tuple[str, ...] = ()
    """What *place* is by other spellings of the storage, in order: told to a fleet, not stored."""
    revision: int = 0
    """The store's revision of this entry; 0 if it was never stored."""


class GuestName(NamedTuple):
    """What a guest is called: by the hypervisor for good, and by people now."""

    id: GuestId
    name: str


@dataclass(frozen=True, slots=True)
class Guest:
    """A virtual machine as a survey of the hypervisor shows it."""

    id: GuestId
    name: str
    running: bool
    disks: Mapping[VolumeId, Disk]
    """The disks that bear our mark."""
    paths: frozenset[str]
    """Every path on the host that the guest's definitions name, ours or not."""
    unreadable: str = ""
    """Why its definitions cannot be read; ''. It may then have any disk or path, and run or not."""
    remedy: str = ""
    """The command that helps if it is unreadable."""
    unresolved: str = ""
    """What it names whose path is not known, and which may therefore be on any link; ''."""
    paused_by_error: bool = False
    """Whether an error of a disk's paused it: it stands still until somebody lets it go on."""
    uses: frozenset[Use] = frozenset()
    """How it uses those of *paths* that are its disks or beneath them; others may be written to."""
    opened: frozenset[str] = frozenset()
    """What servers' disks it has as it runs, by what they are known by."""
