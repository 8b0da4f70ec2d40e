"""What a new wish may not change of the one that stands, and may not contradict of others."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields, replace

from moorline.errors import Refused
from moorline.model import Attachment, DiskOptions, Level

_SPOKEN = {"readonly": "read-only", "boot": "the place in the boot order"}


def merge(before: Attachment | None, wish: Attachment) -> Attachment:
    """Let a repeated wish raise the level of the one that stands, never lower it."""
    if before is None:
        return wish
    wish = replace(wish, link_only=before.link_only and wish.link_only)
    if before.link != wish.link:
        raise Refused(
            f"volume {wish.key.volume} is connected at {before.link}, and this connection"
            f" or configuration puts it at {wish.link}",
            hint="name it as it was named, or detach it first",
        )
    if before.want is Level.ABSENT:
        return replace(wish, revision=before.revision)
    if before.hands_off != wish.hands_off:
        raise Refused(
            f"volume {wish.key.volume} is wanted on {wish.guest_name} already,"
            " and somebody else plugs its disk",
            hint="detach it where it was attached",
        )
    if before.options != wish.options:
        raise Refused(
            f"volume {wish.key.volume} is wanted on {wish.guest_name} with other options:"
            f" {_differences(before.options, wish.options)}",
            hint="detach it first, or attach it as it is wanted",
        )
    want = max(before.want, wish.want)
    return replace(wish, want=want, since=before.since, revision=before.revision)


def refuse_clashes(wish: Attachment, rows: Sequence[Attachment]) -> None:
    """One storage has one id, one id has one storage, and one guest that writes."""
    for other in rows:
        same_id = other.key.volume == wish.key.volume
        same_place = other.place == wish.place
        guest = _called(other, wish)
        who = f"volume {other.key.volume} of {guest}"
        if same_id and not same_place:
            raise Refused(f"the id {wish.key.volume} belongs to another storage: {who}")
        if same_place and not same_id:
            raise Refused(f"the same storage is known under another id: {who}")
        if not same_id or other.key == wish.key:
            continue
        if not (other.options.shared and wish.options.shared):
            raise Refused(
                f"volume {wish.key.volume} is wanted on {guest} already",
                hint=_detach_first(other, wish),
            )


def _called(other: Attachment, wish: Attachment) -> str:
    """The other's guest. One that was made anew under its name is not the one that had it."""
    if other.guest_name != wish.guest_name or other.key.guest == wish.key.guest:
        return other.guest_name
    return f"an earlier guest of the name {other.guest_name} ({other.key.guest})"


def _detach_first(other: Attachment, wish: Attachment) -> str:
    if other.guest_name == wish.guest_name:
        return "detach it from that first: " + shlex.join(
            ["moorline", "detach", other.key.guest, other.key.volume]
        )
    return "detach it there first, or attach it as shared to both"


def _differences(before: DiskOptions, now: DiskOptions) -> str:
    """Each option that is not as it was: ``bus is virtio, not scsi``."""
    pairs = [(f.name, getattr(before, f.name), getattr(now, f.name)) for f in fields(before)]
    return ", ".join(
        f"{_SPOKEN.get(name, name)} is {_spoken(old)}, not {_spoken(new)}"
        for name, old, new in pairs
        if old != new
    )


def _spoken(value: str | bool | int) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) or "left to the hypervisor"
