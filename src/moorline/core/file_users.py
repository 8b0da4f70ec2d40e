"""Who has which file: the disks of guests, and the volumes of attachments that are no disks yet."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from moorline.core.links import Links
from moorline.core.survey import Survey
from moorline.errors import Failed, MoorlineError, Uncertain
from moorline.model import (
    Attachment,
    BlockDevice,
    DatastoreDisk,
    Guest,
    GuestId,
    ImageFile,
    Link,
    Linked,
    NetworkDisk,
    PathSource,
    Unlinked,
    Use,
)
from moorline.network_disk import may_be_one
from moorline.ports import Identifying, Mount
from moorline.ports.mount import MountsByPath


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

    def is_other(self, row: Attachment) -> bool:
        """Whether it counts for *row*: it is not the disk of *row* itself."""


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file that a definition of a guest names. See :class:`FileUser`."""

    path: str
    _guest: Guest
    _use: Use
    disk: bool = True

    @property
    def who(self) -> str:
        return self._guest.name

    def use(self) -> Use:
        return self._use

    def is_other(self, row: Attachment) -> bool:
        if self._guest.id == row.key.guest:
            # A guest's owner plugs what is hands off. And if the hypervisor does not say which
            # disk is which volume, only paths are known.
            return self.disk and not row.hands_off and self._use.volume != row.key.volume
        same = self._guest.disks.get(row.key.volume)
        # If both attachments are shared, this one would have been refused otherwise.
        return self.disk or same is None or not row.options.shared or same.source != self.path


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

    def is_other(self, row: Attachment) -> bool:
        return self._row.key != row.key

    def may_be(self, disk: DatastoreDisk) -> bool:
        """Whether it may be in the datacenter of *disk*, as far as both are named."""
        source = _source(_link(self._row, self._links))
        named = {getattr(source, "datacenter", ""), disk.datacenter} - {""}
        return len(named) < 2

    def use(self) -> Use | None:
        if not self._found:
            source = _source(_link(self._row, self._links))
            self._found.append(use_of(self._row, source) if source else None)
        return self._found[0]


def use_of(row: Attachment, source: PathSource) -> Use:
    """How the guest of *row* has, or will have, *source*."""
    form = source.format if isinstance(source, ImageFile | BlockDevice) else "raw"
    return Use(str(source.path), form, row.options.readonly, row.options.shared)


class FileUsers:
    """The files of all guests and attachments, as one look at the host has seen them.

    Safe to use from several threads.
    """

    def __init__(self, guests: Sequence[Guest], survey: Survey, table: MountsByPath | None) -> None:
        """*table*: the mounts on which the files lie; None: it is not known."""
        self.table = table
        self._running = [guest for guest in guests if guest.running]
        self._survey = survey
        self._disks = _Files(table, (file for guest in guests for file in _of_guest(guest)))
        by_id = {guest.id: guest for guest in guests}
        self._links = [
            _OfLink([row for row in wanted if not _has(by_id, row)], survey.links)
            for wanted in survey.by_link.values()
        ]

    def others(self, row: Attachment, matters: Callable[[str], bool]) -> OtherUsers:
        """All but the disk of *row* itself.

        *matters*: whether a file in a directory may be the one in question; of attachments that
        share a link, most are of other shares, and are not gone through.
        """
        wanted = (file for link in self._links for file in link.files(row, matters))
        return OtherUsers(row, (self._disks, _Files(self.table, wanted)))

    def demand_known(self, mine: Use, opened: Sequence[str]) -> None:
        """Raise Failed if a server tells of more that have it *opened* than our guests can be.

        It does not tell who they are: each guest that has the disk as it runs is one of them. One
        that will have it when it is started anew is not: somebody else could hide behind it. Where
        it is shared, others may have it anywhere.
        """
        here = sum(mine.path in guest.opened for guest in self._running)
        if len(opened) > here and not mine.shared:
            known = f", of whom {here} may be this host's guests" if here else ""
            raise Failed(
                f"somebody else has {mine.path} open: {', '.join(opened)}{known}",
                hint="who died is forgotten after a while (Ceph: 30 s); or have all share it",
            )

    def of_ids(self, row: Attachment, disk: NetworkDisk) -> Iterator[FileUser]:
        """The guests that have a server's disk already, by another name.

        Only what we gave them can be asked for its ids. What they do not have yet is compared when
        they are given it. Raises Uncertain: it cannot be told of what one of them has.
        """
        links = self._survey.links
        for other in self._survey.rows if disk.ids else ():
            named = _identifiable(other, links) if other.key != row.key else None
            called = self._disks.by_path.get(named.path, ()) if named else ()
            users = [each for each in called if each.is_other(row) and each.path != disk.path]
            if users and disk.ids & _ids(other, links, users[0].who):
                yield from users


class _Files:
    """Files, by what they are called and by what they lie on."""

    def __init__(self, table: MountsByPath | None, files: Iterable[FileUser]) -> None:
        self.by_path: defaultdict[str, list[FileUser]] = defaultdict(list)
        self.by_mount: defaultdict[Mount | None, list[FileUser]] = defaultdict(list)
        for file in files:
            self.by_path[file.path].append(file)
            if table and file.disk and file.path.startswith("/"):
                self.by_mount[table.covering(file.path)].append(file)


