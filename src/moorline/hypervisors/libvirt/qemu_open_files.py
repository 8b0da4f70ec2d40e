"""Reads from the process table which files a guest's QEMU has open. No file system is asked.

``fd`` has a file's present name (proc_pid_fd(5)): of a file that was moved another, of one that was
replaced or removed the old one with `` (deleted)`` behind it. ``fdinfo`` names the mount of each
descriptor (proc_pid_fdinfo(5)): a share that is mounted anew has the same path, yet who had a file
of the old mount open keeps that one, and gets an error of it for good.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from moorline.hypervisors.libvirt.mount_propagation import PID_FILES, PROC, covering, mounts_of
from moorline.model import Disk, DiskState, GuestId, VolumeId
from moorline.ports import Mount, Places
from moorline.ports.inspection import NAMELESS, OpenFile

_MEMORY = ("/memfd:", "/SYSV", "/anon_hugepage", "/[aio]")
"""How the kernel calls memory of a process: numbers of such files mean nothing elsewhere."""
_FACTS_BYTES = 512
"""Bytes that hold the first four lines of an ``fdinfo``, which are numbers."""
_FACTS = re.compile(
    rb"pos:\t-?\d+\nflags:\t(?P<flags>[0-7]+)\nmnt_id:\t(?P<mount>-?\d+)\n(?:ino:\t(?P<inode>\d+)\n)?"
)
"""These lines, as the kernel prints them of every file (seq_show in fs/proc/fd.c)."""


class _Named(NamedTuple):
    """A descriptor of a process."""

    path: str
    """As the kernel tells it: of a mount that is no more, the path within that alone."""
    mount: int
    """The number of its mount."""


def _may_be_any(
    process: Path, names: Iterable[tuple[str, str]], paths: Collection[str]
) -> Iterator[_Named]:
    """Of the open files of a process, *names*, those that may be *paths*.

    Files that are closed meanwhile are left out.
    """
    with _directory(process, "fdinfo") as facts:
        for number, path in names:
            if any(may_be_called(path, of) for of in paths):
                with suppress(OSError, ValueError):  # it is closed meanwhile
                    yield _Named(path, int(_facts(facts, number)[1]))


def opened(
    guest: GuestId, name: str, proc: Path = PROC, pid_files: Path = PID_FILES
) -> frozenset[str] | None:
    """The paths that a guest has open, as the kernel names them; None: its process is not seen."""
    with suppress(OSError):
        for process in _processes(name, proc, pid_files):
            if _runs(process, guest):
                return frozenset(path for _, path in _names(process))
    return None


def open_files(
    guest: str,
    numbers: Collection[int] | None = None,
    proc: Path = PROC,
    pid_files: Path = PID_FILES,
) -> Sequence[OpenFile]:
    """See :meth:`moorline.ports.inspection.OpenImages.open_files`. *guest*: its name.

    Linux 5.14 and later tell a file's number without asking its file system.
    """
    try:
        process = process_of(guest, proc, pid_files)
        found = list(descriptors(process, numbers=numbers))
        mounts = (
            {m.id: m for m in (*mounts_of(proc / "self"), *mounts_of(process))} if found else {}
        )
    except (OSError, ValueError):
        return ()
    return [
        OpenFile(file.path, file.inode, file.node, file.readonly, mounts.get(file.mount))
        for file in found
    ]


def process_of(guest: str, proc: Path = PROC, pid_files: Path = PID_FILES) -> Path:
    """The process that libvirt's system daemon says is a guest's. Raises OSError, ValueError."""
    with open(f"{pid_files}/{guest}.pid", "rb", buffering=0) as file:  # noqa: PTH123 - read often
        return proc / str(int(file.read()))


def descriptors(
    process: Path, called: str = "", numbers: Collection[int] | None = None
) -> Iterator[Descriptor]:
    """The files and block devices that a process has open, or one of its names alone.

    *numbers*: of these inodes and block devices alone. Raises OSError (it has ended, say).
    """
    with _directory(process, "fd") as files, _directory(process, "fdinfo") as facts:
        for number, path in _names_in(files):
            if called not in ("", path) or path.startswith(_MEMORY):
                continue
            file = _opened(files, facts, number, path)
            if file and (numbers is None or (file.node or file.inode) in numbers):
                yield file


class Descriptor(NamedTuple):
    """As :class:`OpenFile`, with its own number and that of its mount."""

    number: str
    path: str
    inode: int
    node: int
    readonly: bool
    mount: int


def _opened(files: int, facts: int, number: str, path: str) -> Descriptor | None:
    """The file or block device of a descriptor; None: another device, or it is closed meanwhile.

    *files*, *facts*: the directories ``fd`` and ``fdinfo`` of its process.
    """
    node = 0
    try:
        if path.startswith("/dev/"):
            st = os.stat(number, dir_fd=files)
            node = st.st_rdev if stat.S_ISBLK(st.st_mode) else 0
            if stat.S_ISCHR(st.st_mode):
                return None
        flags, mount, inode = _facts(facts, number)
        if inode is None:
            return None
        readonly = int(flags, 8) & os.O_ACCMODE == os.O_RDONLY
        return Descriptor(number, path, int(inode), node, readonly, int(mount))
    except (OSError, ValueError):
        return None


def _facts(directory: int, number: str) -> tuple[bytes, bytes, bytes | None]:
    """What ``fdinfo`` tells of a descriptor: flags, mount, inode (None: not told).

    Raises OSError, ValueError.
    """
    file = os.open(number, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = _FACTS.match(os.read(file, _FACTS_BYTES))
    finally:
        os.close(file)
    if found is None:
        raise ValueError(f"the facts of descriptor {number} cannot be read")
    return found["flags"], found["mount"], found["inode"]


@contextmanager
def _directory(process: Path, name: str) -> Iterator[int]:
    """A directory of a process, opened once for all that is read there. Raises OSError.

    The kernel looks up the process by each path that leads through it, and there are very many.
    """
    directory = os.open(f"{process}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)


def _processes(name: str, proc: Path, pid_files: Path) -> Iterator[Path]:
    """The process that libvirt's system daemon says is a guest's, then all of them.

    On a host with many guests this saves reading all processes for each guest.
    """
    with suppress(OSError, ValueError):
        yield process_of(name, proc, pid_files)
    yield from (each for each in proc.iterdir() if each.name.isdigit())


def _runs(process: Path, guest: GuestId) -> bool:
    """libvirt starts QEMU with ``-uuid`` and the guest's."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False  # it has ended
    return (b"-uuid", guest.encode()) in pairwise(words)


