"""extend --grow: makes the file of a volume larger, where nobody else does."""

from __future__ import annotations

from collections.abc import Callable

from moorline.byte_sizes import exact
from moorline.core.own_disk import path_of
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.errors import Failed, Refused, Uncertain
from moorline.model import (
    Attachment,
    BlockDevice,
    DatastoreDisk,
    Growable,
    ImageFile,
    Linked,
    Seen,
    VolumeId,
)
from moorline.ports import GrowingHypervisor, Hypervisor

SECTOR = 512
FORMATS = ("raw", "qcow2")
GrowFile = Callable[[ImageFile, int], None]
"""Makes the file of an image larger that no guest has open. Raises Refused, Failed, Uncertain."""


def is_to_grow(volume: VolumeId, size: int, has: Growable) -> bool:
    """Whether the file is smaller than *size*, which the guest is to see. Raises Refused."""
    if size % SECTOR:
        raise Refused(
            f"volume {volume} cannot have {size} bytes: disks have whole sectors of {SECTOR} bytes",
            hint=f"such as {-(-size // SECTOR) * SECTOR}; a number alone is bytes, 20G is not",
        )
    if size < has.guest:
        raise Refused(f"volume {volume} has {exact(has.guest)}, and cannot shrink to {exact(size)}")
    if size < has.storage:
        raise Refused(
            f"the storage of volume {volume} has {exact(has.storage)}:"
            f" no guest sees just {exact(size)}",
            hint="without --grow the guest is shown all of it",
        )
    return size > has.storage


class Grower:
    """Has files made larger: by the guest that has one open, else by *grow_file*."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        grow_file: GrowFile | None,
    ) -> None:
        self._records = records
        self._reconciler = reconciler
        self._hypervisor = hypervisor
        self._grow_file = grow_file

    def demand(self, row: Attachment, seen: Seen) -> None:
        """Raise Refused unless the volume is a file that Moorline may make larger."""
        volume = row.key.volume
        if not isinstance(seen.link, Linked):
            raise Failed(f"volume {volume} cannot be reached at {row.link}")
        source = seen.link.source
        if isinstance(source, DatastoreDisk):
            raise Refused("the vCenter makes its disks larger itself", hint="leave out --grow")
        if isinstance(source, BlockDevice):
            raise Refused(
                f"volume {volume} is a block device, which its storage makes larger",
                hint=f"do it there, and then: moorline extend {row.key.guest} {volume}",
            )
        if not isinstance(source, ImageFile) or source.format not in FORMATS:
            what = source.format if isinstance(source, ImageFile) else "no file"
            raise Refused(
                f"volume {volume} is {what}, which the storage's own tool makes larger",
                hint="Moorline makes raw and qcow2 files larger",
            )
        if row.key in self._records.reservations():
            raise Refused(
                f"volume {volume} is Cinder's, which has to know how large it is",
                hint="leave out --grow: Cinder is asked to make it larger then",
            )
        if row.options.readonly or row.options.shared:
            why = "only reads it" if row.options.readonly else "shares it with others"
            raise Refused(f"volume {volume} is not made larger: {row.guest_name} {why}")
        if seen.snapshot is not False or seen.disk.source not in ("", path_of(seen.link)):
            raise Refused(
                f"volume {volume} is not made larger: there is a snapshot of it, above which"
                f" {row.guest_name} writes",
                hint="merge it first (virsh blockcommit --pivot)",
            )

    def growable(self, row: Attachment) -> Growable:
        """How large the disk is. Raises as :meth:`GrowingHypervisor.growable`."""
        return self._able().growable(row.key.guest, row.key.volume)

    def grow(self, row: Attachment, size: int, has: Growable, *, dry_run: bool) -> None:
        """Make its file larger. For whoever has the guest's lock. Raises Busy, too."""
        if dry_run:
            self._reconciler.files.verify(row)
            return
        with self._reconciler.files.alone(row, None) as source:
            if has.running:
                self._able().grow(row.key.guest, row.key.volume, size)
            elif not isinstance(source, ImageFile) or self._grow_file is None:
                raise Refused("files are not made larger here")
            else:
                self._grow_file(source, size)
        if (now := self.growable(row)).guest < size:
            raise Uncertain(
                f"{row.guest_name} was to have {exact(size)}, and still has {exact(now.guest)}"
            )

    def _able(self) -> GrowingHypervisor:
        if not isinstance(self._hypervisor, GrowingHypervisor):
            raise Refused(
                f"the files of {self._hypervisor.kind} guests are not made larger",
                hint="make them larger yourself, and leave out --grow",
            )
        return self._hypervisor
