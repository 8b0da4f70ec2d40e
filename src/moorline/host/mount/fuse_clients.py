"""Finds the processes that serve a FUSE mount: without one it can never answer again.

The kernel ends a connection when the last descriptor of it is closed, and answers ENOTCONN from
then on, for good; a client that lives may give the same answer while its server is away. Of a
connection that has ended the control file system shows a limit that nobody can set
(``fuse_abort_conn`` in fs/fuse/dev.c of the Linux source). Since Linux 6.16 ``fdinfo`` of
``/dev/fuse`` names the connection (``fuse_connection``, the minor number of the mount's device).
Before that a client is known by its arguments: they name its mount point.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from moorline.host.mount.users import PROC, called, processes
from moorline.ports import Mount

CONNECTIONS = Path("/sys/fs/fuse/connections")
_DEVICE = "fuse"
_UNLIMITED = (1 << 32) - 1
_CONNECTION = "fuse_connection:"
_LOCKED = re.compile(r"lock:\t\d+: FLOCK +ADVISORY +WRITE .*")
"""An exclusive lock of flock(2) in ``fdinfo`` (proc_pid_fdinfo(5))."""
_INITIAL = "pid:[4026531836]"
"""The process namespace in which every process of the machine is seen (PROC_PID_INIT_INO)."""


def is_fuse(mount: Mount) -> bool:
    """Whether a mount is served by a process."""
    return mount.fstype == "fuse" or mount.fstype.startswith("fuse.")


def clients(mount: Mount, mounts: Sequence[Mount], proc: Path = PROC) -> list[str] | None:
    """Name the processes that serve *mount*, as ``name (pid)``; [] if they are seen to be gone.

    None: it cannot be told: this is no FUSE mount; or a process serves a mount that cannot be told;
    or one that cannot be looked at may. That its connection has ended is no proof: who was cut off
    may write on. *mounts*: the mount table. No file system is asked.
    """
    if not is_fuse(mount):
        return None
    found, doubt = [], not _sees_clients(mount, proc)
    others = {other.target for other in mounts if is_fuse(other) and other.target != mount.target}
    for process in processes(proc):
        try:
            serves = _serves(process, mount, others)
        except PermissionError:
            doubt = True
            continue
        doubt |= serves is None
        if serves:
            found.append(called(process))
    return found or (None if doubt else [])


def servers(mount: Mount, mounts: Sequence[Mount], proc: Path = PROC) -> list[Path]:
    """The directories of the processes that are known to serve *mount*; as of :func:`clients`."""
    others = {other.target for other in mounts if is_fuse(other) and other.target != mount.target}
    found = []
    for process in processes(proc):
        with suppress(PermissionError):
            if _serves(process, mount, others):
                found.append(process)
    return found


def serves_alone(process: Path, mount: Mount, mounts: Sequence[Mount]) -> bool:
    """Whether a process that serves *mount* is known to serve no other.

    Where the kernel does not show its connections, one that has several may have as many mounts.
    """
    others = {other.target for other in mounts if is_fuse(other) and other.target != mount.target}
    try:
        files = list(connected(process))
    except OSError:
        return False
    if None in files and len(files) > 1:
        return False
    number = mount.device.partition(":")[2]
    return set(files) <= {number, None} and not names_one(arguments(process), others)


def has_ended(mount: Mount, connections: Path = CONNECTIONS) -> bool:
    """Whether the kernel tells that the connection of a FUSE mount has ended."""
    connection = connections / mount.device.partition(":")[2]
    try:
        return is_fuse(mount) and int((connection / "max_background").read_text()) == _UNLIMITED
    except (OSError, ValueError):
        return False


def process_namespace(proc: Path = PROC) -> str:
    """Ours, as the kernel names it. Raises OSError."""
    return str((proc / "self/ns/pid").readlink())


def _sees_clients(mount: Mount, proc: Path) -> bool:
    """Whether a client of *mount* that lives is among the processes that we see.

    In a namespace of its own (a container) that is known of those alone that a mount command left
    which was run there: its locked file beside the mount point tells where that was.
    """
    try:
        if not (proc / "1").exists():  # others' are not shown to us (hidepid of proc(5))
            return False
        ours = process_namespace(proc)
        return ours == _INITIAL or Path(f"{mount.target}.lock").read_text() == ours
    except (OSError, ValueError):
        return False


def _serves(process: Path, mount: Mount, others: set[str]) -> bool | None:
    """Whether a process serves *mount*; None: it serves one that cannot be told.

    Raises PermissionError: it cannot be looked at.
    """
    try:
        files = list(connected(process))
    except PermissionError:
        raise
    except OSError:
        return False  # it has ended
    if not files:
        return _keeps(process, Path(f"{mount.target}.lock"))
    if None in files and _is_former(process, mount):
        return False
    words = arguments(process) if None in files else []
    return _any_of([_is(file, words, mount, others) for file in files])


def _keeps(process: Path, hold: Path) -> bool:
    """Whether a process has inherited *hold*, locked, as a mount command left it.

    A client that was cut off may close its end, and write on what it had taken. Who only looks
    whether *hold* is locked locks it shared.
    """
    with suppress(OSError):  # it has ended, or is not to be looked at: it was a moment ago
        for each in (process / "fd").iterdir():
            with suppress(FileNotFoundError):  # it is closed meanwhile
                if each.readlink() == hold:
                    told = (process / "fdinfo" / each.name).read_text()
                    return any(_LOCKED.fullmatch(line) for line in told.splitlines())
    return False


def _is_former(process: Path, mount: Mount) -> bool:
    """Whether a process is the client of a mount that was there before, and lives on elsewhere.

    Then the file beside the mount point that its command had locked has been removed.
    """
    with suppress(OSError):
        for each in (process / "fd").iterdir():
            with suppress(FileNotFoundError):  # it is closed meanwhile
                name = str(each.readlink())
                if name.startswith(f"{mount.target}.") and name.endswith(" (deleted)"):
                    return True
    return False


def _is(
    connection: str | None, words: Sequence[str], mount: Mount, others: set[str]
) -> bool | None:
    if connection is not None:
        return connection == mount.device.partition(":")[2]
    if names_one(words, {mount.target}):
        return True
    return False if names_one(words, others) else None


def _any_of(answers: Sequence[bool | None]) -> bool | None:
    return True if True in answers else (None if None in answers else False)


def connected(process: Path) -> Iterator[str | None]:
    """The FUSE connections that a process serves; None for one whose number is not told.

    Raises OSError: PermissionError, or the process has ended. Of one that was killed while a
    thread of it waits for a disk or a network, the first thread has ended and shows no files.
    """
    numbers = os.listdir(process / "fd")  # noqa: PTH208
    yield from _connected(process, numbers)
    if not numbers:
        with suppress(FileNotFoundError, ProcessLookupError):  # it ends meanwhile
            for thread in (process / "task").iterdir():
                yield from _connected(thread, os.listdir(thread / "fd"))  # noqa: PTH208


def _connected(process: Path, numbers: Sequence[str]) -> Iterator[str | None]:
    for number in numbers:
        with suppress(FileNotFoundError):  # it is closed meanwhile
            if (process / "fd" / number).readlink().name == _DEVICE:
                told = (process / "fdinfo" / number).read_text()
                lines = (line for line in told.splitlines() if line.startswith(_CONNECTION))
                yield next((line.removeprefix(_CONNECTION).strip() for line in lines), None)


def arguments(process: Path) -> Sequence[str]:
    """The command line of a process; empty if it cannot be read."""
    with suppress(OSError):
        return (process / "cmdline").read_text(errors="surrogateescape").split("\0")
    return []


def names_one(words: Sequence[str], targets: Collection[str]) -> bool:
    """Whether an argument is one of *targets*, alone or as an option's value."""
    return any(word in targets or word.partition("=")[2] in targets for word in words)
