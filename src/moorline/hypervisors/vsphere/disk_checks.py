"""What a disk of vSphere can be: where it lies, its options, and its limits.

``VirtualDisk.storageIOAllocation`` of vSphere's API: each disk has a limit for reads and writes
together, and none for bytes; and shares, by which a busy datastore is divided.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyVmomi import vim

from moorline.disk_options import Limits, normal, refuse_others
from moorline.errors import Refused
from moorline.model import DatastoreDisk, DiskOptions, DiskSource, ShadowDisk

LIMIT, SHARES = "total_iops_sec", "shares"
"""All that there is."""
_FEWEST, _MOST, _USUAL = 200, 4000, 1000
"""The shares that a disk can be given, and those of a disk of which nothing is said."""
_UNLIMITED = -1
_Level = vim.SharesInfo.Level


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
    refuse_others("vSphere's disks", options, ("bus", "shared", LIMIT, SHARES))
    _check_shares(options.shares or 0)


def wanted(limits: Mapping[str, int]) -> Limits:
    """*limits*, if a disk of vSphere can have them. Raises Refused."""
    if others := sorted({name for name, value in limits.items() if value} - {LIMIT, SHARES}):
        raise Refused(
            f"vSphere's disks have no {others[0]}", hint="they have --iops and --shares alone"
        )
    _check_shares(limits.get(SHARES, 0))
    return normal(limits)


def allocation(limits: Limits) -> Any:
    """What a disk is given to have *limits*, and no others."""
    asked = dict(limits)
    level = _Level.custom if asked.get(SHARES) else _Level.normal
    return vim.StorageResourceManager.IOAllocationInfo(
        limit=asked.get(LIMIT) or _UNLIMITED,
        shares=vim.SharesInfo(level=level, shares=asked.get(SHARES) or _USUAL),
    )


def limits_of(disk: Any) -> Limits:
    """The limits of a disk as vCenter tells them."""
    found = getattr(disk, "storageIOAllocation", None)
    limit, shares = (getattr(found, name, None) for name in ("limit", "shares"))
    chosen = shares.shares if shares is not None and shares.level == _Level.custom else 0
    return normal({LIMIT: max(0, limit or 0), SHARES: chosen})


def _check_shares(shares: int) -> None:
    if shares and not _FEWEST <= shares <= _MOST:
        raise Refused(f"a disk of vSphere has from {_FEWEST} to {_MOST} shares, or 0: as others")


def _check_path(source: DatastoreDisk) -> None:
    parts = source.file.split("/")
    plain = source.path.isprintable() and not set("[]/\\") & set(source.datastore)
    if not plain or not source.file.endswith(".vmdk") or {"", ".", ".."} & set(parts):
        raise Refused(f"{source.path[:80]!r} is not the path of a disk on a datastore")
