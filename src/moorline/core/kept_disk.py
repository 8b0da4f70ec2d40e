"""Disks that hold what their volume does not: why they stay plugged, and what helps. Pure."""

from __future__ import annotations

import shlex

from moorline.core.own_disk import path_of
from moorline.errors import MoorlineError, NotOurs, Refused
from moorline.model import (
    Attachment,
    Disk,
    DiskState,
    GuestName,
    ImageFile,
    Linked,
    Seen,
    VolumeId,
)


def must_stay(seen: Seen) -> bool:
    """Whether the guest would lose what it wrote if its disk were taken away."""
    has_disk = seen.disk.state is not DiskState.NONE
    return has_disk and (seen.snapshot is not False or seen.diverged)


def not_taken(row: Attachment, seen: Seen) -> Refused:
    """The error for a disk that must stay plugged."""
    return Refused(
        f"volume {row.key.volume} is not taken from {row.guest_name}: {why_it_stays(seen)}",
        hint=way_out(row, seen),
    )


def over(seen: Seen) -> str:
    """Why the disk of an external snapshot above the volume must stay plugged."""
    if seen.snapshot is None:
        return (
            f"the guest's disk of this volume is {seen.disk.source}, and it cannot be told whether"
            " that is an external snapshot, which needs the volume"
        )
    return (
        f"the guest writes to {seen.disk.source}, an external snapshot above the volume:"
        " without it the guest is back before the snapshot, and what is written to the"
        " volume then ruins it"
    )


def why_it_stays(seen: Seen) -> str:
    """Why a disk must stay plugged, as of :func:`moorline.core.plan.must_stay`."""
    if seen.snapshot is not False:
        return over(seen)
    return f"{seen.elsewhere}: what the guest writes is there alone, and would go with the disk"


def way_out(row: Attachment, seen: Seen) -> str:
    """What a person can do about a disk that must stay plugged."""
    guest, device = row.guest_name, seen.disk.device
    if seen.snapshot is not False:
        return shlex.join(commit(row, seen))
    release = shlex.join(["moorline", "release", guest, row.key.volume])
    copy = ["--format", _format(seen), "--transient-job", "--wait", "--pivot"]
    if seen.disk.replaced:
        copy = ["virsh", "blockcopy", guest, device, "NEW-FILE", *copy]
        gone = shlex.join(["virsh", "detach-disk", guest, device, "--persistent"])
        return (
            f"copy within {guest} what shall stay, or all, if any file is at its path:"
            f" `{shlex.join(copy)}`; `{release}` and `{gone}` give it up"
        )
    copy = ["virsh", "blockcopy", guest, device, path_of(seen.link), "--reuse-external", *copy]
    return (
        f"`{shlex.join(copy)}` brings it back into the volume while {guest} runs;"
        f" `{release}` leaves {guest} that file as its disk"
    )


def _format(seen: Seen) -> str:
    source = seen.link.source if isinstance(seen.link, Linked) else None
    return source.format if isinstance(source, ImageFile) else "raw"


def commit(row: Attachment, seen: Seen) -> tuple[str, ...]:
    """The command that merges a snapshot into its volume while the guest runs."""
    disk = seen.disk
    if not seen.snapshot or not disk.beneath:
        return ("moorline", "disks", row.guest_name)
    base = path_of(seen.link) or disk.beneath[-1]
    return (
        *("virsh", "blockcommit", row.guest_name, disk.device),
        *("--base", base, "--active", "--pivot", "--wait"),
    )


def demand_released_file(
    guest: GuestName, volume: VolumeId, plugged: str | None, disk: Disk
) -> None:
    """Raise Refused if what the guest wrote would be lost with a disk that was released."""
    if isinstance(error := released_file_changed(guest, volume, plugged, disk), Refused):
        raise error


def released_file_changed(
    guest: GuestName, volume: VolumeId, plugged: str | None, disk: Disk
) -> MoorlineError | None:
    """Why a disk that was released as the path *plugged* is not that file any more: Refused,
    NotOurs (it may be that somebody else plugged it). The hint holds what helps. None: it is.
    """
    gone = shlex.join(["virsh", "detach-disk", guest.name, disk.device, "--persistent"])
    if plugged in (disk.beneath or ()):
        words = ["virsh", "blockcommit", guest.name, disk.device, "--base", str(plugged)]
        return Refused(
            f"volume {volume} is not taken from {guest.name}: the guest writes to"
            f" {disk.source}, an external snapshot above it",
            hint=shlex.join([*words, "--active", "--pivot", "--wait"]),
        )
    if plugged == disk.source and disk.replaced:
        return Refused(
            f"volume {volume} is not taken from {guest.name}: {disk.replaced}",
            hint=f"copy within {guest.name} what shall stay; `{gone}` gives it up",
        )
    if plugged is None or plugged == disk.source:
        return None
    return NotOurs(
        f"{guest.name} has volume {volume} as {disk.device} ({disk.source}), and Moorline released"
        f" it as {plugged}: it was brought to another file since, or somebody else plugged it",
        hint=f"`{gone}` takes it away, and what the guest wrote stays in {disk.source}",
    )
