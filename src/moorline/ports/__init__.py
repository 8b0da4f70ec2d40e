"""The seams: what the core asks of the outside world.

Questions return the truth, bounded in time. Commands return nothing and are
idempotent; whether they worked is for the next question to tell. What each
error family means is said once, in :mod:`moorline.errors`.
"""

from __future__ import annotations

from moorline.ports.guests import (
    NO_DOCUMENT,
    Document,
    Hardware,
    Machine,
    Machines,
)
from moorline.ports.host import (
    Call,
    CheckedFile,
    Command,
    FileId,
    FilesOf,
    Host,
    Images,
    IsIts,
    Measure,
    Mount,
    Output,
    Places,
    Readable,
    Root,
)
from moorline.ports.hypervisor import (
    ExtendingHypervisor,
    Hypervisor,
    HypervisorDriver,
    Inspecting,
    MakingGuests,
    RelocatingHypervisor,
    Site,
    Wake,
    Watching,
)
from moorline.ports.inspection import (
    Diagnosing,
    Discovering,
    Finding,
    Found,
    FuseControl,
    GuestDisk,
    Inventory,
)
from moorline.ports.storage import (
    Backends,
    C,
    Confined,
    Connection,
    Option,
    Sharing,
    StorageBackend,
    Values,
)
from moorline.ports.store import (
    At,
    AttachmentCodec,
    Delete,
    Entry,
    Event,
    Put,
    Store,
)

__all__ = [
    "NO_DOCUMENT",
    "At",
    "AttachmentCodec",
    "Backends",
    "C",
    "Call",
    "CheckedFile",
    "Command",
    "Confined",
    "Connection",
    "Delete",
    "Diagnosing",
    "Discovering",
    "Document",
    "Entry",
    "Event",
    "ExtendingHypervisor",
    "FileId",
    "FilesOf",
    "Finding",
    "Found",
    "FuseControl",
    "GuestDisk",
    "Hardware",
    "Host",
    "Hypervisor",
    "HypervisorDriver",
    "Images",
    "Inspecting",
    "Inventory",
    "IsIts",
    "Machine",
    "Machines",
    "MakingGuests",
    "Measure",
    "Mount",
    "Option",
    "Output",
    "Places",
    "Put",
    "Readable",
    "RelocatingHypervisor",
    "Root",
    "Sharing",
    "Site",
    "StorageBackend",
    "Store",
    "Values",
    "Wake",
    "Watching",
]
