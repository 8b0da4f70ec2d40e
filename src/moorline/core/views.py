"""Describes an attachment and what was observed of it, for `list`, `show` and the API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from moorline.core.link_usage import unknown_users, users
from moorline.core.links import Storage
from moorline.core.plan import Step, next_step
from moorline.core.reasons import reason
from moorline.core.survey import Survey
from moorline.disk_options import BY_NAME
from moorline.errors import MoorlineError
from moorline.model import (
    Attachment,
    Broken,
    Client,
    DiskOptions,
    DiskState,
    Foreign,
    Guest,
    Linked,
    Seen,
    Unknown,
    Unlinked,
)
from moorline.ports.results import Trouble, View

_ALWAYS_TOLD = ("bus", "target", "readonly", "shared", "on_error")
"""The options that a view has whether they are set or not."""
_UNTOLD = ("backing", "checked", "login", "opened", "ids")
"""What of a disk source is for the hypervisor alone."""


def view(row: Attachment, seen: Seen | str, trouble: Trouble | None, storage: Storage) -> View:
    """Describe *row*. *seen*: what was observed, or, as text, why nothing was."""
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
        trouble=trouble if due != Step.NOTHING.value else None,  # it is cured
        storage=storage.url,
        format=storage.format,
        options=_options(row.options),
        label=row.label,
        hands_off=row.hands_off,
    )


def paused(row: Attachment, seen: Seen | str, survey: Survey) -> str:
    """Why the guest of *row* stands still, in words; '': no error of a disk's paused it."""
    try:
        guest = survey.guest(row.key.guest)
    except MoorlineError:
        return ""
    if guest is None or not guest.paused_by_error:
        return ""
    said = f"{row.guest_name} is paused by an I/O error"
    if isinstance(seen, str) or seen.disk.state is DiskState.NONE:
        return f"{said} of a disk"
    disk = seen.disk.device
    match seen.link:
        case Broken(client=Client.GONE):
            return f"{said} of {disk} on the dead share {row.link}"
        case Broken() | Unknown(hangs=True):
            return f"{said} of {disk} on {row.link}, which does not work"
    if seen.disk.stale:
        return f"{said} of {disk}, which it lost with the client of its share"
    # Which disk it was, and whether for want of space, QEMU alone tells, which may hang.
    return f"{said} of a disk, or for want of space"


def detailed(view: View, row: Attachment, seen: Seen | str, survey: Survey) -> View:
    """*view*, of *row*, and who else needs its link."""
    try:
        used_by = sorted({*users(row.link, survey.guests), *holders(seen, survey.guests)})
        used_by += [f"unknown: {why}" for why in unknown_users(survey.guests)]
    except MoorlineError as e:
        used_by = [f"unknown: {e}"]
    others = [f"{other.key.volume} on {other.guest_name}" for other in survey.others(row)]
    return replace(view, also_wanted_by=others, used_by=used_by)


def state_of(seen: Seen) -> str:
    """Return the one word that sums up an observation."""
    lost = seen.disk.stale or seen.disk.replaced
    if isinstance(seen.link, Unknown) and seen.link.hangs and not lost:
        return "hung"  # also of a disk that the guest has: it waits for the share, too
    works = not (isinstance(seen.link, Broken) or lost)
    if seen.disk.state is DiskState.WHOLE and works:
        return _whole(seen)
    if seen.disk.state is not DiskState.NONE and works:
        return str(seen.disk.state.value)
    if lost:
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


def _whole(seen: Seen) -> str:
    """The word for a disk that the guest has, live and in its definition.

    Without its link it cannot be opened again.
    """
    match seen.link:
        case Unlinked():
            return "broken"
        case Foreign():
            return "foreign"
    if seen.diverged:
        return "foreign"
    return "snapshot" if seen.snapshot else "attached"


def holders(seen: Seen | str, guests: Iterable[Guest]) -> list[str]:
    """Name the guests that have the disk or source itself, rather than a path below its link."""
    if isinstance(seen, str):
        return []
    source = seen.link.source if isinstance(seen.link, Linked) else None
    paths = {seen.disk.source, str(getattr(source, "path", ""))} - {""}
    return [
        guest.name
        for guest in guests
        if paths & guest.paths or any(use.path in paths for use in guest.uses)
    ]


def _source(seen: Seen | str) -> dict[str, Any] | None:
    if isinstance(seen, str) or not isinstance(seen.link, Linked):
        return None
    source = seen.link.source
    kind: type = type(source)
    plain = {name: _plain(getattr(source, name)) for name in _told(kind)}
    return {"type": type(source).__name__, **plain}


@cache
def _told(kind: Any) -> Sequence[str]:
    return [field.name for field in fields(kind) if field.name not in _UNTOLD]


def _plain(value: Any) -> Any:
    """*value* as JSON and YAML can hold it."""
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _options(options: DiskOptions) -> dict[str, Any]:
    always = {name: getattr(options, name) for name in _ALWAYS_TOLD}
    return always | {k: v for k, v in options.asked().items() if k in BY_NAME}


def _due(row: Attachment, seen: Seen) -> str:
    step = next_step(row.want, seen)
    why = reason(step, seen)
    return f"{step.value}: {why}" if why else step.value
