"""Clashes over files: finds who else has the file that a guest is about to get, by any name."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from moorline.core.file_users import FileUser, FileUsers, OtherUsers, WantedFile, use_of
from moorline.core.same_file import fits, is_open, may_be_same, same_file
from moorline.core.survey import Survey
from moorline.deadline import Deadline
from moorline.errors import Failed, Refused, Unavailable, Uncertain
from moorline.model import (
    Attachment,
    BlockDevice,
    DatastoreDisk,
    DiskSource,
    Guest,
    GuestId,
    ImageFile,
    NetworkDisk,
    PathSource,
    Use,
)
from moorline.ports import FileId, FilesOf, Host, Hypervisor, Images, Mount
from moorline.ports.inspection import OpenedBy, OpenFile, OpenImages
from moorline.ports.mount import MountsByPath

IMAGES_PER_LOOK = 64
"""Images in one look at a share, which has one deadline for all of them."""
CLOSE_TIMEOUT_SECONDS = 2.0
"""Seconds that a guest has to close a file that it has no longer: libvirt may tell earlier."""
_POLL_SECONDS = 0.1
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENAMETOOLONG})


def nothing_open(guest: Guest, numbers: Collection[int] | None) -> Sequence[OpenFile]:
    """As where no hypervisor tells what guests have open."""
    return ()


def opened_by(hypervisor: Hypervisor) -> OpenedBy:
    """What *hypervisor* tells of the files that its guests have open."""
    return hypervisor.open_files if isinstance(hypervisor, OpenImages) else nothing_open


class _Theirs(NamedTuple):
    """How somebody else has a file."""

    use: Use
    who: str


@dataclass(frozen=True, slots=True)
class _File:
    """A file that the guest is about to have, and the mount on which it lies."""

    id: FileId
    use: Use
    mount: Mount | None
    beneath: bool = False
    """It is a backing file of the image that *use* names."""


class Everyone(NamedTuple):
    """Who has which file, as one look has seen it."""

    guests: Sequence[Guest]
    users: FileUsers
    numbers: frozenset[int]
    """Of the inodes of which it is known which guests have them open."""
    opened: Mapping[GuestId, Sequence[OpenFile]]
    """What each guest that runs has open of them."""


class FileClashes:
    """Refuses a volume whose file another guest or another attachment has, running or stopped.

    Two may have a file if both only read it, or both share it. Without a *host* only
    the paths are compared. Safe to use from several threads.
    """

    def __init__(self, host: Host | None = None, opened: OpenedBy = nothing_open) -> None:
        """*opened*: as :meth:`moorline.ports.inspection.OpenImages.open_files`."""
        self._host = host
        self._opened = opened
        self._known: Mapping[GuestId, Guest] = {}
        """Each guest as it was when it was last readable."""

    def look(self, survey: Survey, numbers: Collection[int] = ()) -> Everyone:
        """Look who has which file now. Raises as the hypervisor's survey, Unavailable.

        *numbers*: of the inodes that are asked about, as far as they are known. What it returns
        may be used by several threads.
        """
        guests = self._guests(survey)
        table = MountsByPath(self._host.mounts()) if self._host else None
        users = FileUsers(guests, survey, table)
        asked = frozenset(numbers)
        running = [guest for guest in guests if guest.running and asked]
        return Everyone(guests, users, asked, {g.id: self._opened(g, asked) for g in running})

    def refuse_others(self, row: Attachment, source: DiskSource, everyone: Everyone) -> None:
        """Raise Refused if somebody else has a file of *source*, Uncertain if it cannot be told.

        A path that cannot be looked at counts as in use if it may lie on the volume's own file
        system; an unrelated share that hangs delays nobody. May block for a look's deadline for
        each share that began to hang just now. *everyone*: as :meth:`look` saw it, which must have
        begun after this call was decided on.
        """
        if not isinstance(source, PathSource):
            return
        mine, table = use_of(row, source), everyone.users.table
        theirs = everyone.users.others(row, partial(_may_have, mine.path, table))
        if isinstance(source, DatastoreDisk):
            _refuse_wanted(source, mine, theirs.called(mine.path))
        elif isinstance(source, NetworkDisk):
            others = (*theirs.may_have(mine.path), *everyone.users.of_ids(row, source))
            _refuse_known(mine, others)
            everyone.users.demand_known(mine, source.opened)
        else:
            self._refuse_file(row, source, mine, theirs, everyone)

    def _refuse_file(
        self,
        row: Attachment,
        source: ImageFile | BlockDevice,
        mine: Use,
        theirs: OtherUsers,
        everyone: Everyone,
    ) -> None:
        told = set()  # the users whose way to use the file is known, and compatible
        names = {mine.path}
        for other in theirs.called(mine.path):
            if other.disk and (use := other.use()):
                _refuse_clash(mine, use, other.who)
                told.add(other.who)
        if self._host and (table := everyone.users.table):
            locked = next(iter(numbers_of(source)), 0)
            comparison = self._look(self._host, table, mine, theirs, told, names, locked)
            self._refuse_what_is_open(row, comparison, everyone)
        for name in sorted(names):
            for other in theirs.called(name):
                if not other.disk and other.who not in told:
                    _refuse_clash(mine, Use(other.path, ""), other.who)

    def _refuse_what_is_open(
        self, row: Attachment, comparison: _Comparison, everyone: Everyone
    ) -> None:
        numbers = comparison.numbers()
        for guest in everyone.guests:
            if guest.running and not _has_it_itself(guest, row):
                seen = numbers <= everyone.numbers
                files = everyone.opened[guest.id] if seen else self._opened(guest, numbers)
                comparison.refuse_what_is_open(guest, files, self._opened)

    def _guests(self, survey: Survey) -> Sequence[Guest]:
        """All guests. Of one that hangs or is unreadable, what it was last seen to have counts.

        So one such guest does not stop all others. What we gave it since is among the attachments.
        """
        try:
            now = survey.guests
        except (Uncertain, Unavailable):
            if not self._known:
                raise
        else:
            self._known = {guest.id: _with_what_it_had(guest, self._known) for guest in now}
        return list(self._known.values())

    def _look(
        self,
        host: Host,
        table: MountsByPath,
        mine: Use,
        theirs: OtherUsers,
        told: set[str],
        names: set[str],
        locked: int,
    ) -> _Comparison:
        """Compare files by identity.

        Adds compatible users to *told*, the files' paths to *names*. *locked*: the number of the
        file that nobody else gives to a guest now; 0: it is not known.
        """
        at = table.covering(mine.path)
        near, far = _split(_uses(theirs.on(at)), IMAGES_PER_LOOK - 1)
        # What lies beside it is asked for in one breath.
        images = [(mine.path, mine.format), *_images(near)]
        found, *looks = host.files(_share(at), images, first=True)
        if isinstance(found, OSError):
            raise Failed(f"{mine.path} cannot be looked at: {found.strerror}") from found
        if locked not in (0, found[0].inode):
            raise Failed(f"{mine.path} was replaced while it was looked at")
        beneath = Use(mine.path, "", readonly=True)
        files = [_File(found[0], mine, table.covering(found[0].path))]
        files += [_File(id, beneath, table.covering(id.path), True) for id in found[1:]]
        names.update(file.id.path for file in files)
        comparison = _Comparison(host, table, files, told)
        comparison.judge(at, near, looks)
        comparison.ask(at, far)
        for mount in theirs.mounts():
            if mount != at and comparison.may_be_on(mount):
                comparison.ask(mount, _uses(theirs.on(mount)))
        return comparison


class _Comparison:
    """Clashes of *files* with those of others. *told*: users of a file that are known to fit."""

    def __init__(
        self, host: Host, table: MountsByPath, files: Sequence[_File], told: set[str]
    ) -> None:
        self._host = host
        self._table = table
        self._files = files
        self._told = told
        self._by_path: set[tuple[str, FileId]] = set()
        """Who has which file by a path, so as it fits."""

    def may_be_on(self, mount: Mount | None) -> bool:
        """Whether what lies on a mount is looked at."""
        return any(_is_worth_a_look(file.mount, mount) for file in self._files)

    def ask(self, mount: Mount | None, others: Sequence[_Theirs]) -> None:
        """Look at what lies on one mount. Raises Refused, Uncertain."""
        near = self._may_lie_on(mount)
        while others:
            asked, others = _split(others, IMAGES_PER_LOOK)
            inodes = {file.id.inode for file in self._files}
            try:
                looks = self._host.files(_share(mount), _images(asked), inodes)
            except (Uncertain, OSError) as e:
                if near:
                    raise _cannot_tell(asked[0], str(e)) from e
                return  # it can be asked no more
            self.judge(mount, asked, looks)

    def judge(
        self, mount: Mount | None, others: Sequence[_Theirs], looks: Sequence[FilesOf]
    ) -> None:
        """Compare what was found on one mount. Raises Refused, Uncertain."""
        near = self._may_lie_on(mount)
        for each, look in zip(others, looks, strict=True):
            if isinstance(look, OSError):
                if near and look.errno not in _ABSENT:
                    raise _cannot_tell(each, look.strerror or "")
                continue
            for id in look:
                use = each.use if id is look[0] else Use(id.path, "", readonly=True)
                self._compare_one(id, use, each.who)

    def _may_lie_on(self, mount: Mount | None) -> bool:
        return any(may_be_same(file.mount, mount) for file in self._files)

    def _compare_one(self, id: FileId, use: Use, who: str) -> None:
        for file in self._files:
            if same_file(file.id, id, self._table):
                _refuse_clash(file.use, use, who, file.id.path if file.beneath else "")
                self._told.add(who)
                self._by_path.add((who, file.id))

    def numbers(self) -> frozenset[int]:
        """Of the inodes and block devices that the files may be open by."""
        numbers = frozenset(file.id.node or file.id.inode for file in self._files)
        return numbers.union(node for file in self._files for node in file.id.lower)

    def refuse_what_is_open(
        self, guest: Guest, files: Sequence[OpenFile], opened: OpenedBy
    ) -> None:
        """Raise Refused if a running guest has one open to which none of its paths leads.

        *files*: what it was seen to have open. Its mount may be gone or covered, the file renamed,
        or replaced. Who was just told to let it go gets a moment to close it.
        """
        deadline = Deadline(CLOSE_TIMEOUT_SECONDS)
        while clash := self._open_clash(guest, files):
            if deadline.over():
                raise _open_already(guest, *clash)
            deadline.sleep(_POLL_SECONDS)
            files = opened(guest, self.numbers())

    def _open_clash(
        self, guest: Guest, opened: Iterable[OpenFile]
    ) -> tuple[_File, OpenFile] | None:
        shared = {use.path for use in guest.uses if use.shared}
        for theirs in opened:
            use = Use(theirs.path, "", theirs.readonly, theirs.path in shared)
            for file in self._files:
                known = fits(file.use, use) or (guest.name, file.id) in self._by_path
                if not known and is_open(file.id, file.mount, theirs):
                    return file, theirs
        return None


def numbers_of(source: DiskSource) -> Sequence[int]:
    """Of the inodes of *source*, its own first, as they were when it was checked."""
    return [file.inode for file in source.checked] if isinstance(source, ImageFile) else ()


def _refuse_wanted(source: DatastoreDisk, mine: Use, theirs: Iterable[FileUser]) -> None:
    """Refuse a disk on a datastore that another attachment is to have.

    A path is one datacenter's, and guests do not tell whose: their disks the hypervisor compares.
    """
    for other in theirs:
        if isinstance(other, WantedFile) and other.may_be(source) and (use := other.use()):
            _refuse_clash(mine, use, other.who)


def _refuse_known(mine: Use, theirs: Iterable[FileUser]) -> None:
    """Refuse a server's disk that others have, or are to have, as far as its names tell."""
    for other in theirs:
        if use := other.use():
            _refuse_clash(mine, use, other.who)


