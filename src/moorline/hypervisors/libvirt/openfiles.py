"""What a running guest's QEMU has open, as the process table tells it: no file system is asked.

``fd`` has a file's present name (proc_pid_fd(5)): of a file that was moved another, of one that was
replaced or removed the old one with `` (deleted)`` behind it. ``fdinfo`` names the mount of each
descriptor (proc_pid_fdinfo(5)): a share that is mounted anew has the same path, yet who had a file
of the old mount open keeps that one, and gets an error of it for good.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from moorline.hypervisors.libvirt.propagation import PID_FILES, PROC, Table, covering, table
from moorline.model import Disk, GuestId, VolumeId


class OpenFile(NamedTuple):
    """A descriptor of a process."""

    path: str
    """As the kernel tells it: of a mount that is no more, the path within that alone."""
    mount: int
    """The number of its mount."""


def open_files(process: Path) -> Iterator[OpenFile]:
    """The files and devices that a process has open. Raises OSError (it has ended, or is not ours).

    What is closed meanwhile is left out.
    """
    for number, path in _names(process):
        with suppress(OSError, ValueError, StopIteration):  # it is closed meanwhile
            lines = (process / "fdinfo" / number).read_text().splitlines()
            told = next(line for line in lines if line.startswith("mnt_id:"))
            yield OpenFile(path, int(told.removeprefix("mnt_id:")))


def opened(guest: GuestId, proc: Path = PROC) -> frozenset[str] | None:
    """The paths that a guest has open, as the kernel names them; None: its process is not seen."""
    with suppress(OSError):
        for process in proc.iterdir():
            if process.name.isdigit() and _runs(process, guest):
                return frozenset(path for _, path in _names(process))
    return None


def _runs(process: Path, guest: GuestId) -> bool:
    """libvirt starts QEMU with ``-uuid`` and the guest's."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False  # it has ended
    return (b"-uuid", guest.encode()) in pairwise(words)


def _names(process: Path) -> Iterator[tuple[str, str]]:
    """Each descriptor of a file or device, by its number, and its path. Raises OSError."""
    for number in os.listdir(process / "fd"):  # noqa: PTH208 - names alone, and no stat
        with suppress(FileNotFoundError):  # it is closed meanwhile
            if (path := str((process / "fd" / number).readlink())).startswith("/"):
                yield number, path


def with_stale(
    guest: str,
    disks: Mapping[VolumeId, Disk],
    proc: Path = PROC,
    pid_files: Path = PID_FILES,
) -> Mapping[VolumeId, Disk]:
    """The disks of a running guest, those told that it has open on a mount that is not there now.

    None is told if it cannot be known: not root, or not libvirt's system daemon.
    """
    paths = {disk.source for disk in disks.values()}
    if not any(path.startswith("/") and not path.startswith("/dev/") for path in paths):
        return disks
    try:
        process = proc / str(int((pid_files / f"{guest}.pid").read_text()))
        theirs, ours = table(process), table(proc / "self")
        files = list(open_files(process))
    except (OSError, ValueError):
        return disks
    lost = {path for path in paths if _is_stale(path, files, theirs, ours)}
    return {
        volume: replace(disk, stale=_why(guest, disk)) if disk.source in lost else disk
        for volume, disk in disks.items()
    }


def _why(guest: str, disk: Disk) -> str:
    return (
        f"{guest} has {disk.device} open on a mount of {disk.source} that is no more:"
        f" detach it and attach it again, or restart {guest}"
    )


def _is_stale(path: str, files: Iterable[OpenFile], theirs: Table, ours: Table) -> bool:
    devices = {**ours.devices, **theirs.devices}
    here = covering(ours, path).device
    found = [devices.get(file.mount) for file in files if _may_be(path, file, devices)]
    # QEMU has none open where libvirt handed it a descriptor: then nothing is told.
    return bool(found) and here not in found


def _may_be(path: str, file: OpenFile, devices: Mapping[int, str]) -> bool:
    """Whether an open file is *path*, or was that on a mount that is no more."""
    if file.mount in devices:
        return file.path == path
    return path.endswith(file.path.removesuffix(" (deleted)"))
