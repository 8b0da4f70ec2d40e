"""Finds where a mount lives on after it was taken away: other namespaces, bind mounts.

A mount namespace that was made while a share was mounted (a container with the host's files bound
in) keeps the mount when it is taken away here, unless it was made to follow (mount_namespaces(7)).
Its client runs on, with all that it inherited. All is read from the process table; no file system
is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from moorline.host.mount import table
from moorline.host.mount.fuse_clients import arguments, connected, is_fuse, names_one
from moorline.host.mount.users import MAX_NAMES, PROC, called, processes
from moorline.ports import IsIts, Mount


class _Namespace(NamedTuple):
    process: Path
    """A process that is in it."""
    mounts: Sequence[Mount]


def seen_at(at: Path, proc: Path = PROC) -> list[str]:
    """For each other mount namespace with a mount like that at *at*, a process: ``name (pid)``.

    There the mount point may lie in another directory, so only its name is compared. A copy of
    another mount that is here, in another directory, with the same name does not count.
    """
    ours = [m for m in table.read(proc / "self/mountinfo") if m.target != str(at)]
    copies = _named(at.name, ours)
    found = (
        called(other.process) for other in _others(proc) if _named(at.name, other.mounts) - copies
    )
    return [name for name, _ in zip(found, range(MAX_NAMES), strict=False)]


def only_serves(hold: Path, at: Path, is_its: IsIts, proc: Path = PROC) -> bool:
    """Whether all that have *hold* open serve mounts that are made, and none of those is at *at*.

    Such a process will not mount at *at* any more. False if that cannot be told. *is_its*:
    whether a mount may be the one, where the kernel does not tell whose it is: then it is one of
    those that no other process names.
    """
    try:
        holders = [each for each in processes(proc) if str(hold) in _open(each)]
        others = list(_others(proc))
        # Ours is read last: what is mounted meanwhile at *at* is copied to other namespaces.
        ours = table.read(proc / "self/mountinfo")
        mounts = [mount for other in others for mount in other.mounts]
        unclaimed = _Unclaimed([*mounts, *ours], holders, is_its, proc)
        served = [_served(holder, [*mounts, *ours], unclaimed) for holder in holders]
    except OSError:
        return False
    here = {mount.device for mount in ours if mount.target == str(at)}
    return bool(served) and all(devices and not devices & here for devices in served)


def _named(name: str, mounts: Sequence[Mount]) -> set[str]:
    """The devices of those *mounts* whose mount point is called *name*."""
    end = f"/{name}"  # the text alone: a host with many containers has very many mounts
    return {mount.device for mount in mounts if mount.target.endswith(end)}


class _Unclaimed:
    """The mounts that are no other process's, as far as command lines tell. Read if needed."""

    def __init__(
        self, mounts: Sequence[Mount], holders: Sequence[Path], is_its: IsIts, proc: Path
    ) -> None:
        self._mounts = [mount for mount in mounts if is_fuse(mount)]
        self._holders = holders
        self._is_its = is_its
        self._proc = proc

    def devices(self) -> set[str]:
        lines = [
            arguments(process)
            for process in processes(self._proc)
            if process not in self._holders and _serves_any(process)
        ]
        theirs = {m.device for m in self._mounts if any(names_one(w, {m.target}) for w in lines)}
        return {m.device for m in self._mounts if self._is_its(m)} - theirs


def _served(holder: Path, mounts: Sequence[Mount], unclaimed: _Unclaimed) -> set[str]:
    """The devices of the mounts that a process may serve."""
    connections = set(connected(holder))
    if None in connections:
        return unclaimed.devices()
    return {m.device for m in mounts if is_fuse(m) and m.device.partition(":")[2] in connections}


def _serves_any(process: Path) -> bool:
    try:
        return any(True for _ in connected(process))
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended


def _open(process: Path) -> set[str]:
    """The names of what a process has open. Raises PermissionError."""
    found = set()
    try:
        for each in (process / "fd").iterdir():
            with suppress(FileNotFoundError):  # it is closed meanwhile
                found.add(str(each.readlink()))
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended
    return found


def _others(proc: Path) -> Iterator[_Namespace]:
    """The mount namespaces that are not ours, as far as they can be looked at."""
    known = {_id(proc / "self")}
    for process in processes(proc):
        with suppress(OSError):
            if (namespace := _id(process)) not in known:
                mounts = table.read(process / "mountinfo")
                known.add(namespace)
                yield _Namespace(process, mounts)


def _id(process: Path) -> str:
    return str((process / "ns/mnt").readlink())