def _names(process: Path) -> Sequence[tuple[str, str]]:
    """As :func:`_names_in`. Raises OSError."""
    with _directory(process, "fd") as directory:
        return _names_in(directory)


def _names_in(directory: int) -> Sequence[tuple[str, str]]:
    """Each descriptor of a file or device in ``fd``, by its number, and its path.

    Raises OSError.
    """
    found = []
    for number in os.listdir(directory):  # names alone, and no stat
        try:
            path = os.readlink(number, dir_fd=directory)
        except FileNotFoundError:
            continue  # it is closed meanwhile
        if path.startswith("/"):
            found.append((number, path))
    return found


class AsChecked(NamedTuple):
    """A disk's file that QEMU was just seen to have open, by its name, as it was checked."""

    path: str


class OpenDisks(Mapping[VolumeId, Disk]):
    """The disks of a running guest, those told of which it has open what is not there now.

    That is a file of a mount that is no more, or one that was replaced, moved or deleted, as far
    as the kernel knows: on a share it learns that when somebody looks. Its process is looked at
    when the first of them is asked for, once: most looks at a guest are about another disk. None
    is told if it cannot be known: not root, or not libvirt's system daemon.

    *places*: as :meth:`moorline.ports.Host.places`; asked where a directory of a disk that is
    not open by its name may be a symbolic link, or a copy of a mount. *sure*: the disk, if any,
    that was just seen to be open as it should be: it is not looked for again.
    """

    def __init__(
        self,
        guest: str,
        disks: Mapping[VolumeId, Disk],
        places: Places,
        sure: AsChecked | None = None,
        proc: Path = PROC,
        pid_files: Path = PID_FILES,
    ) -> None:
        self._guest = guest
        self._disks = disks
        self._places = places
        self._sure = sure
        self._proc = proc
        self._pid_files = pid_files
        self._found: tuple[frozenset[str], frozenset[str]] | None = None

    def __getitem__(self, volume: VolumeId) -> Disk:
        disk = self._disks[volume]
        if self._sure is not None and disk.source == self._sure.path:
            return disk
        lost, deleted = self._lost()
        if disk.source in lost:
            return replace(disk, stale=self._why(disk))
        # Of what lies beneath it the guest has not written, but nobody else can read that either.
        chain = (disk.source, *(disk.beneath or ()))
        gone = next((path for path in chain if path in deleted), "")
        return replace(disk, replaced=unlike(self._guest, gone)) if gone else disk

    def __iter__(self) -> Iterator[VolumeId]:
        return iter(self._disks)

    def __len__(self) -> int:
        return len(self._disks)

    def __contains__(self, volume: object) -> bool:
        return volume in self._disks

    def _lost(self) -> tuple[frozenset[str], frozenset[str]]:
        """The paths whose files it has open on a mount that is no more; and without a name.

        It is looked for once.
        """
        if self._found is None:
            self._found = self._look()
        return self._found

    def _look(self) -> tuple[frozenset[str], frozenset[str]]:
        disks = self._disks.values()
        # Of half a disk it is not told which half has it: the definition's is open nowhere.
        whole = [disk for disk in disks if disk.state is DiskState.WHOLE]
        live = {path for disk in whole for path in (disk.source, *(disk.beneath or ()))}
        sources = live | {disk.source for disk in disks}
        paths = {each for each in sources if each.startswith("/") and not each.startswith("/dev/")}
        nothing: tuple[frozenset[str], frozenset[str]] = frozenset(), frozenset()
        if not paths:
            return nothing
        try:
            process = process_of(self._guest, self._proc, self._pid_files)
            theirs, ours = mounts_of(process), mounts_of(self._proc / "self")
            names = _names(process)
        except (OSError, ValueError):
            return nothing
        files = list(_may_be_any(process, names, paths))
        everything = {path for _, path in names}
        stale = frozenset(path for path in paths if _is_stale(path, files, theirs, ours))
        unnamed = {
            path
            for path in paths - everything - stale
            if path in live or path + NAMELESS in everything
        }
        return stale, frozenset(
            path for path in unnamed if not self._is_open(path, everything, ours)
        )

    def _is_open(self, path: str, names: Collection[str], ours: Sequence[Mount]) -> bool:
        """Whether it has *path* open by another name of its directory, as far as is known."""
        if path + NAMELESS in names:
            return False
        directory, _, name = path.rpartition("/")
        places = self._places([directory or "/"])[directory or "/"]
        if places is None:
            return True
        files = (f"{at.rstrip('/')}/{name}" for at in places)
        return any(file in names and is_its_place(path, file, ours) for file in files)

    def _why(self, disk: Disk) -> str:
        return (
            f"{self._guest} has {disk.device} open on a mount of {disk.source} that is no more, or"
            " that another one covers: take that away, or detach the disk and attach it again, or"
            f" restart {self._guest}"
        )


