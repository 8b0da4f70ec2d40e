"""Which host a guest goes to, and what keeps it where it is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Protocol

from moorline.fleet.record_store import OfHost
from moorline.fleet.records import GuestOwner, Heartbeat, HostRecord, Move
from moorline.fleet.same_ids import is_another
from moorline.model import Attachment, GuestId, VolumeId

OF_ONE_HOST = frozenset({"local"})
"""Back ends whose volumes one host has: what is at their path on another is not the same."""


_ELSEWHERE = "not on storage that others have: copy it there, or detach it"
_WHOSE_OWN = {
    False: "its host's own: moorline fleet attach makes it the fleet's",
    True: f"its host's own, and {_ELSEWHERE}",
}
"""By whether its storage is one host's."""


class Candidates(Protocol):
    """What is looked at to choose."""

    hosts: dict[str, HostRecord]
    moves: dict[GuestId, Move]
    owners: dict[GuestId, GuestOwner]
    heartbeats: dict[str, Heartbeat | None]
    silent: frozenset[str]
    reports: dict[str, OfHost]


def choose(guest: GuestId, source: str, look: Candidates) -> str | None:
    """Return the host with the fewest guests that may take one more; None: there is none.

    It lives, is not cordoned, has the memory, as far as both were told, and is not the one of
    which the last move said that it cannot.
    """
    load = _load(look.owners, look.moves)
    needed = _memory(guest, look)
    able = [
        name
        for name, record in look.hosts.items()
        if name != source
        and name not in look.silent
        and _is_there(look.heartbeats.get(name))
        and not is_another(look.reports[name].guests.get(guest))
        and not (record.cordoned or record.draining or record.fenced)
        and _has_memory(name, needed, look)
    ]
    note = look.owners[guest].note if guest in look.owners else ""
    return min(able, key=lambda name: (note.startswith(f"{name}:"), load[name], name), default=None)


def keeps_here(attachments: Mapping[VolumeId, Attachment]) -> str:
    """Why a guest with these cannot go to another host at all; '': it can."""
    for volume, row in attachments.items():
        if row.backend in OF_ONE_HOST:
            return (
                f"volume {volume} is a file or device of its host ({row.backend}), and {_ELSEWHERE}"
            )
    return ""


def lost_disks(guest: GuestId, desired: OfHost, reports: OfHost) -> Iterator[str]:
    """Disks of which another host would open another file than *guest* has, as its host told."""
    for volume, row in desired.attachments_of(guest).items():
        report = reports.volumes.get((guest, volume))
        if report is not None and report.attachment == row.revision and report.lost:
            yield f"volume {volume}: {report.message}"


def hosts_own(guest: GuestId, desired: OfHost, reports: OfHost) -> list[str]:
    """Which volumes keep a guest where it is because they are its host's own.

    It would have them elsewhere as well, and the fleet would know of no guest there that has them;
    of what only its host has it would have another file there, or none.
    """
    return [
        f"volume {volume} is {_WHOSE_OWN[bool(report.local)]}"
        for (of, volume), report in reports.volumes.items()
        if of == guest and report.by_itself and (of, volume) not in desired.attachments
    ]


def why_it_stays(
    guest: GuestId, desired: OfHost, reports: OfHost, *, dead: bool = False
) -> list[str]:
    """All that keeps a guest on its host, as far as is known; []: it can go.

    On a host that is *dead* nobody brings a file back: its guest starts with what is there.
    """
    kept = keeps_here(desired.attachments_of(guest))
    lost = [] if dead else lost_disks(guest, desired, reports)
    return [*filter(None, [kept]), *hosts_own(guest, desired, reports), *lost]


def _is_there(beat: Heartbeat | None) -> bool:
    return beat is not None and not beat.left


def _has_memory(host: str, needed: int, look: Candidates) -> bool:
    """Whether *needed* MiB are left there beside what its guests may use, and what is to come."""
    heartbeat = look.heartbeats.get(host)
    if heartbeat is None or not heartbeat.memory:
        return True
    there = {guest for guest, owner in look.owners.items() if owner.host == host}
    there |= {guest for guest, move in look.moves.items() if move.destination == host}
    return heartbeat.memory >= needed + sum(_memory(guest, look) for guest in there)


def _memory(guest: GuestId, look: Candidates) -> int:
    """MiB that it may use, as the host that has it says, stopped or not; 0: not told."""
    owner = look.owners.get(guest)
    reports = look.reports.get(owner.host) if owner else None
    report = reports.guests.get(guest) if reports else None
    return report.memory if report else 0


def _load(owners: Mapping[GuestId, GuestOwner], moves: Mapping[GuestId, Move]) -> Counter[str]:
    load = Counter(owner.host for owner in owners.values())
    load.update(move.destination for move in moves.values())
    return load
