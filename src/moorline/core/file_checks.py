"""Checks the file of a volume before its guest opens it: what it is, and who else has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from moorline.core.file_clashes import FileClashes
from moorline.core.file_turns import FileTurns
from moorline.core.links import Links
from moorline.core.survey import Survey
from moorline.model import Attachment, DiskSource, Link


class FileChecks:
    """Looks before a guest is given a file, and while it is. Safe to use from several threads."""

    def __init__(
        self,
        links: Links,
        file_clashes: FileClashes,
        turns: FileTurns,
        survey: Callable[[], Survey],
    ) -> None:
        self._links = links
        self._file_clashes = file_clashes
        self._turns = turns
        self._survey = survey

    def verify(self, row: Attachment) -> DiskSource:
        """Check that the volume of *row* may be given to its guest; return what is to be opened.

        Raises as the back end's verify, and Refused if another guest or attachment has the file.
        """
        source = self._links.verified(row)
        self._file_clashes.refuse_others(row, source, self._survey())
        return source

    def demand_opening(self, row: Attachment) -> None:
        """Check that the file of *row* may be opened. Raises as the back end's verify.

        The hypervisor is not asked: so nothing is told of who else has it.
        """
        self._links.verified(row)

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
        with ExitStack() as turns:
            for row in sorted(rows, key=lambda row: row.key):
                turns.enter_context(self.alone(row, None))
            yield

    @contextmanager
    def alone(
        self, row: Attachment, timeout: float | None, link: Link | None = None
    ) -> Iterator[DiskSource]:
        source = self._links.verified(row, link)
        with self._turns.turn(row, source, timeout):
            self._file_clashes.refuse_others(row, source, self._survey())
            yield source
