"""Which of a guest's disks is a volume's, and whether it is what is wanted. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from moorline.model import (
    NO_DISK,
    Attachment,
    BlockDevice,
    DatastoreDisk,
    Disk,
    DiskOptions,
    ImageFile,
    Link,
    Linked,
    NetworkDisk,
    Seen,
    Use,
    VolumeId,
)


def own_disk(row: Attachment, disks: Mapping[VolumeId, Disk]) -> Disk:
    """The disk that we plugged for *row*, or adopted; of *disks*, the marked ones of its guest."""
    return NO_DISK if is_somebody_elses(row) else disks.get(row.key.volume, NO_DISK)


def is_somebody_elses(row: Attachment) -> bool:
    """Whether a disk that bears the mark of *row* is not ours: only the link was ever wanted."""
    return row.hands_off or row.link_only


def path_of(link: Link) -> str:
    """The path of the one volume, or what it is known by, if its link tells it; else ''."""
    source = link.source if isinstance(link, Linked) else None
    return str(source.path) if isinstance(source, ImageFile | BlockDevice | NetworkDisk) else ""


def elsewhere(row: Attachment, link: Link, disk: Disk) -> str:
    """Why *disk* is not the volume that *link* leads to, plugged as *row* wants it; '': it is."""
    if lost := disk.stale or disk.replaced:
        return lost
    there = path_of(link)
    if snapshot(there, disk):
        return ""
    if _is_another(there, disk):
        return f"the guest's disk of this volume is {disk.source}, not {there}"
    source = link.source if isinstance(link, Linked) else None
    form = source.format if isinstance(source, ImageFile | BlockDevice) else ""
    whys = (_otherwise(use, form, row.options) for use in sorted(disk.uses))
    return next(filter(None, whys), "")


def diverged(link: Link, disk: Disk) -> bool:
    """Whether what the guest writes is in another file than the volume; as in ``Seen``.

    Not told where the volume is not reachable: what is open on a share that is dead or hangs can
    be let go.
    """
    if not isinstance(link, Linked) or disk.stale:
        return False
    there = path_of(link)
    # A device may have several names.
    devices = there.startswith("/dev/") and disk.source.startswith("/dev/")
    another = _is_another(there, disk) and snapshot(there, disk) is False and not devices
    return bool(disk.replaced) or another


def _is_another(there: str, disk: Disk) -> bool:
    return bool(disk.source) and there not in ("", disk.source)


def snapshot(there: str, disk: Disk) -> bool | None:
    """Whether the volume's path *there* ('': unknown) lies beneath the disk; as in ``Seen``."""
    if there in ("", disk.source) or not disk.source:
        return False
    return None if disk.beneath is None else there in disk.beneath


def where_it_is(seen: Seen) -> str:
    """Where the disk is, if it was moved to another datastore and no record says so; else ''."""
    source = seen.link.source if isinstance(seen.link, Linked) else None
    if not isinstance(source, DatastoreDisk) or seen.disk.source in ("", source.path):
        return ""
    return f"its disk is {seen.disk.source} now, and not {source.path}"


def plugged_as(seen: Seen) -> str:
    """The path by which the volume was plugged: not that of an external snapshot above it."""
    return (path_of(seen.link) if seen.snapshot is not False else "") or seen.disk.source


def _otherwise(use: Use, form: str, options: DiskOptions) -> str:
    """How a disk is plugged otherwise than it is wanted; ''. What the disk does not tell agrees."""
    if form and use.format and use.format != form:
        # A raw image read as qcow2 could name any file of the host; qcow2 as raw is garbage.
        return f"the guest's disk of this volume is {use.format}, not {form}"
    if options.readonly and not use.readonly:
        return "the guest's disk of this volume can be written to, and it is wanted read-only"
    if use.readonly and not options.readonly:
        return "the guest's disk of this volume is read-only, and it is wanted writable"
    if options.shared != use.shared:
        return f"the guest's disk of this volume is {'' if use.shared else 'not '}plugged as shared"
    return ""
