"""What is outside of the process in a toy world, and so survives it."""

from __future__ import annotations

from dataclasses import dataclass, field

from moorline.model import Format, GuestId, Limits, Use, VolumeId
from moorline.network_disk import NetworkLogin
from moorline.secret import Secret
from moorline.testing.faults import Faults


@dataclass
class ToyGuest:
    """A guest with a running half and a defined half, like libvirt's."""

    name: str
    running: bool = True
    persistent: bool = True
    deaf: bool = False  # to requests to let a disk go (it is still booting)
    live: dict[VolumeId, str] = field(default_factory=dict)
    defined: dict[VolumeId, str] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)  # paths of disks without our mark
    unreadable: str = ""  # why its definitions cannot be read
    leaving: dict[VolumeId, int] = field(default_factory=dict)
    """Ticks until a disk that was asked to go is gone."""
    lost: set[VolumeId] = field(default_factory=set)
    """Live disks that it has open on a mount that is no more."""
    told_of_errors: set[VolumeId] = field(default_factory=set)
    """Disks whose errors do not pause it."""
    waits: bool = False
    """An I/O error paused it."""
    held: set[VolumeId] = field(default_factory=set)
    """Live disks on a placeholder that fails each request."""
    limits: dict[VolumeId, Limits] = field(default_factory=dict)
    """How its disks are limited, in both halves."""
    told: dict[VolumeId, int] = field(default_factory=dict)
    """The sizes of which it was told, where that was not at the attach."""
    uses: set[Use] = field(default_factory=set)  # how its disks are used, as far as that is told

    def paths(self) -> frozenset[str]:
        return frozenset(self.live.values()) | frozenset(self.defined.values()) | self.foreign


@dataclass
class ToyWorld:
    """What is outside of the process, and so survives it."""

    faults: Faults = field(default_factory=Faults)
    mounts: dict[str, str] = field(default_factory=dict)
    """Share by mount point; a foreign one bears another name than its path."""
    dead: set[str] = field(default_factory=set)
    """Shares whose client is seen to be gone."""
    presumed: set[str] = field(default_factory=set)
    """Of *dead*, those whose client was not seen gone."""
    cut_off: set[str] = field(default_factory=set)
    """Shares whose connection was ended, and whose client lives."""
    failing: set[str] = field(default_factory=set)
    """Shares whose client lives, and answers with an error."""
    hung: set[str] = field(default_factory=set)
    keys: dict[tuple[GuestId, VolumeId], Secret[bytes]] = field(default_factory=dict)
    """The keys of LUKS images that the hypervisor has."""
    logins: dict[tuple[GuestId, VolumeId], NetworkLogin | None] = field(default_factory=dict)
    """The users and passwords that the hypervisor has for servers' disks; None: it lost it."""
    opened_by: dict[str, bytes] = field(default_factory=dict)
    """The keys that LUKS images open with, by path; those that are not named open with any."""
    missing: set[str] = field(default_factory=set)
    """Paths of files that are not on their share."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Of files that somebody made larger, by path."""
    formats: dict[str, Format] = field(default_factory=dict)
    """The formats that files have, by path; those that are not named have any."""
    passwords: dict[str, str] = field(default_factory=dict)
    """What mounting a share takes; those that are not named take any."""
    guests: dict[GuestId, ToyGuest] = field(default_factory=dict)
    write_through: set[str] = field(default_factory=set)
    """Shares of which that was said."""
    changed: dict[str, float] = field(default_factory=dict)
    """When files were last changed, by path; those that are not named: long ago."""
    replaced: set[str] = field(default_factory=set)
    """Paths at which another file is than there was."""
    blind: bool = False
    """The hypervisor does not answer."""
    violations: list[str] = field(default_factory=list)

    def tick(self) -> None:
        """Let time pass: guests let go of what they were asked for."""
        for guest in self.guests.values():
            for volume in list(guest.leaving):
                guest.leaving[volume] -= 1
                if guest.leaving[volume] <= 0:
                    del guest.leaving[volume]
                    guest.live.pop(volume, None)

    def users(self, mount_point: str, *, running: bool = False) -> list[str]:
        """The guests (or only the running ones) that name a path on *mount_point*."""
        return [
            guest.name
            for guest in self.guests.values()
            if (guest.running or not running)
            and any(path.startswith(f"{mount_point}/") for path in guest.paths())
        ]
