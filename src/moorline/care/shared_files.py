"""Files and servers' disks that two guests have, though not both only read or share them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product
from pathlib import Path

from moorline.core.file_clashes import IMAGES_PER_LOOK, nothing_open
from moorline.core.same_file import fits, is_open, may_be_same, same_file
from moorline.errors import Uncertain
from moorline.model import Guest, Use
from moorline.network_disk import at_its_server, is_known
from moorline.ports import FileId, FilesOf, Host, Mount
from moorline.ports.inspection import OpenedBy, OpenFile
from moorline.ports.mount import MountsByPath

_Had = tuple[Guest, Use]


@dataclass(frozen=True, slots=True)
class Holder:
    """A guest that has a file as its disk, or beneath one."""

    guest: Guest
    disk: Use
    file: FileId
    beneath: bool
    """The disk's image is another file, which is read from this one."""

    @property
    def use(self) -> Use:
        """How it has the file itself."""
        return Use(self.file.path, "", readonly=True) if self.beneath else self.disk

    def clashes_with(self, other: Holder) -> bool:
        """Whether they are two disks, and one may write to what the other has.

        What a guest runs with and what it is defined with are one disk. A guest that is stopped,
        with images above its disk, is a template: it is there to be read.
        """
        marks = {self.disk.volume, other.disk.volume} - {""}
        if self.guest.id == other.guest.id and len(marks) < 2:
            return False
        if any(a.beneath and not (b.beneath or b.guest.running) for a, b in _both(self, other)):
            return False
        return not fits(self.use, other.use)


class _Lost:
    """A file that a running guest has open, and none of its paths leads to."""

    def __init__(self, guest: Guest, file: OpenFile) -> None:
        self.file = file
        at = FileId(file.path, 0, file.inode, file.node)
        self.holder = Holder(guest, Use(file.path, "", file.readonly), at, beneath=False)


