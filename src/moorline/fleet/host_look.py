"""What a host's pass knows, and how soon the next one is worth while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from moorline.fleet.host_memory import Mark
from moorline.fleet.record_store import OfHost
from moorline.fleet.records import Bring, Role
from moorline.model import GuestId
from moorline.ports.moving import Presence, Present


class Pace(Enum):
    """How soon there may be something to do again."""

    HURRIED = "hurried"
    """A guest is on its way here, and may be paused meanwhile."""
    RESTLESS = "restless"
    """Something is not as wanted yet."""
    AT_REST = "at rest"


@dataclass(slots=True)
class Look:
    """What one pass knows."""

    fenced: bool
    desired: OfHost
    reports: OfHost
    marks: Mapping[GuestId, Mark]
    present: Mapping[GuestId, Present]

    def presence(self, guest: GuestId) -> Presence:
        found = self.present.get(guest)
        return found.presence if found else Presence.ABSENT

    def role(self, guest: GuestId) -> Role | None:
        assignment = self.desired.assignments.get(guest)
        return assignment.role if assignment else None

    def is_another(self, guest: GuestId) -> bool:
        """Whether what is here only has the id of a guest that is to come, or was: it was here
        without the fleet, and is left alone. What was this host's is never that.
        """
        if guest in self.marks or self.presence(guest) not in (Presence.RUNNING, Presence.STOPPED):
            return False
        assignment = self.desired.assignments.get(guest)
        return assignment is not None and (
            assignment.role is Role.ARRIVING
            or (assignment.role is Role.GONE and assignment.never_here)
        )


def pace(look: Look) -> Pace:
    """How soon there may be something to do again, after the pass that *look* is of."""
    assignments = look.desired.assignments.values()
    if any(each.role is Role.ARRIVING for each in assignments):
        return Pace.HURRIED
    moved = look.fenced or any(
        each.role is not Role.HERE or each.bring is not Bring.NOTHING for each in assignments
    )
    told = look.reports.volumes
    waits = any(
        (report := told.get(of)) is None
        or (report.attachment, report.seen) != (row.revision, str(row.want))
        for of, row in look.desired.attachments.items()
    )
    return Pace.RESTLESS if moved or waits else Pace.AT_REST
