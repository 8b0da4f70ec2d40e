"""What calls come to: plain values that print and serialise well."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from moorline.ports.inspection import Finding, GuestDisk


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
class GuestView(Result):
    """A guest of this host."""

    name: str
    guest_id: str
    running: bool


@dataclass(frozen=True, slots=True)
class GuestOutcome(Result):
    """What launching, starting or removing came to."""

    guest: str
    guest_id: str
    running: bool
    steps: list[str]
    """define, connect, attach, start, stop, detach, disconnect, forget, undefine."""
    attachments: list[View] = field(default_factory=list)
    disks: list[str] = field(default_factory=list)
    """The paths of its disks, where it was made with a disk of its own."""


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


@dataclass(frozen=True, slots=True)
class Explanation(Result):
    """How one attachment stands."""

    volume: str
    guest: str
    wanted: str
    seen: str
    step: str
    """The next step; ``nothing`` if it is as wanted."""
    waits_for: str
    since: float
    """Since when, seconds since the epoch; 0: nothing waits, or it is not known."""
    tries: int
    due: float | None
    """Seconds until the agent's next try; None: no agent has it in hand."""
    link: str
    held_by: list[str]
    """Guests that name a path on the link, and other attachments for it."""
    tried: list[EventLogEntry]
    """What was done last, oldest first."""
    why: str
    """Why it matters, where somebody must act; ''."""
    next: str
    """The next command to run; '' if there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Diagnosis(Result):
    """What the doctor found; nothing is well."""

    findings: list[Finding]
    facts: dict[str, str]
    """Versions, for people."""


@dataclass(frozen=True, slots=True)
class Repair(Result):
    """A repair that is due, or was made."""

    action: str
    """``disconnect``, ``remove`` (an empty mount point), ``detach``, ``abort``."""
    subject: str
    device: str = ""
    """Of a disk: how the hypervisor calls it, and its path."""
    path: str = ""
    done: bool = False
    problem: str = ""
    """Why it was not done."""
    killed: list[str] = field(default_factory=list)
    """Of an abort: the processes that are killed with it, as ``name (pid)``."""
    renewed: list[str] = field(default_factory=list)
    """Of an abort: the disks that guests go on with, as ``guest/volume``."""


@dataclass(frozen=True, slots=True)
class Candidate(Result):
    """A disk of a guest, and whether it could be adopted."""

    disk: GuestDisk
    backend: str
    """The kind of the mount that it lies on; '' if none of ours."""
    wanted: bool
    guest: str = ""
    whose: str = ""
    """``ours``; ``released`` (it was, and stays); ``nova`` (Nova plugs it, or defines its guest);
    ``other`` (plugged by hand, say)."""
    size: int | None = None
    """Bytes that the guest sees; None: that cannot be told now."""


@dataclass(frozen=True, slots=True)
class Adoption(Result):
    """What adopting or releasing came to: the steps (mark, adopt, release), and what is seen."""

    steps: list[str]
    view: View


@dataclass(frozen=True, slots=True)
class DiskOutcome(Result):
    """What came of one disk of many that were to be adopted, or released."""

    guest: str
    guest_id: str
    device: str = ""
    """'': what is told is about the guest, or about a volume that it does not have."""
    path: str = ""
    volume: str = ""
    """Its id, as far as that is known."""
    backend: str = ""
    outcome: str = ""
    """``adopted``, ``released``; ``due``: with a dry run, it would be; ``kept``: it was adopted
    before; ``left``: nobody can tell its volume, and nobody asked to; ``unset``: an option is
    missing; else the class of the error in small letters."""
    steps: list[str] = field(default_factory=list)
    """``mark``, ``adopt``, ``release``: taken or, with a dry run, to come."""
    why: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class AdoptionOfAll(Result):
    """What adopting many disks came to."""

    disks: list[DiskOutcome]
    settings: list[str]
    """Lines for the configuration, ``OPTION = VALUE``, of which disks that are ``unset`` are in
    need. A value has all that the option has already."""
