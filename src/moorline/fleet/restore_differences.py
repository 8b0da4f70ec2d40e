"""How a store that was brought back differs from what a host did since: for a person to judge."""

from __future__ import annotations

from collections.abc import Iterator

from moorline.fleet.host_memory import Marks
from moorline.fleet.record_store import OfHost
from moorline.fleet.records import Role
from moorline.model import Level


def differences(marks: Marks, desired: OfHost) -> list[str]:
    """What was wanted of this host last, and what the store says now, where they differ."""
    return [*_of_guests(marks, desired), *_of_volumes(marks, desired)]


def _of_guests(marks: Marks, desired: OfHost) -> Iterator[str]:
    followed = marks.guests()
    for guest in sorted(followed.keys() | desired.assignments.keys()):
        mark, assignment = followed.get(guest), desired.assignments.get(guest)
        was = Role(mark.role) if mark else None
        now = assignment.role if assignment else None
        older = mark and assignment and assignment.generation < mark.generation
        if was is now and not older:
            continue
        name = assignment.name if assignment else guest
        if now is None:
            yield f"guest {name}: here it was {was} last, and the store says nothing of it"
        elif was is None:
            yield f"guest {name}: the store has it {now}, and it is not here any more, or never was"
        else:
            yield f"guest {name}: here it was {was} last, and the store has it {now}"


def _of_volumes(marks: Marks, desired: OfHost) -> Iterator[str]:
    followed = marks.volumes()
    for guest, volume in sorted(followed | desired.attachments.keys()):
        row = desired.attachments.get((guest, volume))
        if row is None:
            yield f"volume {volume} of guest {guest}: it is here, and the store does not want it"
        elif row.want > Level.ABSENT and (guest, volume) not in followed:
            yield f"volume {volume} of guest {guest}: the store wants it, and it is not here"
