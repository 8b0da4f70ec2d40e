"""Checks the file of a volume before its guest opens it: what it is, and who else has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from moorline.core.file_clashes import Everyone, FileClashes, numbers_of
from moorline.core.file_locking import FileLocking
from moorline.core.links import Links
from moorline.core.survey import Survey
from moorline.errors import Failed
from moorline.model import Attachment, DiskSource, GuestId, Link, NetworkDisk
from moorline.shared_look import SharedLook


class FileChecks:
    """Looks before a guest is given a file, and while it is. Safe to use from several threads."""

    def __init__(
        self,
        links: Links,
        file_clashes: FileClashes,
        locking: FileLocking,
        survey: Callable[[], Survey],
    ) -> None:
        self._links = links
        self._file_clashes = file_clashes
        self._locking = locking
        self._survey = survey
        self._everyone: SharedLook[Sequence[int], Everyone] = SharedLook(self._look)

    def verify(self, row: Attachment) -> DiskSource:
        """Check that the volume of *row* may be given to its guest; return what is to be opened.

        Raises as the back end's verify, and Refused if another guest or attachment has the file.
        """
        source = self._verified(row)
        self._refuse_others(row, source)
        return source

    def demand_opening(self, row: Attachment) -> DiskSource:
        """Check that what *row* is may be opened, and return it. Raises as the back end's verify.

        The hypervisor is not asked: so nothing is told of who else has it.
        """
        return self._verified(row)

    def verify_alone(self, row: Attachment) -> None:
        """As :meth:`verify`, once nobody else on this host is giving its file to a guest."""
        with self.alone(row, None):
            pass

    @contextmanager
    def giving(self, rows: Iterable[Attachment]) -> Iterator[None]:
        """While a guest is started: nobody else has, or is being given, the files of *rows*.

        A guest that was stopped opens its disks by their names, whatever has become of those, and
        its share may have been away when another guest asked who has the file. Raises as
        :meth:`verify`, and Busy.
        """
        with ExitStack() as locks:
            for row in sorted(rows, key=lambda row: row.key):
                locks.enter_context(self.alone(row, None))
            yield

    @contextmanager
    def alone(
        self, row: Attachment, timeout: float | None, link: Link | None = None
    ) -> Iterator[DiskSource]:
        source = self._verified(row, link)
        with self._locking.turn(row, source, timeout):
            self._refuse_others(row, source)
            yield source

    def _verified(self, row: Attachment, link: Link | None = None) -> DiskSource:
        source = self._links.verified(row, link)
        if isinstance(source, NetworkDisk) and source.reserved and row.options.device != "lun":
            raise Failed(
                source.reserved, hint="a persistent reservation (SPC-3): its holder gives it up"
            )
        return source

    def _refuse_others(self, row: Attachment, source: DiskSource) -> None:
        """Refuse it if somebody else has the file.

        All of this host has to be looked at for it, which is most of what an attach costs. So one
        look serves all who ask for it while another is made: it begins after each of them has the
        lock of its file (:class:`FileLocking`), as their own would.
        """
        everyone = self._everyone.ask(numbers_of(source))
        self._file_clashes.refuse_others(row, source, everyone)

    def _look(self, asked: Sequence[Sequence[int]]) -> Everyone:
        return self._file_clashes.look(self._survey(), {number for of in asked for number in of})

    def settle(self, guest: GuestId) -> bool:
        """As :meth:`moorline.core.file_locking.FileLocking.settle`."""
        return self._locking.settle(guest)

    def destroying(
        self, guest: GuestId, paths: Iterable[str], timeout: float | None = None
    ) -> AbstractContextManager[None]:
        """As :meth:`moorline.core.file_locking.FileLocking.disks`.

        Who else has them is looked at within: before, nobody keeps others from getting them.
        """
        return self._locking.disks(guest, paths, timeout)
