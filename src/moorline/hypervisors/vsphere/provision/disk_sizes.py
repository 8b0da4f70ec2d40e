"""The sizes of virtual disks that each type of datastore allows."""

from __future__ import annotations

from moorline.errors import Refused

KIB = 1 << 10
MIB = 1 << 20
TIB = 1 << 40

MAX_DISK_BYTES = 62 * TIB
"""The largest virtual disk that vSphere makes ("Configuration Maximums")."""

_UNITS = {"vvol": MIB}
"""Datastore types, in lower case, whose disks are whole multiples of more than a KiB.

VMware's pages on Virtual Volumes ask for multiples of 1 MB, at least 1 MB, and
say to extend other disks to the nearest one before they are moved there. Cinder
has the same rule (https://review.opendev.org/c/openstack/cinder/+/250000 and its
``vmdk.py``); Nova never had it.
"""


def unit(datastore_type: str) -> int:
    """Bytes of which a disk on such a datastore is a whole multiple.

    Elsewhere than on VVOL it is the KiB, in which the API counts.
    """
    return _UNITS.get(datastore_type.lower(), KIB)


def size_on(datastore_type: str, size: int, *, round_up: bool = False, what: str = "a disk") -> int:
    """Return the bytes that a disk of *size* bytes has on such a datastore.

    That is *size*, or with *round_up* the next size that is possible. *what*
    begins the text of an error. Raises Refused, with both numbers.
    """
    if size <= 0:
        raise Refused(f"{what} of {size} bytes cannot be made")
    whole = unit(datastore_type)
    fitting = -(-size // whole) * whole
    if fitting > MAX_DISK_BYTES:
        raise Refused(f"{what} of {size} bytes is larger than vSphere's largest, {MAX_DISK_BYTES}")
    if fitting != size and not round_up:
        name = "MiB" if whole == MIB else "KiB"
        raise Refused(
            f"{what} of {size} bytes is not a whole number of {name},"
            f" which {datastore_type} asks for: the next is {fitting} bytes"
            f" ({fitting // whole} {name})",
            hint=f"round it up, which adds {fitting - size} bytes at its end",
        )
    return fitting
