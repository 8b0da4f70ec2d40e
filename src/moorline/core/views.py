"""What is told about attachments: plain values that print and serialise well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

from moorline.core.plan import next_step
from moorline.core.reconciler import reason
from moorline.core.records import Trouble
from moorline.core.survey import Survey
from moorline.core.usage import unknown_users, users
from moorline.errors import MoorlineError
from moorline.model import (
    Attachment,
    Broken,
    DiskState,
    Foreign,
    Guest,
    Linked,
    Seen,
    Unknown,
)


@dataclass(frozen=True, slots=True)
class View:
    """One attachment as it is wished and as it is seen.

    ``seen`` is one of *attached*, *snapshot* (the guest writes to a file above it), *partial*
    (only live, or only in the definition), *leaving*, *connected*, *absent*, *broken* (the link
    does not work, or what the guest has open of it), *foreign*, *unknown*. ``next`` is the step
    that is due and, if it waits, for what.
    """

    volume: str
    guest: str
    guest_id: str
    host: str
    backend: str
    link: str
    wanted: str
    seen: str
    device: str
    since: float
    """When it was wished, seconds since the epoch."""
    next: str
    source: dict[str, Any] | None = None
    """What is there for a guest, if the volume is reachable: the disk source's class as
    ``type``, and its fields, but for the files beneath it: those are looked up to attach it."""
    trouble: Trouble | None = None
    also_wanted_by: list[str] = field(default_factory=list)
    """Other attachments that share the link, as ``volume on guest``."""
    used_by: list[str] = field(default_factory=list)
    """Guests, running or stopped, that name a path on the link, or have what it leads to."""

    def to_dict(self) -> dict[str, Any]:
        """The same facts for JSON and YAML; the keys are stable."""
        return asdict(self)


def view(row: Attachment, seen: Seen | str, trouble: Trouble | None = None) -> View:
    """Describe *row*. *seen* is an observation, or why there is none."""
    if isinstance(seen, str):
        state, device, due = "unknown", "", f"look again: {seen}"
    else:
        state, device, due = state_of(seen), seen.disk.device, _due(row, seen)
    return View(
        volume=row.key.volume,
        guest=row.guest_name,
        guest_id=row.key.guest,
        host=row.key.host,
        backend=row.backend,
        link=row.link,
        wanted=str(row.want),
        seen=state,
        device=device,
        since=row.since,
        next=due,
        source=_source(seen),
        trouble=trouble,
    )


def detailed(row: Attachment, seen: Seen | str, trouble: Trouble | None, survey: Survey) -> View:
    """Describe *row*, and who else needs its link."""
    try:
        used_by = sorted({*users(row.link, survey.guests), *holders(seen, survey.guests)})
        used_by += [f"unknown: {why}" for why in unknown_users(survey.guests)]
    except MoorlineError as e:
        used_by = [f"unknown: {e}"]
    others = [f"{other.key.volume} on {other.guest_name}" for other in survey.others(row)]
    return replace(view(row, seen, trouble), also_wanted_by=others, used_by=used_by)


def state_of(seen: Seen) -> str:
    """Return the one word that sums up an observation."""
    works = not (isinstance(seen.link, Broken) or seen.disk.stale)
    if seen.snapshot and seen.disk.state is DiskState.WHOLE and works:
        return "snapshot"
    if seen.disk.state is not DiskState.NONE and works:
        return "attached" if seen.disk.state is DiskState.WHOLE else seen.disk.state.value
    if seen.disk.stale:
        return "broken"
    match seen.link:
        case Linked():
            return "connected"
        case Broken():
            return "broken"
        case Foreign():
            return "foreign"
        case Unknown():
            return "unknown"
    return "absent"


def holders(seen: Seen | str, guests: Iterable[Guest]) -> list[str]:
    """Name the guests that have what was *seen*: some links are names, on which no path lies."""
    if isinstance(seen, str):
        return []
    source = seen.link.source if isinstance(seen.link, Linked) else None
    paths = {seen.disk.source, str(getattr(source, "path", ""))} - {""}
    return [guest.name for guest in guests if paths & guest.paths]


def _source(seen: Seen | str) -> dict[str, Any] | None:
    if isinstance(seen, str) or not isinstance(seen.link, Linked):
        return None
    source = seen.link.source
    told = [field.name for field in fields(source) if field.name != "backing"]
    plain = {name: _plain(getattr(source, name)) for name in told}
    return {"type": type(source).__name__, **plain}


def _plain(value: Any) -> Any:
    """Turn *value* into what JSON and YAML can bear."""
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _due(row: Attachment, seen: Seen) -> str:
    step = next_step(row.want, seen)
    why = reason(step, seen)
    return f"{step.value}: {why}" if why else step.value