def _has_it_itself(guest: Guest, row: Attachment) -> bool:
    """Whether *guest* is the one of *row*, and may have the volume open for it."""
    return guest.id == row.key.guest and (row.hands_off or row.key.volume in guest.disks)


def _open_already(guest: Guest, file: _File, theirs: OpenFile) -> Refused:
    lost = "" if theirs.mount else ", on a mount that is no more"
    return Refused(
        f"{guest.name} has {file.id.path} open already, as {theirs.path}{lost}",
        hint=f"its disks: moorline disks {shlex.quote(guest.name)};"
        " detach the one that is not there any more, or stop the guest",
    )


def _split(others: Sequence[_Theirs], at: int) -> tuple[Sequence[_Theirs], Sequence[_Theirs]]:
    return others[:at], others[at:]


def _uses(others: Iterable[FileUser]) -> Sequence[_Theirs]:
    """Those who may have a file now, and how."""
    found = ((each.use(), each.who) for each in others)
    return sorted((_Theirs(use, who) for use, who in found if use), key=_in_order)


def _in_order(each: _Theirs) -> tuple[object, ...]:
    """The fields of *each*, made once: to compare two uses makes those of both each time."""
    use = each.use
    alike = use.format, use.readonly, use.shared, use.volume, use.beneath
    return use.path, *alike, each.who


