"""Why a pass does nothing now, in words. Pure."""

from __future__ import annotations

from moorline.core.kept_disk import over, why_it_stays
from moorline.core.plan import Step
from moorline.model import NO_DISK, Broken, Client, DiskState, Foreign, Seen, Unknown


def reason(step: Step, seen: Seen) -> str:
    """Say in words why *step* waits or parks; '' for the others."""
    if step is Step.PARK and isinstance(seen.link, Foreign):
        return seen.link.reason
    if step is Step.PARK and isinstance(seen.link, Broken):
        who = ", ".join(seen.users)
        return f"{seen.link.reason}; detach its disks from, or stop, who has it open: {who}"
    if step is Step.PARK:
        return why_it_stays(seen) if seen.diverged else seen.elsewhere or over(seen)
    if step is Step.WAIT:
        return _waits_for(seen)
    return ""


_HOPES = {
    Client.ALIVE: "it may answer again by itself, as when its server was away",
    Client.CUT_OFF: "the share is mounted anew when that has ended",
}


def _waits_for(seen: Seen) -> str:
    if isinstance(seen.link, Unknown):
        return seen.link.reason
    if isinstance(seen.link, Broken) and (hope := _HOPES.get(seen.link.client)):
        return f"{seen.link.reason}; {hope}"
    leaving = seen.disk.state is DiskState.LEAVING
    if leaving or (seen.disk != NO_DISK and not isinstance(seen.link, Broken)):
        return "the guest has not let go of the disk yet"
    if seen.users:
        return f"{', '.join(seen.users)} still names a path on the link"
    why = f": {seen.unsure}" if seen.unsure else ""
    return f"it cannot be told whether a guest still uses the link{why}"
