"""What calls about guests come to: plain values that print and serialise well."""

from __future__ import annotations

from dataclasses import dataclass, field

from moorline.ports.results import Result, View


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
