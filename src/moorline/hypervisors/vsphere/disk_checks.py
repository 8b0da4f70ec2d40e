"""What a disk of vSphere can be: where it lies, its options, and how many requests a second it
lets through.

``VirtualDisk.storageIOAllocation`` of vSphere's API. Each disk has a limit for reads and writes
together, and none for bytes: https://developer.broadcom.com/xapis (StorageIOAllocationInfo).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyVmomi import vim

from moorline.disk_options import refuse_others
from moorline.errors import Refused
from moorline.model import DatastoreDisk, DiskOptions, DiskSource, ShadowDisk

LIMIT = "total_iops_sec"
"""The one limit that there is."""
_UNLIMITED = -1


def check(source: DiskSource, options: DiskOptions) -> None:
    """Refuse what vSphere cannot do, before anything is asked of vCenter."""
    if isinstance(source, DatastoreDisk):
        _check_path(source)
    elif not isinstance(source, ShadowDisk):
        raise Refused("vSphere guests take disks on datastores, no files or devices of this host")
    if options.bus not in ("", "scsi"):
        raise Refused(f"vSphere disks are plugged into SCSI here, not {options.bus}")
    if options.target:
        raise Refused("vSphere's controllers and units are not chosen by hand")
    if options.readonly:
        raise Refused("vSphere has no read-only disks")
    refuse_others("vSphere's disks", options, ("bus", "shared", LIMIT))


def requests_wanted(limits: Mapping[str, int]) -> int:
    """The requests a second of *limits*; 0: any. Raises Refused: there is no such limit."""
    if others := sorted({name for name, value in limits.items() if value} - {LIMIT}):
        raise Refused(
            f"vSphere's disks have no {others[0]}", hint="they have --iops, and no other limit"
        )
    return limits.get(LIMIT, 0)


def allocation(requests: int) -> Any:
    """What a disk is given to have that limit; its share of a busy datastore stays as it is."""
    return vim.StorageResourceManager.IOAllocationInfo(limit=requests or _UNLIMITED)


def requests_of(disk: Any) -> int:
    """The limit of a disk as vCenter tells it; 0: none."""
    found = getattr(disk, "storageIOAllocation", None)
    return max(0, getattr(found, "limit", None) or 0)


def _check_path(source: DatastoreDisk) -> None:
    parts = source.file.split("/")
    plain = source.path.isprintable() and not set("[]/\\") & set(source.datastore)
    if not plain or not source.file.endswith(".vmdk") or {"", ".", ".."} & set(parts):
        raise Refused(f"{source.path[:80]!r} is not the path of a disk on a datastore")
