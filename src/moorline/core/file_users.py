"""Who has which file: the disks of guests, and the volumes of attachments that are no disks yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from moorline.core.links import Links
from moorline.core.survey import Survey
from moorline.errors import MoorlineError
from moorline.model import (
    Attachment,
    BlockDevice,
    DatastoreDisk,
    Guest,
    GuestId,
    ImageFile,
    Link,
    Linked,
    PathSource,
    Use,
)


class FileUser(Protocol):
    """Another guest or another attachment, and a file that it has."""

    @property
    def path(self) -> str:
        """What it calls the file."""

    @property
    def who(self) -> str:
        """What people call it."""

    @property
    def disk(self) -> bool:
        """False: it is only a path in the guest's definition, such as a kernel."""

    def use(self) -> Use | None:
        """How it has the file; None: it cannot have it now."""


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file that a definition of a guest names. See :class:`FileUser`."""

    path: str
    who: str
    _use: Use
    disk: bool = True

    def use(self) -> Use:
        return self._use


class WantedFile:
    """The file of a volume that is no disk yet, as it is called if its link works.

    The link is looked at when it is asked how it has the file: of most of a thousand volumes
    the name or the mount tells that they have others. See :class:`FileUser`.
    """

    disk = True
    __slots__ = ("_found", "_links", "_row", "path")

    def __init__(self, path: str, row: Attachment, links: Links) -> None:
        self.path = path
        self._row = row
        self._links = links
        self._found: list[Use | None] = []

    @property
    def who(self) -> str:
        return f"volume {self._row.key.volume} of {self._row.guest_name}"

    def use(self) -> Use | None:
        if not self._found:
            source = _source(_link(self._row, self._links))
            self._found.append(use_of(self._row, source) if source else None)
        return self._found[0]


def use_of(row: Attachment, source: PathSource) -> Use:
    """How the guest of *row* has, or will have, *source*."""
    form = source.format if isinstance(source, ImageFile) else "raw"
    return Use(str(source.path), form, row.options.readonly, row.options.shared)


def users(
    row: Attachment, survey: Survey, guests: Sequence[Guest], matters: Callable[[str], bool]
) -> Iterator[FileUser]:
    """The files of *guests* and of other attachments, but for the disk of *row* itself.

    *matters*: whether a file in a directory may be the one in question; of attachments that
    share a link, most are of other shares, and are not gone through.
    """
    for guest in guests:
        yield from _of_guest(guest, row)
    by_id = {guest.id: guest for guest in guests}
    for wanted in survey.by_link.values():
        others = (other for other in wanted if other.key != row.key and not _has(by_id, other))
        yield from _of_link(others, survey.links, matters)


def _has(guests: Mapping[GuestId, Guest], other: Attachment) -> bool:
    guest = guests.get(other.key.guest)
    return guest is not None and other.key.volume in guest.disks


def _of_guest(guest: Guest, row: Attachment) -> Iterator[FileUser]:
    own = guest.id == row.key.guest
    if own and (row.hands_off or not guest.uses):
        return  # its owner plugs it, or the hypervisor does not say which disk is which volume
    for use in guest.uses:
        if not (own and use.volume == row.key.volume):
            yield GuestFile(use.path, guest.name, use)
    told = {use.path for use in guest.uses}
    same = guest.disks.get(row.key.volume)
    if same is not None and row.options.shared:
        told.add(same.source)  # both attachments are shared: else this one would have been refused
    for path in frozenset() if own else guest.paths - told:
        yield GuestFile(path, guest.name, Use(path, ""), disk=False)


def _of_link(
    others: Iterable[Attachment], links: Links, matters: Callable[[str], bool]
) -> Iterator[FileUser]:
    """The files of volumes that share one link, which is looked at once.

    What cannot be looked at is left out: it cannot be plugged before its link works, and it is
    compared then.
    """
    by_name = False
    for other in others:
        path = _named(other, links) if by_name else ""
        if not path:
            link = _link(other, links)
            if link is not None and not isinstance(link, Linked):
                return
            if (source := _source(link)) is None:
                continue  # its connection does not fit any more: that says nothing of the link
            path = str(source.path)
            by_name = path == _named(other, links)
            if by_name and not matters(other.link):
                return
        yield WantedFile(path, other, links)


def _named(row: Attachment, links: Links) -> str:
    """What the file of *row* is called on a link that is a directory; '': its name is not known."""
    try:
        _, connection = links.parsed(row)
    except MoorlineError:
        return ""
    return f"{row.link}/{connection.name}" if connection.name else ""


def _link(row: Attachment, links: Links) -> Link | None:
    try:
        return links.inspect(row)
    except MoorlineError:
        return None


def _source(link: Link | None) -> PathSource | None:
    source = link.source if isinstance(link, Linked) else None
    return source if isinstance(source, ImageFile | BlockDevice | DatastoreDisk) else None
