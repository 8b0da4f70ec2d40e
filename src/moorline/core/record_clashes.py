"""Clashes between attachments: of a new one with its own earlier record, or with others'."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from moorline.errors import Refused
from moorline.model import Attachment, DiskOptions, Level

_SPOKEN = {
    "readonly": "read-only",
    "boot": "the place in the boot order",
    "on_error": "what an I/O error does",
}


def merge(before: Attachment | None, attachment: Attachment) -> Attachment:
    """The attachment to record: a repeated one can raise the level of *before*, never lower it.

    Raises Refused if it wants anything else to be otherwise than *before*.
    """
    if before is None:
        return attachment
    link_only = before.link_only and attachment.link_only
    label = attachment.label or before.label
    attachment = replace(attachment, link_only=link_only, label=label)
    if before.link != attachment.link:
        raise Refused(
            f"volume {attachment.key.volume} is connected at {before.link}, and this connection"
            f" or configuration puts it at {attachment.link}",
            hint="name it as it was named, or detach it first",
        )
    if before.want is Level.ABSENT:
        return replace(attachment, revision=before.revision)
    if before.hands_off != attachment.hands_off:
        raise Refused(
            f"volume {attachment.key.volume} is wanted on {attachment.guest_name} already,"
            " and somebody else plugs its disk",
            hint="detach it where it was attached",
        )
    if before.options != attachment.options:
        raise Refused(
            f"volume {attachment.key.volume} is wanted on {attachment.guest_name} with other"
            f" options: {_differences(before.options, attachment.options)}",
            hint="detach it first, or attach it as it is wanted",
        )
    want = max(before.want, attachment.want)
    return replace(attachment, want=want, since=before.since, revision=before.revision)


def refuse_clashes(attachment: Attachment, rows: Sequence[Attachment]) -> None:
    """Raise Refused unless each storage has one id, each id one storage, and one guest writes."""
    for other in rows:
        same_id = other.key.volume == attachment.key.volume
        same_place = other.place == attachment.place
        guest = _called(other, attachment)
        who = f"volume {other.key.volume} of {guest}"
        if same_id and not same_place:
            raise Refused(f"the id {attachment.key.volume} belongs to another storage: {who}")
        if same_place and not same_id:
            raise Refused(f"the same storage is known under another id: {who}")
        if not same_id or other.key == attachment.key:
            continue
        if not (other.options.shared and attachment.options.shared):
            raise Refused(
                f"volume {attachment.key.volume} is wanted on {guest} already",
                hint=_detach_first(other, attachment),
            )


def _called(other: Attachment, attachment: Attachment) -> str:
    """The name of the other's guest. A guest that was made anew under a name is another guest."""
    if other.guest_name != attachment.guest_name or other.key.guest == attachment.key.guest:
        return other.guest_name
    return f"an earlier guest of the name {other.guest_name} ({other.key.guest})"


def _detach_first(other: Attachment, attachment: Attachment) -> str:
    if other.guest_name == attachment.guest_name:
        return "detach it from that first: " + shlex.join(
            ["moorline", "detach", other.key.guest, other.key.volume]
        )
    return "detach it there first, or attach it as shared to both"


def _differences(before: DiskOptions, now: DiskOptions) -> str:
    """The options that differ, in words: ``bus is virtio, not scsi``."""
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


def refuse_second_boot_disk(attachment: Attachment, others: Iterable[Attachment]) -> None:
    """Raise Refused if *attachment* is to be booted from, and its guest boots from another."""
    found = [row for row in others if row.options.boot and row.key != attachment.key]
    if attachment.options.boot and found:
        raise Refused(
            f"{attachment.guest_name} boots from volume {found[0].key.volume} already",
            hint=f"moorline detach {attachment.guest_name} {found[0].key.volume}",
        )
