"""Clashes between attachments: of a new one with its own earlier record, or with others'."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from moorline.core import luks
from moorline.disk_options import BY_NAME, LIMITS, spoken
from moorline.errors import Refused
from moorline.model import Attachment, DiskOptions, Level


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
    if attachment.options.limits() is None:  # it says nothing of them: they may have been set since
        kept = {name: getattr(before.options, name) for name in LIMITS}
        attachment = replace(attachment, options=replace(attachment.options, **kept))
    if not attachment.options.boot:  # a launch may have given it a place
        kept_place = replace(attachment.options, boot=before.options.boot)
        attachment = replace(attachment, options=kept_place)
    luks.demand_same_key(before, attachment)
    if before.options != attachment.options:
        raise Refused(
            f"volume {attachment.key.volume} is wanted on {attachment.guest_name} with other"
            f" options: {differences(before.options, attachment.options)}",
            hint=_way(before, attachment.options),
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
            raise Refused(
                f"the id {attachment.key.volume} belongs to another storage: {who}",
                hint=_let_go(other),
            )
        if same_place and not same_id:
            raise Refused(
                f"the same storage is known under another id: {who}",
                hint=_let_go(other),
            )
        if not same_id or other.key == attachment.key:
            continue
        if not (other.options.shared and attachment.options.shared):
            raise Refused(
                f"volume {attachment.key.volume} is wanted on {guest} already",
                hint=_detach_first(other, attachment),
            )


def _let_go(other: Attachment) -> str:
    """How the id and the storage of *other* become free."""
    words = [
        ["moorline", verb, other.key.guest, other.key.volume] for verb in ("detach", "release")
    ]
    detach, release = map(shlex.join, words)
    return f"`{detach}` lets go of it, and `{release}` leaves its disk in the guest"


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


def _way(before: Attachment, now: DiskOptions) -> str:
    """How the options of *before* can become others."""
    limits = {name: getattr(now, name) for name in LIMITS}
    if replace(before.options, **limits) != now:
        return "detach it first, or attach it as it is wanted"
    words = [
        f"--{BY_NAME[name].typed}={value or 0}"
        for name, value in limits.items()
        if value != getattr(before.options, name)
    ]
    return shlex.join(["moorline", "set", before.guest_name, before.key.volume, *words])


def differences(before: DiskOptions, now: DiskOptions) -> str:
    """The options that differ, in words: ``bus is virtio, not scsi``."""
    pairs = [(f.name, getattr(before, f.name), getattr(now, f.name)) for f in fields(before)]
    return ", ".join(
        f"{spoken(name)} is {_in_words(old)}, not {_in_words(new)}"
        for name, old, new in pairs
        if old != new
    )


def _in_words(value: str | bool | int | None) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "left to the hypervisor" if value in ("", None) else str(value)


def refuse_second_boot_disk(attachment: Attachment, others: Iterable[Attachment]) -> None:
    """Raise Refused if *attachment* is to be booted from, and its guest boots from another.

    Those that come after it in the boot order count for nothing.
    """
    place = attachment.options.boot
    found = [r for r in others if 0 < r.options.boot <= place and r.key != attachment.key]
    if found:
        raise Refused(
            f"{attachment.guest_name} boots from volume {found[0].key.volume} already",
            hint=f"moorline detach {attachment.guest_name} {found[0].key.volume}",
        )
