"""What calls come to, and what was done for them: plain values that print and serialise well."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """What a call returns."""

    def to_dict(self) -> dict[str, Any]:
        """The same facts for JSON and YAML; the keys are stable."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Trouble:
    """The last thing that went wrong with an attachment: for people, never decided upon."""

    step: str
    error: str
    """The error's family: refused, failed, uncertain, notours."""
    message: str
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class View(Result):
    """One attachment as it is wanted and as it is seen.

    ``seen`` is one of *attached*, *snapshot* (the guest writes to a file above it), *partial*
    (only live, or only in the definition), *leaving*, *connected*, *absent*, *broken* (the link
    does not work, or what the guest has open of it; or its disk is on a link that is not there),
    *foreign*, *unknown*. ``next`` is the step that is due and, if it waits, for what.
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
    """When it was wanted, seconds since the epoch."""
    next: str
    source: dict[str, Any] | None = None
    """What is there for a guest, if the volume is reachable: the disk source's class as
    ``type``, and its fields, but for the files beneath it: those are looked up to attach it."""
    trouble: Trouble | None = None
    also_wanted_by: list[str] = field(default_factory=list)
    """Other attachments that share the link, as ``volume on guest``."""
    used_by: list[str] = field(default_factory=list)
    """Guests, running or stopped, that name a path on the link, or have what it leads to."""
    storage: str = ""
    """What is typed for it, a URL or a path, without secrets; else its path on this host."""
    format: str = ""
    """The image's, as the connection says; '' where there is but one."""
    size: int | None = None
    """Bytes that a guest sees of it, where they were asked for and can be told."""
    options: dict[str, Any] = field(default_factory=dict)
    """How the guest has it: ``bus``, ``target``, ``readonly``, ``shared``, as asked for."""
    label: str = ""
    hands_off: bool = False
    """Whether somebody else (Nova) plugs the disk."""
    paused: str = ""
    """Why the guest stands still, if an error of a disk's paused it."""


@dataclass(frozen=True, slots=True)
class Outcome(Result):
    """What a change came to: the steps taken (or foreseen), and what is seen after them."""

    steps: list[str]
    view: View
    unseen: str = field(default="", kw_only=True)
    """What a dry run could not look at, and why: that may still be refused. '': nothing."""


@dataclass(frozen=True, slots=True)
class Extended(Outcome):
    """What extending came to: also the volume's size for the guest, in bytes."""

    before: int
    size: int
    """What it is now, or with a dry run what it would be."""


@dataclass(frozen=True, slots=True)
class EventLogEntry(Result):
    """A step that was taken, or something that was seen."""

    id: int
    """Grows from entry to entry."""
    at: float
    """Seconds since the epoch."""
    step: str
    """As in the planner; '' if something was only seen, or kept a step from being taken."""
    outcome: str
    """``done``, ``seen``, or the class of the error in small letters."""
    volume: str = ""
    guest: str = ""
    link: str = ""
    message: str = ""
    seconds: float = 0.0
    times: int = 1
    """How often in a row it has come to the same by now."""
