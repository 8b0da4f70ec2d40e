"""Whose turn it is to give a file to a guest: one at a time on a host, whoever has which state."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from moorline.errors import Failed, MoorlineError, Uncertain
from moorline.model import Attachment, BlockDevice, DatastoreDisk, DiskSource, ImageFile
from moorline.ports import FileId, FileLocks, Host, Settled

PATIENCE_SECONDS = 30.0
"""Seconds that somebody else may take to give a file of ours to a guest, if nobody says less."""


class FileTurns:
    """Keeps others from looking who has a file while a guest is being given it.

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

    @contextmanager
    def turn(
        self, row: Attachment, source: DiskSource, timeout: float | None = None
    ) -> Iterator[None]:
        """Be the only one who looks who has the files of *source*, and gives them to a guest.

        Blocks for *timeout* seconds (None: :data:`PATIENCE_SECONDS`) while somebody else is
        at it, then raises Busy with who that is; Denied, Unavailable (nothing can be locked).
        Of who died, or left it Uncertain, the guest is asked first: Uncertain, Unavailable
        while it may still get the disk.
        """
        files = self._files(row, source)
        if self._locks is None or not files:
            yield
            return
        locks = self._locks()
        try:
            locks.take(files, PATIENCE_SECONDS if timeout is None else timeout)
            if self._settled is not None:
                for guest in locks.left():
                    self._settled(guest)
            locks.end()
            locks.begin(row.key.guest)
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
            return {FileId(source.path, 0, zlib.crc32(source.path.encode())): writes}
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
