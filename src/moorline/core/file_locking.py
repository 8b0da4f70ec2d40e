"""Locks files for the whole host: one at a time gives a file to a guest, or destroys it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from moorline.errors import Failed, MoorlineError, Uncertain
from moorline.model import (
    Attachment,
    BlockDevice,
    DatastoreDisk,
    DiskSource,
    GuestId,
    ImageFile,
    NetworkDisk,
)
from moorline.network_disk import at_its_server
from moorline.ports import FileId, FileLocks, Host, Settled

FILE_LOCK_TIMEOUT_SECONDS = 30.0
"""Seconds to wait for another process to give the same file to a guest, by default."""


class FileLocking:
    """Keeps others away from a file while a guest is given it, or while it is destroyed.

    *locks* makes what can lock files for the whole host. *settled*: as
    :meth:`moorline.ports.Settling.settled`, where the hypervisor has it. Without *host* and
    *locks* there is nobody else. Safe to use from several threads.
    """

    def __init__(
        self,
        host: Host | None = None,
        locks: Callable[[], FileLocks] | None = None,
        settled: Settled | None = None,
    ) -> None:
        self._host = host
        self._locks = locks
        self._settled = settled

    def turn(
        self, row: Attachment, source: DiskSource, timeout: float | None = None
    ) -> AbstractContextManager[None]:
        """Lock the files of *source* while they are checked for other users and given to a guest.

        Blocks for *timeout* seconds (None: :data:`FILE_LOCK_TIMEOUT_SECONDS`) while somebody else
        is at it, then raises Busy with who that is; Denied, Unavailable (nothing can be locked).
        If the last holder died, or ended Uncertain, the guest is looked at first: raises
        Uncertain, Unavailable while it may still get that disk.
        """
        return self._turn(row.key.guest, self._files(row, source), timeout)

    def disks(
        self, guest: GuestId, paths: Iterable[str], timeout: float | None = None
    ) -> AbstractContextManager[None]:
        """Keep disks on datastores from others while a change of *guest* may destroy them.

        *paths*: as ``[datastore] folder/disk.vmdk``. Blocks and raises as :meth:`turn`.
        """
        return self._turn(guest, dict.fromkeys(map(_named, paths), True), timeout)

    def settle(self, guest: GuestId) -> bool:
        """Wait until an attach to *guest* has ended whose caller was killed or left it Uncertain.

        True: there was such, and a look sees now whether the guest has it. Raises Uncertain,
        Unavailable while that goes on.
        """
        if self._locks is None or self._settled is None:
            return False
        locks = self._locks()
        try:
            if not locks.take_left(guest):
                return False
            for each, seconds in locks.left().items():
                self._settled(each, seconds)
            locks.end()
            return True
        finally:
            locks.release()

    @contextmanager
    def _turn(
        self, guest: GuestId, files: Mapping[FileId, bool], timeout: float | None
    ) -> Iterator[None]:
        if self._locks is None or not files:
            yield
            return
        locks = self._locks()
        try:
            locks.take(files, FILE_LOCK_TIMEOUT_SECONDS if timeout is None else timeout)
            if self._settled is not None:
                for other, seconds in locks.left().items():
                    # To its own guest: a hypervisor plugs nothing twice.
                    self._settled(other, math.inf if other == guest else seconds)
            locks.end()
            locks.begin(guest)
            try:
                yield
            except Uncertain:
                raise  # it may still come: whoever is next asks the guest
            except MoorlineError:
                locks.end()
                raise
            locks.end()
        finally:
            locks.release()

    def _files(self, row: Attachment, source: DiskSource) -> Mapping[FileId, bool]:
        """What is locked: each file of *source*, and whether the guest may write to it."""
        writes = not row.options.readonly
        if isinstance(source, DatastoreDisk):  # a name is all that this host knows of it
            return {_named(source.path): writes}
        if isinstance(source, NetworkDisk):  # two of a server's at once, but for its nameless one
            names = (source.path, *source.ids)
            return {_named(at_its_server(source.path)): False, **{_named(n): writes for n in names}}
        if self._host is None or not isinstance(source, ImageFile | BlockDevice):
            return {}
        if isinstance(source, ImageFile) and source.checked:
            own, *beneath = (FileId(str(f.path), f.device, f.inode) for f in source.checked)
            return {**dict.fromkeys(beneath, False), own: writes}
        form = source.format if isinstance(source, ImageFile) else "raw"
        (found,) = self._host.files(source.path.parent, [(str(source.path), form)])
        if isinstance(found, OSError):
            raise Failed(f"{source.path} cannot be looked at: {found.strerror}") from found
        own, *beneath = found
        # Two partitions of a disk are given at the same time, and a disk and its partition not.
        beneath += [replace(own, node=number, lower=()) for number in own.lower]
        return {**dict.fromkeys(beneath, False), own: writes}


def _named(path: str) -> FileId:
    return FileId(path, 0, zlib.crc32(path.encode()))
