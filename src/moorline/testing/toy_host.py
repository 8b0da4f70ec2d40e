"""A host in memory, to try back ends that mount without root and without mounting.

Directories and files are real, so give it a temporary directory; mounts, and
the commands that make them, are not.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moorline.errors import Busy, Failed, Refused, Uncertain
from moorline.model import Format
from moorline.ports import (
    Call,
    CheckedFile,
    CheckedImage,
    Command,
    FileId,
    FilesOf,
    Images,
    IsIts,
    Mount,
    OpenAs,
    Output,
    Root,
)

Program = Callable[["ToyHost", Command], Output | None]
"""What a command does. Raises what :meth:`moorline.ports.Host.run` raises."""


@dataclass
class ToyShare:
    """How the root of a toy mount looks."""

    size: int = 0
    error: int = 0
    """The errno that a look at it meets."""
    hangs: bool = False
    clients: Sequence[str] | None = ()
    """Who is seen to serve it, which matters once a look meets an error."""
    ended: bool = False
    """Whether the kernel tells that its connection has ended; its client may live."""
    files: frozenset[str] = frozenset()
    """What :meth:`ToyHost.image` accepts."""


@dataclass
class ToyHost:
    """Implements :class:`moorline.ports.Host`. *programs* by their name."""

    programs: dict[str, Program] = field(default_factory=dict)
    table: list[Mount] = field(default_factory=list)
    shares: dict[int, ToyShare] = field(default_factory=dict)
    """By the id of the mount."""
    holds: set[Path] = field(default_factory=set)
    """Held by commands that still run."""
    serving: set[Path] = field(default_factory=set)
    """Of *holds*, those that only clients hold which serve their mounts elsewhere."""
    namespaces: list[str] = field(default_factory=list)
    """Processes that see our mounts in other mount namespaces."""
    ran: list[Command] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    answers: Callable[[Call], Mapping[str, Any]] = lambda call: {}
    """What calls come to. Raises what :meth:`moorline.ports.Host.call` raises."""

    def __post_init__(self) -> None:
        self.programs.setdefault("umount", umount)

    def mount(self, source: str, target: str, fstype: str, share: ToyShare) -> None:
        """Add a mount, on top of what is there."""
        number = max((mount.id for mount in self.table), default=0) + 1
        self.table.append(Mount(number, source, target, fstype, f"0:{number}", True))
        self.shares[number] = share

    def unmount(self, target: str) -> None:
        """Remove the topmost mount at *target*. Raises Failed."""
        mount = self._at(target)
        if mount is None:
            raise Failed(f"{target}: not mounted")
        self.table.remove(mount)

    def share(self, target: str) -> ToyShare:
        """The topmost mount's share at *target*."""
        mount = self._at(target)
        assert mount, f"nothing is mounted at {target}"
        return self.shares[mount.id]

    def run(self, command: Command) -> Output:
        self.ran.append(command)
        if command.hold in self.serving and not command.hold.exists():
            self.serving.remove(command.hold)  # what they hold is a file without a name
            self.holds.remove(command.hold)
        if command.hold in self.holds:
            raise Busy(f"a command that holds {command.hold} still runs")
        if command.hold:
            command.hold.touch()
        program = self.programs.get(command.argv[0])
        if program is None:
            raise Failed(f"there is no command {command.argv[0]}")
        return program(self, command) or Output("", "")

    def held(self, hold: Path) -> bool:
        return hold in self.holds

    def only_serves(self, hold: Path, at: Path, is_its: IsIts) -> bool:
        return hold in self.serving

    def elsewhere(self, at: Path) -> Sequence[str]:
        return self.namespaces

    def call(self, call: Call) -> Mapping[str, Any]:
        return self.answers(call)

    def mounts(self) -> Sequence[Mount]:
        return list(self.table)

    def clients(self, mount: Mount) -> Sequence[str] | None:
        return self.shares[mount.id].clients

    def has_ended(self, mount: Mount) -> bool:
        return self.shares[mount.id].ended

    def root(self, path: Path, *, list: bool = False) -> Root:
        mount = self._at(str(path))
        if mount is None:
            found = os.stat(path)  # noqa: PTH116 - its size is that of a directory
            empty = not any(path.iterdir()) if list else None
            return Root(found.st_size, found.st_dev, empty, Path(os.path.realpath(path)))
        share = self.shares[mount.id]
        if share.hangs:
            raise Uncertain(f"{path} does not answer")
        if share.error:
            raise OSError(share.error, os.strerror(share.error), str(path))
        return Root(share.size, os.makedev(0, mount.id), None, path)

    def places(self, paths: Iterable[str]) -> Mapping[str, frozenset[str] | None]:
        return {path: frozenset({os.path.realpath(path)}) for path in paths}

    def files(
        self,
        share: Path,
        images: Images,
        like: Collection[int] | None = None,
        *,
        first: bool = False,
    ) -> Sequence[FilesOf]:
        if (mount := self._at(str(share))) is not None and self.shares[mount.id].hangs:
            raise Uncertain(f"{share} does not answer")
        return [self._file(Path(path)) for path, _ in images]

    def _file(self, path: Path) -> FilesOf:
        """One that lies on no toy mount is real."""
        mount = self._at(str(path.parent))
        if mount is None:
            try:
                found = path.stat()
            except OSError as e:
                return e
            return [FileId(os.path.realpath(path), found.st_dev, found.st_ino)]
        names = sorted(self.shares[mount.id].files)
        if path.name not in names:
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        inode = names.index(path.name) + 2
        return [FileId(str(path), os.makedev(0, mount.id), inode)]

    def users_of(self, path: Path) -> Sequence[str]:
        return self.users

    def image(self, share: Path, name: str, format: Format) -> CheckedImage:
        mount = self._at(str(share))
        state = self.shares[mount.id] if mount else ToyShare(error=errno.ENOENT)
        if state.hangs:
            raise Uncertain(f"{share} does not answer")
        if name not in state.files:
            raise Refused(f"there is no file {name} in {share}")
        id = mount.id if mount else 0
        inode = sorted(state.files).index(name) + 2
        file = CheckedFile(share / name, format, id, os.makedev(0, id), inode, names=1)
        return CheckedImage(self.root(share), [file])

    def readable(self, path: Path, user: int, group: int) -> bool:
        return self.size(path) >= 0  # files have no owners here

    def openable(self, path: Path, use: OpenAs) -> None:
        self.size(path)  # nobody locks anything here

    def size(self, path: Path, format: str = "raw") -> int:
        mount = self._at(str(path.parent))
        if mount is None or path.name not in self.shares[mount.id].files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self.shares[mount.id].size

    def change(self, target: str, *, source: str, fstype: str) -> None:
        """Change what the mount table says of *target*."""
        mount = self._at(target)
        assert mount, f"nothing is mounted at {target}"
        self.table[self.table.index(mount)] = replace(mount, source=source, fstype=fstype)

    def _at(self, target: str) -> Mount | None:
        return next((mount for mount in reversed(self.table) if mount.target == target), None)


def umount(host: ToyHost, command: Command) -> None:
    """The usual ``umount``: fails while somebody uses the mount."""
    if host.users:
        raise Failed("umount exited 32: target is busy")
    host.unmount(command.argv[-1])
