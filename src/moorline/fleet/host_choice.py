"""Which host a guest goes to, and what keeps it where it is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Protocol

from moorline.fleet.record_store import OfHost
from moorline.fleet.records import GuestOwner, Heartbeat, HostRecord, Move
from moorline.model import Attachment, GuestId, VolumeId

_OF_ONE_HOST = frozenset({"local"})
"""Back ends whose volumes one host has: what is at their path on another is not the same."""


class Candidates(Protocol):
    """What is looked at to choose."""

    hosts: dict[str, HostRecord]
    moves: dict[GuestId, Move]
    owners: dict[GuestId, GuestOwner]
    heartbeats: dict[str, Heartbeat | None]
    silent: frozenset[str]


def choose(guest: GuestId, source: str, look: Candidates) -> str | None:
    """Return the host with the fewest guests that may take one more; None: there is none.

    It lives, is not cordoned, and is not the one of which the last move said that it cannot.
    """
    load = _load(look.owners, look.moves)
    able = [
        name
        for name, record in look.hosts.items()
        if name != source
        and name not in look.silent
        and look.heartbeats.get(name)
        and not (record.cordoned or record.draining or record.fenced)
    ]
    note = look.owners[guest].note if guest in look.owners else ""
    return min(able, key=lambda name: (note.startswith(f"{name}:"), load[name], name), default=None)


def keeps_here(attachments: Mapping[VolumeId, Attachment]) -> str:
    """Why a guest with these cannot go to another host at all; '': it can."""
    for volume, row in attachments.items():
        if row.backend in _OF_ONE_HOST:
            return (
                f"volume {volume} is a file or device of its host ({row.backend}), and not on"
                " storage that others have: copy it there, or detach it"
            )
    return ""


def lost_disks(guest: GuestId, desired: OfHost, reports: OfHost) -> Iterator[str]:
    """Disks of which another host would open another file than *guest* has, as its host told."""
    for volume, row in desired.attachments_of(guest).items():
        report = reports.volumes.get((guest, volume))
        if report is not None and report.attachment == row.revision and report.lost:
            yield f"volume {volume}: {report.message}"


def why_it_stays(
    guest: GuestId, desired: OfHost, reports: OfHost, *, dead: bool = False
) -> list[str]:
    """All that keeps a guest on its host, as far as is known; []: it can go.

    On a host that is *dead* nobody brings a file back: its guest starts with what is there.
    """
    kept = keeps_here(desired.attachments_of(guest))
    return [*filter(None, [kept]), *([] if dead else lost_disks(guest, desired, reports))]


def _load(owners: Mapping[GuestId, GuestOwner], moves: Mapping[GuestId, Move]) -> Counter[str]:
    load = Counter(owner.host for owner in owners.values())
    load.update(move.destination for move in moves.values())
    return load
