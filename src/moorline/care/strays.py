"""What is on this host without being wanted: links, and disks of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from moorline.core.link_usage import users
from moorline.errors import MoorlineError
from moorline.model import Attachment, Guest, VolumeId
from moorline.ports import Backends
from moorline.ports.inspection import Discovering, Found


def links(backends: Backends) -> Iterator[tuple[Discovering, Found]]:
    """All links on this host, each once, with the back end whose it is."""
    told = set()
    for kind in backends:
        try:
            backend = backends[kind]
        except MoorlineError:
            continue  # unusable here, so it has made no links
        if isinstance(backend, Discovering):
            for found in _told(backend):
                # Back ends can share a directory, and each of them reports an empty place in it.
                if found.link not in told:
                    told.add(found.link)
                    yield backend, found


def _told(backend: Discovering) -> Sequence[Found]:
    try:
        return backend.links()
    except MoorlineError:
        return []  # what cannot be told is left alone


def strays(
    backends: Backends, rows: Sequence[Attachment], guests: Sequence[Guest]
) -> Iterator[tuple[Discovering, Found]]:
    """Links that neither an attachment nor a guest, running or stopped, is known to need."""
    wanted = {row.link for row in rows}
    for backend, found in links(backends):
        if found.link not in wanted and not users(found.link, guests):
            yield backend, found


def unwanted(
    rows: Sequence[Attachment],
    guests: Sequence[Guest],
    released: Mapping[tuple[str, str], str],
) -> Iterator[tuple[Guest, VolumeId]]:
    """Disks of ours without an attachment, also if a snapshot is above them by now.

    *released*: as :meth:`Records.released`.
    """
    for guest, volume, path in released_disks(rows, guests, released):
        disk = guest.disks[volume]
        if path in (disk.source, *(disk.beneath or ())):
            yield guest, volume


def released_disks(
    rows: Sequence[Attachment],
    guests: Sequence[Guest],
    released: Mapping[tuple[str, str], str],
) -> Iterator[tuple[Guest, VolumeId, str]]:
    """Disks that bear the mark of what was released, and the path that it had then.

    Nova and oVirt mark their disks in the same way, so a marked disk that is not in *released*
    is theirs; and if somebody else plugs the disk of any attachment, all marked disks are.
    """
    if any(row.hands_off for row in rows):
        return
    wanted = {(row.key.guest, row.key.volume) for row in rows}
    for guest in guests:
        for volume in guest.disks:
            key: tuple[str, str] = guest.id, volume
            if key not in wanted and key in released:
                yield guest, volume, released[key]
