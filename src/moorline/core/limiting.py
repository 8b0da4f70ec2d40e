"""Whether a disk has the limits that are wanted, and how it gets them."""

from __future__ import annotations

from moorline.errors import Refused
from moorline.model import Attachment, Disk
from moorline.ports import Hypervisor, LimitingHypervisor


def limiting(hypervisor: Hypervisor) -> LimitingHypervisor:
    """*hypervisor*, if it can limit disks. Raises Refused."""
    if not isinstance(hypervisor, LimitingHypervisor):
        raise Refused(f"the disks of {hypervisor.kind} guests cannot be limited")
    return hypervisor


def limit(hypervisor: Hypervisor, row: Attachment) -> None:
    """Give the disk of *row* its limits. Raises as :meth:`LimitingHypervisor.limit`."""
    wanted = dict(row.options.limits() or ())
    limiting(hypervisor).limit(row.key.guest, row.key.volume, wanted)


def has_other_limits(row: Attachment, disk: Disk) -> bool:
    """Whether one of the guest's definitions limits *disk* otherwise than *row* wants it.

    Where nothing of limits is wanted, they are somebody else's, and stay.
    """
    wanted = row.options.limits()
    return wanted is not None and any(found != wanted for found in disk.limits or ())
