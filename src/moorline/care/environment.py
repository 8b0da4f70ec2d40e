"""What looking after a host needs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from moorline.care.eventlog import EventLog
from moorline.care.shared_files import Holder
from moorline.model import Guest, GuestId, ImageFile, VolumeId
from moorline.ports import Backends, MeasureImage, Mount
from moorline.ports.inspection import Finding, FuseControl, Inventory


@dataclass(frozen=True, slots=True)
class Environment:
    """The parts of an opened host that examining and repairing it needs."""

    backends: Backends
    mounts: Callable[[], Sequence[Mount]]
    fuse: FuseControl
    inventory: Inventory | None
    """None: this hypervisor has none."""
    event_log: EventLog
    check_state: Callable[[], Sequence[Finding]]
    shared_files: Callable[[Sequence[Guest]], Iterable[tuple[Holder, Holder]]]
    """As :meth:`moorline.care.shared_files.SharedFiles.find`."""
    measure: MeasureImage
    kept_elsewhere: Callable[[GuestId, VolumeId], str] = lambda guest, volume: ""
    """The directory of another state on this host that wants the volume on that guest; ''. Raises
    Unavailable, Denied (one cannot be read)."""
    launched_elsewhere: Callable[[GuestId], str] = lambda guest: ""
    """The directory of another state on this host that launched the guest; ''. Raises as
    :attr:`kept_elsewhere`."""
    grow_file: Callable[[ImageFile, int], None] | None = None
    """Makes the file of an image larger that no guest has open; None: nothing can here."""