def is_its_place(path: str, at: str, mounts: Sequence[Mount]) -> bool:
    """Whether *path* may lead to *at*: by a symbolic link above a mount point, which root made.

    Who writes beneath one can turn a directory into a link, and let the path lead elsewhere.
    """
    mount = covering(mounts, at).target.rstrip("/")
    name = mount.rpartition("/")[2]
    return path.endswith(f"/{name}{at.removeprefix(mount)}") if mount else path == at


def unlike(guest: str, path: str, *, gone: bool = False) -> str:
    """Say that a guest has another file open than the one at *path*. *gone*: none is there."""
    return (
        f"{guest} has another file open than the one that is"
        f"{' not there any more' if gone else ''} at {path}: it was moved, replaced"
        " or deleted while the guest ran"
    )


def _is_stale(
    path: str, files: Iterable[_Named], theirs: Sequence[Mount], ours: Sequence[Mount]
) -> bool:
    mounts = {mount.id: mount for mount in (*ours, *theirs)}
    here = _led_to(path, covering(ours, path))
    found = [_led_to(path, mounts.get(file.mount)) for file in files if _may_be(path, file, mounts)]
    # If libvirt handed descriptors to QEMU, it has none of these open: then it is not known.
    return bool(found) and here not in found


def _led_to(path: str, mount: Mount | None) -> tuple[str, str]:
    """The device and the path within its file system that *path* is on *mount*; None: it is gone.

    Another mount of the same file system may cover it, such as a bind mount.
    """
    if mount is None:
        return "", ""
    within = path.removeprefix(mount.target.rstrip("/"))
    return mount.device, mount.root.rstrip("/") + within


def _may_be(path: str, file: _Named, mounts: Collection[int]) -> bool:
    """Whether an open file is *path*, or was *path* on a mount that is gone."""
    return file.path == path if file.mount in mounts else may_be_called(file.path, path)


def may_be_called(name: str, path: str) -> bool:
    """Whether *path* may have that name: on a mount that is gone the end alone is compared."""
    return path.endswith(name.removesuffix(NAMELESS))
