"""Who needs a link: which guests name a path on it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from moorline.model import Disk, Guest, GuestId, Held


@dataclass(frozen=True, slots=True)
class Usage:
    """Whether a link must stay. The fields are those of :class:`moorline.model.Seen`."""

    held: Held
    by: tuple[str, ...] = ()
    unsure: str = ""


def usage(link: str, guests: Sequence[Guest]) -> Usage:
    """Whether *link* must stay because one of *guests* names a path on it, or may."""
    if by := users(link, guests):
        return Usage(Held.HELD, tuple(by))
    if unsure := unknown_users(guests):
        return Usage(Held.UNKNOWN, unsure="; ".join(unsure))
    return Usage(Held.FREE)


def without(disk: Disk, guest: Guest, owner: GuestId) -> Guest:
    """*guest*, without the path of *disk* if *guest* is the disk's *owner*."""
    return replace(guest, paths=guest.paths - {disk.source}) if guest.id == owner else guest


def users(link: str, guests: Iterable[Guest]) -> list[str]:
    """Name the guests that have a path on *link* in any of their definitions."""
    below = f"{link.rstrip('/')}/"  # paths are normalised, so comparing their text is enough
    return sorted(
        guest.name
        for guest in guests
        if any(path == link or path.startswith(below) for path in guest.paths)
    )


def unknown_users(guests: Iterable[Guest]) -> list[str]:
    """Say which guests may have a path on any link, as not all of their paths are known."""
    return sorted(unknown(guest) for guest in guests if guest.unreadable or guest.unresolved)


def unknown(guest: Guest) -> str:
    """Say what is not known of *guest*, and why."""
    if not guest.unreadable:
        return f"guest {guest.name} names {guest.unresolved}, and it cannot be told where that is"
    help = f" ({guest.remedy})" if guest.remedy else ""
    return f"guest {guest.name} cannot be read: {guest.unreadable}{help}"