class OtherUsers:
    """Who else than *row* has which file."""

    def __init__(self, row: Attachment, files: Sequence[_Files]) -> None:
        self._row = row
        self._files = files

    def called(self, path: str) -> Sequence[FileUser]:
        """Those who call a file *path*."""
        named = (file for files in self._files for file in files.by_path.get(path, ()))
        return [file for file in named if file.is_other(self._row)]

    def may_have(self, known: str) -> Sequence[FileUser]:
        """Those who have, or may have, what a server's disk is *known* by."""
        names = {name for files in self._files for name in files.by_path if may_be_one(name, known)}
        return [file for name in sorted(names) for file in self.called(name)]

    def mounts(self) -> Sequence[Mount | None]:
        """What disks lie on that have a path, in the order in which it was mounted."""
        found = {mount for files in self._files for mount in files.by_mount}
        return sorted(found, key=lambda mount: mount.id if mount else 0)

    def on(self, mount: Mount | None) -> Sequence[FileUser]:
        """The disks that lie on *mount*."""
        there = (file for files in self._files for file in files.by_mount.get(mount, ()))
        return [file for file in there if file.is_other(self._row)]


def _has(guests: Mapping[GuestId, Guest], other: Attachment) -> bool:
    guest = guests.get(other.key.guest)
    return guest is not None and other.key.volume in guest.disks


def _of_guest(guest: Guest) -> Iterator[GuestFile]:
    for use in guest.uses:
        yield GuestFile(use.path, guest, use)
    for path in guest.paths - {use.path for use in guest.uses}:
        yield GuestFile(path, guest, Use(path, ""), disk=False)


class _OfLink:
    """The files of volumes that share one link, which is looked at when that first matters."""

    def __init__(self, rows: Sequence[Attachment], links: Links) -> None:
        self._rows = rows
        self._links = links
        self._found: dict[bool, Sequence[WantedFile]] = {}
        """By whether what is in its directory matters."""
        self._lock = threading.Lock()
        """Of several threads one looks, and the others wait for that."""

    def files(self, row: Attachment, matters: Callable[[str], bool]) -> Sequence[WantedFile]:
        """Those that matter; none, if *row* alone wants the link."""
        if all(other.key == row.key for other in self._rows):
            return ()
        mattering = matters(self._rows[0].link)
        with self._lock:
            if mattering not in self._found:
                files = _of_link(self._rows, self._links, mattering=mattering)
                self._found[mattering] = list(files)
        return [file for file in self._found[mattering] if file.is_other(row)]


def _of_link(rows: Iterable[Attachment], links: Links, *, mattering: bool) -> Iterator[WantedFile]:
    """The files of volumes that share one link, which is looked at once.

    What cannot be looked at is left out: it cannot be plugged before its link works, and it is
    compared then.
    """
    by_name = False
    for row in rows:
        path = _named(row, links) if by_name else ""
        if not path:
            if not mattering and _named(row, links):
                return  # it is a directory, and no share is asked for what lies in it
            link = _link(row, links)
            if link is not None and not isinstance(link, Linked):
                return
            if (source := _source(link)) is None:
                continue  # its connection does not fit any more: that says nothing of the link
            path = str(source.path)
            by_name = path == _named(row, links)
        yield WantedFile(path, row, links)


def _named(row: Attachment, links: Links) -> str:
    """What the file of *row* is called on a link that is a directory; '': its name is not known."""
    try:
        _, connection = links.parsed(row)
    except MoorlineError:
        return ""
    return f"{row.link}/{connection.name}" if connection.name else ""


def _identifiable(row: Attachment, links: Links) -> NetworkDisk | None:
    """The disk of *row*, if its server may tell its ids; no server is asked."""
    try:
        backend, connection = links.parsed(row)
        link = backend.inspect(connection) if isinstance(backend, Identifying) else None
    except MoorlineError:
        return None
    source = _source(link)
    return source if isinstance(source, NetworkDisk) else None


def _ids(row: Attachment, links: Links, who: str) -> frozenset[str]:
    """The ids of a server's disk that *who* has. Raises Uncertain."""
    try:
        backend, connection = links.parsed(row)
        assert isinstance(backend, Identifying)
        return backend.ids(connection)
    except MoorlineError as e:
        raise Uncertain(
            f"it cannot be told whether {who} has the same disk as volume {row.key.volume}: {e}"
        ) from e


def _link(row: Attachment, links: Links) -> Link | None:
    try:
        # Why one does not work that is not mounted yet is not asked: twenty that are mounted at
        # once would be looked for in the table of processes by each of twenty.
        return links.inspect(row) if links.may_work(row) else Unlinked()
    except MoorlineError:
        return None


def _source(link: Link | None) -> PathSource | None:
    source = link.source if isinstance(link, Linked) else None
    return source if isinstance(source, PathSource) else None
