"""Keeps the owner of a file that a disk's path leads to by the time the disk is unplugged.

libvirt gives a disk's file back by its path: what that leads to gets the owner that libvirt has
noted beside it, or root (virSecurityDACRestoreImageLabel in src/security/security_dac.c). Whoever
can change names there meanwhile chooses which file that is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from moorline.errors import Refused
from moorline.hypervisors.libvirt.disk_address import LIVE
from moorline.hypervisors.libvirt.domain_xml import MarkedDisk
from moorline.hypervisors.libvirt.mount_propagation import PID_FILES, PROC
from moorline.hypervisors.libvirt.opened_as_checked import OWNER, SINCE, USERS
from moorline.hypervisors.libvirt.qemu_open_files import descriptors, process_of

_ROOT = (0, 0)


class Unplug:
    """One unplug of *disk* from a running guest. None: it runs without it.

    What libvirt is about to take for the disk's file, though the guest has another one open, is
    noted beside it as libvirt itself would: so it keeps its owner whenever the guest lets the disk
    go, and if we are killed before. Where no note can be made the owner is given back afterwards.
    """

    def __init__(
        self,
        guest: str,
        disk: MarkedDisk | None,
        proc: Path = PROC,
        pid_files: Path = PID_FILES,
    ) -> None:
        self._guest = guest
        # What is only read or shared libvirt does not give back; only root names what is in /dev.
        self._source = disk.source if disk and disk.source.startswith("/") else ""
        kept = disk is None or disk.readonly or disk.shared or disk.source.startswith("/dev/")
        self._path = "" if kept else self._source
        self._proc = proc
        self._pid_files = pid_files
        self._file = -1
        self._owner = _ROOT
        self._notes: Mapping[str, bytes] = {}

    @property
    def keeps(self) -> bool:
        """Whether there is a file whose owner is to be kept."""
        return self._file >= 0

    def __del__(self) -> None:
        self._close()  # not earlier: a look may hang, and the number be another file's by then

    def ask(self, domain: Any, alias: str, flags: int, due: bool = True) -> None:
        """Ask libvirt's *domain* for the disk. Blocks as long as the file system of its path.

        *due*: see :meth:`Requests.due`; otherwise its file is looked at alone.

        Raises Refused if QEMU would hang: it opens the path once more when a disk goes.
        """
        if flags & LIVE:
            with suppress(OSError):  # nothing is there
                if stat.S_ISFIFO(os.stat(self._source).st_mode):  # noqa: PTH116 - as QEMU opens it
                    raise Refused(
                        f"{self._source} is a pipe by now: QEMU would open it and wait for ever",
                        hint="put the volume's file back, or stop the guest",
                    )
            self._look()
        if due:
            domain.detachDeviceAlias(alias, flags)

    def _look(self) -> None:
        if not self._path:
            return
        with suppress(OSError, ValueError):  # nothing is there, or QEMU's process is not seen
            process = process_of(self._guest, self._proc, self._pid_files)
            self._file = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
            st = os.fstat(self._file)
            self._owner = st.st_uid, st.st_gid
            if self._owner != _ROOT and not _has(process, st, self._path) and not _has(process, st):
                others = sum(self._others(process, st))
                # What is QEMU's and open nowhere is libvirt's mistake, or of an earlier mount.
                if others or st.st_uid != process.stat().st_uid:
                    self._notes = dict(self._noted())
                    self._note(process, others)
                    return
        self._close()

    def give_back(self) -> None:
        """Once libvirt is done with the disk: make the file as it was. Blocks as :meth:`ask`."""
        at = self._at
        with suppress(OSError):  # the file system takes no owners: then libvirt changed none
            st = os.stat(at)  # noqa: PTH116 - a descriptor
            if (st.st_uid, st.st_gid) == _ROOT:
                os.chown(at, *self._owner)
            for name, value in self._notes.items():
                os.setxattr(at, name, value)
            for name in dict(self._noted()).keys() - self._notes.keys():
                os.removexattr(at, name)

    def _note(self, process: Path, others: int) -> None:
        """Say whose the file is, and that this disk is one more that has it."""
        at = self._at
        owner = "+{}:+{}".format(*self._owner).encode() + b"\0"
        with suppress(OSError, StopIteration):
            since = next(_since(process))
            os.setxattr(at, OWNER, self._notes.get(OWNER, owner) if others else owner)
            os.setxattr(at, USERS, b"%d\0" % (others + 1))
            os.setxattr(at, SINCE, since)

    def _noted(self) -> Iterator[tuple[str, bytes]]:
        for name in (OWNER, USERS, SINCE):
            with suppress(OSError):
                yield name, os.getxattr(self._at, name)

    def _others(self, process: Path, file: os.stat_result) -> Iterator[bool]:
        """Of each other guest, whether it has *file* open."""
        for each in self._pid_files.glob("*.pid"):
            with suppress(OSError, ValueError):  # it has ended
                other = self._proc / str(int(each.read_text()))
                if each.stem != "driver" and other != process:  # libvirtd's own
                    yield _has(other, file)

    @property
    def _at(self) -> str:
        return f"/proc/self/fd/{self._file}"

    def _close(self) -> None:
        if self.keeps:
            os.close(self._file)
        self._file = -1


def _has(process: Path, file: os.stat_result, called: str = "") -> bool:
    """Whether a guest's process has *file* open, by the name *called* alone. Raises OSError."""
    return any(
        os.path.samestat(os.stat(f"{process}/fd/{each.number}"), file)  # noqa: PTH116
        for each in descriptors(process, called)
        if each.inode == file.st_ino
    )


def _since(process: Path) -> Iterator[bytes]:
    """Since when notes of libvirt's are valid: this boot, as it wrote beside another file."""
    for each in descriptors(process):
        with suppress(OSError):
            yield os.getxattr(f"{process}/fd/{each.number}", SINCE)
