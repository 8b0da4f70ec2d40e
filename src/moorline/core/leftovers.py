"""What is left on the host of an attachment that is to be forgotten."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from moorline.errors import Refused
from moorline.model import (
    NO_DISK,
    Attachment,
    Disk,
    DiskState,
    Foreign,
    Held,
    Linked,
    Seen,
    Unknown,
    Unlinked,
    VolumeId,
)
from moorline.ports import Mount


def leftovers(row: Attachment, disks: Mapping[VolumeId, Disk], mounts: Sequence[Mount]) -> Seen:
    """Look at what is left where *row* was connected, without its back end.

    For a connection that can no longer be parsed, or options that put its link elsewhere now.
    """
    mounted = any(mount.target == row.link for mount in mounts)
    # A node of /dev is on the host itself, and never hangs.
    node = row.link.startswith("/dev/") and os.path.lexists(row.link)
    link = Unknown(f"{row.link} is there") if mounted or node else Unlinked()
    return Seen(link, disks.get(row.key.volume, NO_DISK))


def refuse_leftovers(row: Attachment, seen: Seen) -> None:
    """Raise Refused if anything of *row* is still there."""
    hint = f"moorline detach {row.guest_name} {row.key.volume}"
    if seen.disk.state is not DiskState.NONE:
        raise Refused(f"volume {row.key.volume} is still a disk of {row.guest_name}", hint=hint)
    nothing_of_ours = (
        isinstance(seen.link, Unlinked | Foreign)
        or (isinstance(seen.link, Linked) and seen.link.given)
        or seen.held is Held.HELD
    )
    if not nothing_of_ours:
        raise Refused(f"the link {row.link} of volume {row.key.volume} is still there", hint=hint)
