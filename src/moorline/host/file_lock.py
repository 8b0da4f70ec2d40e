"""Locks on files and devices that are the same for every process of this host.

An owner's state directory is locked against other owners of that directory only
(:mod:`moorline.host.state_lock`). Several may be in use on one host, so who gives a file to a
guest locks the file here first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from moorline.deadline import Deadline
from moorline.errors import Busy, Denied, Unavailable
from moorline.host.mount.users import PROC, called, processes
from moorline.model import GuestId
from moorline.ports import FileId

_FLOCK = "hhqqi4x"
_OFFSET = (1 << 62) - 1
_DEVICES = 1 << 62
"""Where the bytes of block devices begin."""
_POLL_SECONDS = 0.02


class FileLock:
    """Implements :class:`moorline.ports.FileLocks`, for one thread at a time.

    A file has one inode number whatever its name, and on each mount of a share: that byte of
    our file is locked. Two files of one number wait for each other in vain, which is seldom.
    An open file description lock (fcntl(2)) is the thread's own, is not inherited by what we
    start, and is dropped by the kernel when its holder dies. What he was about is noted beside.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """*directory*: made if need be. None: this user's, for all of a host."""
        self._directory = directory or run_directory()
        self._path = self._directory / "files.lock"
        self._fd = -1
        self._held: dict[int, bool] = {}
        """Whether it is written to, by its byte."""
        self._noted: list[Path] = []

    def take(self, files: Mapping[FileId, bool], patience: float) -> None:
        """See :meth:`moorline.ports.FileLocks.take`."""
        self._fd = self._open()
        paths: dict[int, str] = {}
        for id, writes in files.items():
            self._held[_byte(id)] = writes or self._held.get(_byte(id), False)
            paths.setdefault(_byte(id), id.path)
        deadline = Deadline(patience)
        for byte, writes in sorted(self._held.items()):  # all in one order: no two deadlock
            while not self._try(byte, fcntl.F_WRLCK if writes else fcntl.F_RDLCK):
                if deadline.over():
                    raise Busy(
                        f"{self._holder(byte)} is giving {paths[byte]} to a guest, or removing it",
                        hint="try again when it is done",
                    )
                deadline.sleep(_POLL_SECONDS)

    def take_left(self, guest: GuestId) -> bool:
        """See :meth:`moorline.ports.FileLocks.take_left`."""
        try:
            notes = [note.name.split("-", 2) for note in self._directory.iterdir()]
        except FileNotFoundError:
            return False
        except OSError as e:
            raise Unavailable(f"{self._directory} cannot be listed: {e.strerror}") from e
        found = {int(note[0]) for note in notes if note[2:] == [quote(guest, safe="")]}
        if found:
            self._fd = self._open()
            self._held = {byte: True for byte in found if self._try(byte, fcntl.F_WRLCK)}
        return bool(self._held)  # those that cannot be locked somebody is at now

    def left(self) -> Mapping[GuestId, float]:
        """See :meth:`moorline.ports.FileLocks.left`."""
        now = time.time()
        ages: dict[GuestId, float] = {}
        try:
            for note, guest in self._notes():
                age = max(0.0, now - note.stat().st_mtime)
                ages[guest] = min(age, ages.get(guest, age))
            return dict(sorted(ages.items()))
        except OSError as e:
            raise Unavailable(f"{self._directory} cannot be listed: {e.strerror}") from e

    def begin(self, guest: GuestId) -> None:
        """See :meth:`moorline.ports.FileLocks.begin`."""
        for byte, writes in self._held.items():
            note = self._directory / f"{byte}-{'w' if writes else 'r'}-{quote(guest, safe='')}"
            self._noted.append(note)
            try:
                note.touch(0o600)
            except OSError as e:
                raise Unavailable(f"{note} cannot be made: {e.strerror}") from e

    def end(self) -> None:
        """See :meth:`moorline.ports.FileLocks.end`."""
        with suppress(OSError):  # what stays has the next one ask a guest in vain
            for note in [*self._noted, *(note for note, _ in self._notes())]:
                note.unlink(missing_ok=True)

    def release(self) -> None:
        """See :meth:`moorline.ports.FileLocks.release`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _notes(self) -> Iterator[tuple[Path, GuestId]]:
        """The notes of those whom we would not go on beside, so they are gone; their guests."""
        for note in self._directory.iterdir():
            byte, dash, rest = note.name.partition("-")
            writes = self._held.get(int(byte)) if dash and byte.isdigit() else None
            if writes or (writes is False and rest.startswith("w-")):
                yield note, GuestId(unquote(rest[2:]))

    def _open(self) -> int:
        try:
            make_own(self._directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            return os.open(self._path, flags, 0o600)
        except OSError as e:
            raise Unavailable(
                f"{self._path} cannot be opened, so it cannot be told whether another process"
                f" gives the file to a guest just now: {e.strerror}",
                hint=f"let {self._directory} be writable, and the same for all who attach here",
            ) from e

    def _try(self, byte: int, how: int) -> bool:
        lock = struct.pack(_FLOCK, how, os.SEEK_SET, byte, 1, 0)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, lock)
        except OSError as e:
            if e.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise Unavailable(f"{self._path} cannot be locked: {e.strerror}") from e
        return True

    def _holder(self, byte: int) -> str:
        """Who has *byte* locked, as far as we may see: F_OFD_GETLK does not tell."""
        for process in processes(PROC):
            with suppress(OSError):  # it ended, or is not ours to look at
                for fd in (process / "fd").iterdir():
                    if _locks(process, fd, self._path, byte):
                        return called(process)
        return "another process"


def _byte(id: FileId) -> int:
    return _DEVICES | (id.node & _OFFSET) if id.node else id.inode & _OFFSET


def _locks(process: Path, fd: Path, path: Path, byte: int) -> bool:
    if fd.readlink() != path:
        return False
    lines = (process / "fdinfo" / fd.name).read_text().splitlines()
    fields = [line.split() for line in lines if line.startswith("lock:")]
    return any(int(words[-2]) <= byte <= int(words[-1]) for words in fields if words[-1] != "EOF")


def make_own(directory: Path) -> None:
    """Make *directory* if it is not there. Raises Denied (it is another user's), OSError."""
    with suppress(FileExistsError):
        directory.mkdir(mode=0o755)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or os.geteuid() not in (0, found.st_uid):
        raise Denied(f"{directory} is no directory of ours", hint="see whose it is")


def run_directory() -> Path:
    """One for all processes of a user, whatever their environment, and in no directory of
    systemd's that a service can have for itself (PrivateTmp=).
    """
    user = os.geteuid()
    return Path(f"/dev/shm/moorline-{user}" if user else "/run/moorline")  # noqa: S108