def _images(others: Sequence[_Theirs]) -> Images:
    return [(each.use.path, each.use.format) for each in others]


def _share(mount: Mount | None) -> Path:
    return Path(mount.target if mount else "/")


def _cannot_tell(theirs: _Theirs, why: str) -> Uncertain:
    return Uncertain(f"it cannot be told whether {theirs.who} has the file: {why}")


def _with_what_it_had(guest: Guest, known: Mapping[GuestId, Guest]) -> Guest:
    had = known.get(guest.id)
    if not guest.unreadable or had is None:
        return guest
    return replace(guest, uses=guest.uses | had.uses, paths=guest.paths | had.paths)


def _refuse_clash(mine: Use, theirs: Use, who: str, beneath: str = "") -> None:
    """Raise Refused unless both only read the file, or share it.

    *beneath*: the backing file it is.
    """
    if fits(mine, theirs):
        return
    raise Refused(
        (f"the backing file of {mine.path}: " if beneath else "")
        + f"{who} has {beneath or mine.path} already"
        + (f", as {theirs.path}" if theirs.path != (beneath or mine.path) else ""),
        hint="detach it there first, or attach it as shared, or as read-only, to both",
    )


def _is_worth_a_look(mine: Mount | None, theirs: Mount | None) -> bool:
    """Whether a path on *theirs* is looked at to know whether it leads to a file on *mine*.

    On another share that may hang only a symlink could: QEMU's lock guards that.
    """
    return may_be_same(mine, theirs) or theirs is None or not theirs.may_hang


def _may_have(path: str, table: MountsByPath | None, directory: str) -> bool:
    """Whether something in *directory* may be the file at *path*. No *table*: by the name alone."""
    if path.startswith(f"{directory}/"):
        return True
    return table is not None and _is_worth_a_look(table.covering(path), table.covering(directory))