class SharedFiles:
    """Compares what guests have, file by file: each is asked for its number, once."""

    def __init__(self, host: Host, opened: OpenedBy = nothing_open) -> None:
        self._host = host
        self._opened = opened

    def find(self, guests: Sequence[Guest]) -> Iterator[tuple[Holder, Holder]]:
        """Two that should not have one file together, for each such file.

        A share that hangs is asked for a look's deadline, and what is on it is left out.
        """
        table = MountsByPath(self._host.mounts())
        numbered: defaultdict[tuple[int, int], list[Holder]] = defaultdict(list)
        had = [(guest, use) for guest in guests for use in guest.uses]
        for holder in self._look(had, table, ()):
            for number in _numbers(holder.file):
                numbered[number].append(holder)
        suspects = {
            number: holders
            for number, holders in numbered.items()
            if any(_may_clash(*pair, table) for pair in _pairs(holders))
        }
        yield from self._same(suspects, table)
        yield from self._lost(guests, numbered, table)
        yield from _of_servers(had)

    def _lost(
        self,
        guests: Iterable[Guest],
        numbered: Mapping[tuple[int, int], Sequence[Holder]],
        table: MountsByPath,
    ) -> Iterator[tuple[Holder, Holder]]:
        """What a running guest has open, though none of its paths leads there, and another has."""
        earlier: defaultdict[int, list[_Lost]] = defaultdict(list)
        for guest in guests:
            for file in self._opened(guest, None) if guest.running else ():
                number = (0, file.node) if file.node else (file.inode, 0)
                holders = numbered.get(number, ())
                if any(holder.guest.id == guest.id for holder in holders):
                    continue
                lost = _Lost(guest, file)
                others = [(each, table.covering(each.file.path)) for each in holders]
                others += [(each.holder, each.file.mount) for each in earlier[file.inode]]
                for other, mount in others:
                    clash = lost.holder.clashes_with(other)
                    if clash and is_open(other.file, mount, file):
                        yield lost.holder, other
                        break
                earlier[file.inode].append(lost)

    def _same(
        self, suspects: Mapping[tuple[int, int], Sequence[Holder]], table: MountsByPath
    ) -> Iterator[tuple[Holder, Holder]]:
        """Of each number, the first two that have one file indeed: it may be that of two files."""
        holders = [holder for each in suspects.values() for holder in each]
        inodes = {holder.file.inode for holder in holders}
        again: defaultdict[tuple[int, int], list[Holder]] = defaultdict(list)
        for found in self._look([(each.guest, each.disk) for each in holders], table, inodes):
            for number in _numbers(found.file):
                again[number].append(found)
        for number in suspects:
            for one, other in _pairs(again[number]):
                if one.clashes_with(other) and same_file(one.file, other.file, table):
                    yield one, other
                    break

    def _look(
        self, had: Sequence[_Had], table: MountsByPath, like: Collection[int]
    ) -> Iterator[Holder]:
        """Ask which files all of *had* are. *like*: as of :meth:`moorline.ports.Host.files`."""
        mounts: defaultdict[Mount | None, set[tuple[str, str]]] = defaultdict(set)
        for _, use in had:
            if use.path.startswith("/"):
                mounts[table.covering(use.path)].add((use.path, use.format))
        looks: dict[tuple[str, str], FilesOf] = {}
        for mount, images in mounts.items():
            looks |= self._on(mount, sorted(images), like)
        for guest, use in had:
            look = looks.get((use.path, use.format), ())
            if not isinstance(look, OSError):
                for place, file in enumerate(look):
                    yield Holder(guest, use, file, beneath=place > 0)

    def _on(
        self, mount: Mount | None, images: Sequence[tuple[str, str]], like: Collection[int]
    ) -> dict[tuple[str, str], FilesOf]:
        share = Path(mount.target if mount else "/")
        looks: dict[tuple[str, str], FilesOf] = {}
        try:
            for at in range(0, len(images), IMAGES_PER_LOOK):
                asked = images[at : at + IMAGES_PER_LOOK]
                looks |= zip(asked, self._host.files(share, asked, like), strict=True)
        except (Uncertain, OSError):
            pass  # it is told as a share that hangs
        return looks


def _of_servers(had: Iterable[_Had]) -> Iterator[tuple[Holder, Holder]]:
    """The first two that clash over each server's disk. By its name: no server is asked."""
    by_name: defaultdict[str, list[Holder]] = defaultdict(list)
    for guest, use in had:
        if is_known(use.path):
            file = FileId(use.path, 0, 0)
            by_name[use.path].append(Holder(guest, use, file, beneath=False))
    for name, holders in by_name.items():
        nameless = at_its_server(name)
        pairs = [_pairs(holders)]
        if nameless != name:  # it may be the one that its server gives to who names none
            pairs.append(product(by_name.get(nameless, ()), holders))
        clashes = (pair for pair in chain(*pairs) if pair[0].clashes_with(pair[1]))
        yield from islice(clashes, 1)


def _numbers(file: FileId) -> Iterator[tuple[int, int]]:
    """What it has in common with whatever may be the same, or a part of it."""
    if not file.node:
        yield file.inode, 0
        return
    for node in (file.node, *file.lower):
        yield 0, node


def _may_clash(one: Holder, other: Holder, table: MountsByPath) -> bool:
    """By their numbers alone, which two file systems can both have."""
    near = one.file.device == other.file.device or may_be_same(
        table.covering(one.file.path), table.covering(other.file.path)
    )
    return near and one.clashes_with(other)


def _pairs(holders: Sequence[Holder]) -> Iterator[tuple[Holder, Holder]]:
    """Each who may write, with each."""
    return product([holder for holder in holders if not holder.use.readonly], holders)


def _both(one: Holder, other: Holder) -> tuple[tuple[Holder, Holder], tuple[Holder, Holder]]:
    return (one, other), (other, one)
