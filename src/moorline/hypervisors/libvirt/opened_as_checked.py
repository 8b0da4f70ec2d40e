"""Compares what QEMU opened for a disk with what was checked, and takes it away if it is another.

libvirt and QEMU open a disk's files by their paths, each for itself, and whoever can write to
the share can put a symbolic link there in between. libvirt then makes QEMU's user the owner of
another file, and QEMU opens that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from moorline.deadline import Deadline
from moorline.errors import MoorlineError, Refused, Uncertain
from moorline.hypervisors.libvirt.mount_propagation import PID_FILES, PROC, covering, mounts_of
from moorline.hypervisors.libvirt.qemu_open_files import (
    AsChecked,
    Descriptor,
    descriptors,
    process_of,
)
from moorline.model import CheckedAs, DiskSource, ImageFile
from moorline.ports import Mount

TAKE_AWAY_SECONDS = 10.0
"""Seconds that a guest has to let go of a disk that is not the one that was checked."""
_POLL_SECONDS = 0.2
OWNER = "trusted.libvirt.security.dac"
"""Where libvirt keeps whose a file was: ``+UID:+GID`` (src/security/security_util.c of libvirt)."""
USERS = "trusted.libvirt.security.ref_dac"
"""How many of its guests have the file since."""
SINCE = "trusted.libvirt.security.timestamp_dac"
"""The boot in which that was noted: what an earlier one left is not valid."""
_NUMBERED = ("ext", "xfs", "btrfs", "tmpfs", "fuse", "nfs", "cifs", "smb3", "ceph")
"""File systems of which the process table and stat(2) tell the same numbers: overlayfs, say, does
not. On others the name has to do."""


class Plug:
    """One plug of *source* into a running guest, made before it. None: nothing is compared."""

    def __init__(
        self,
        guest: str,
        source: DiskSource | None,
        proc: Path = PROC,
        pid_files: Path = PID_FILES,
    ) -> None:
        self._guest = guest
        self._checked = source.checked if isinstance(source, ImageFile) else ()
        self._path = source.path if isinstance(source, ImageFile) else Path()
        self._proc = proc
        try:
            self._process = process_of(guest, proc, pid_files)
        except (OSError, ValueError):  # not libvirt's system daemon: nothing can be told
            self._checked = ()
        self._before = frozenset(self._open())
        self._sure: AsChecked | None = None

    def demand_checked(
        self, detach: Callable[[], None], there: Callable[[], bool]
    ) -> AsChecked | None:
        """See that QEMU opened what was checked; else take the disk away again.

        None: it cannot be told that it has it open by its name, on the mount that is there now.
        *detach* asks the guest for the disk, *there* tells whether it still has it. A file of this
        host whose owner libvirt changed by mistake gets it back, if libvirt has kept whose it was;
        else the error tells that it is QEMU's. libvirt notes the owner of what a path leads to, and
        changes that of what it leads to an instant later.
        Raises Refused (the disk is gone again), Uncertain (the guest has not let go yet).
        """
        others = self._others()
        if not others:
            return self._sure
        named = ", ".join(sorted({each.path for each in others}))
        _, mounts = self._mounts()
        with ExitStack() as stack:
            files = [
                stack.enter_context(_Owned(self._process, each))
                for each in others
                if (mount := mounts.get(each.mount)) and not mount.may_hang
            ]
            left = not _taken_away(detach, there)
            lost = [file.path for file in files if not file.give_back(self._process)]
        what = f"{self._guest} opened {named}, and not {self._path} as it was checked"
        if lost:
            what += f" ({', '.join(sorted(set(lost)))} belongs to QEMU's user, and nothing tells"
            what += " whether it did before)"
        if left:
            raise Uncertain(f"{what}; it was asked to let go, and has not done so yet")
        raise Refused(
            f"{what}: the disk was taken away again",
            hint="somebody changes names on the share meanwhile: what the guest could read of that"
            " file, it may have read",
        )

    def _others(self) -> Sequence[Descriptor]:
        """What it opened instead of a checked file; nothing where it cannot be told."""
        new = [each for each in self._open() if each not in self._before]
        if not new:
            return ()
        ours, mounts = self._mounts()
        if not mounts:
            return ()

        def is_one(each: Descriptor, file: CheckedAs) -> bool:
            mount = mounts.get(each.mount)
            device = f"{os.major(file.device)}:{os.minor(file.device)}"
            # Some file systems (btrfs, say) tell a file another device than the mount table does.
            if mount and mount.device not in (device, covering(ours, str(file.path)).device):
                return False
            odd = mount is not None and not mount.fstype.startswith(_NUMBERED)
            return each.inode == file.inode or (odd and each.path == str(file.path))

        if all(any(is_one(each, file) for each in new) for file in self._checked):
            own = [each for each in new if is_one(each, self._checked[0])]
            if _is_open(own, str(self._path), ours, mounts):
                self._sure = AsChecked(str(self._path))
            return ()
        return [each for each in new if not any(is_one(each, file) for file in self._checked)]

    def _mounts(self) -> tuple[Sequence[Mount], Mapping[int, Mount]]:
        """The mounts that we see, and those that QEMU or we see, by their number.

        None where that cannot be told.
        """
        try:
            ours, theirs = mounts_of(self._proc / "self"), mounts_of(self._process)
        except OSError:
            return (), {}
        return ours, {mount.id: mount for mount in (*ours, *theirs)}

    def _open(self) -> Iterator[Descriptor]:
        if self._checked:
            with suppress(OSError):  # not root, or it has ended
                yield from descriptors(self._process)


def _is_open(
    files: Sequence[Descriptor], path: str, ours: Sequence[Mount], mounts: Mapping[int, Mount]
) -> bool:
    """Whether one of *files* is called *path*, on the mount on which that lies now."""
    here = covering(ours, path).device
    at = (mounts.get(each.mount) for each in files if each.path == path)
    return any(mount.device == here for mount in at if mount)


def _taken_away(detach: Callable[[], None], there: Callable[[], bool]) -> bool:
    deadline = Deadline(TAKE_AWAY_SECONDS)
    while True:
        with suppress(MoorlineError):  # whether it is there is what counts
            detach()
        with suppress(MoorlineError):
            if not there():
                return True
        if deadline.over():
            return False
        deadline.sleep(_POLL_SECONDS)


class _Owned:
    """A file that QEMU opened by mistake, held so that it is found again whatever it is called."""

    def __init__(self, process: Path, opened: Descriptor) -> None:
        self.path = opened.path
        self._file = -1
        with suppress(OSError):  # it was closed meanwhile
            self._file = os.open(f"{process}/fd/{opened.number}", os.O_PATH | os.O_CLOEXEC)
        self._at = f"/proc/self/fd/{self._file}"

    def __enter__(self) -> _Owned:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)

    def give_back(self, process: Path) -> bool:
        """Make it belong to whom libvirt took it from, unless libvirt did so itself.

        False: it belongs to the user of QEMU's *process*, and nothing tells whose it was.
        """
        with suppress(OSError, ValueError):  # libvirt keeps no owners here, or gave it back
            if int(os.getxattr(self._at, USERS)) > 1:
                return True
            user, group = os.getxattr(self._at, OWNER).decode().rstrip("\0").split(":")
            os.chown(self._at, int(user), int(group))
            for name in (OWNER, USERS, SINCE):
                os.removexattr(self._at, name)
            return True
        with suppress(OSError):  # it was closed meanwhile, or QEMU has ended
            return os.stat(self._at).st_uid != process.stat().st_uid  # noqa: PTH116 - a descriptor
        return True
