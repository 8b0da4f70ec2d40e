"""What looking after a host comes to: plain values that print and serialise well."""

from __future__ import annotations

from dataclasses import dataclass, field

from moorline.ports.inspection import Finding, GuestDisk
from moorline.ports.results import EventLogEntry, Result, View


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
