"""One look at this host, shared by everything that one call needs to see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from moorline.core.link_usage import unknown
from moorline.core.links import Links
from moorline.core.records import Records
from moorline.errors import MoorlineError, Unavailable
from moorline.model import (
    Attachment,
    Disk,
    Guest,
    GuestId,
    Key,
    Level,
    LinkName,
    Renewal,
    VolumeId,
)


class Survey:
    """What this host has: each thing is looked at once, when it is first asked for.

    It may be out of date a moment later, so code that changes something makes a new
    one under the locks that it holds. Not for several threads.
    """

    def __init__(
        self, records: Records, all_guests: Callable[[], Sequence[Guest]], links: Links
    ) -> None:
        """*all_guests*: as :meth:`moorline.ports.Hypervisor.survey`."""
        self._records = records
        self._all_guests = all_guests
        self.links = links
        """Links whose back ends ask each share once."""
        # Not by cached_property, which has one lock for all surveys in Python 3.11: each thread
        # would wait for the looks of all others (github.com/python/cpython/issues/87634).
        self._rows: Sequence[Attachment] | None = None
        self._found: Sequence[Guest] | MoorlineError | None = None
        self._by_id: Mapping[GuestId, Guest] | None = None
        self._wanted: Mapping[tuple[str, LinkName], Sequence[Attachment]] | None = None
        self._renewals: Mapping[Key, Renewal] | None = None

    @property
    def rows(self) -> Sequence[Attachment]:
        """Every attachment of this host, in the order of guest and volume. Raises Unavailable."""
        if self._rows is None:
            self._rows = self._records.all()
        return self._rows

    @property
    def guests(self) -> Sequence[Guest]:
        """All guests. Raises as the hypervisor's survey, and the same error each time."""
        if self._found is None:
            try:
                self._found = self._all_guests()
            except MoorlineError as e:
                self._found = e
        if isinstance(self._found, MoorlineError):
            raise self._found
        return self._found

    def guest(self, guest: GuestId) -> Guest | None:
        """What was seen of *guest*; None: it is not there. Raises as :attr:`guests`."""
        if self._by_id is None:
            self._by_id = {each.id: each for each in self.guests}
        return self._by_id.get(guest)

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        """The marked disks of *guest*. Raises Unavailable (also if it is unreadable), Uncertain."""
        found = self.guest(guest)
        if found is not None and found.unreadable:
            raise Unavailable(unknown(found))
        return found.disks if found else {}

    @property
    def renewals(self) -> Mapping[Key, Renewal]:
        """As :meth:`Records.renewals`. Raises Unavailable."""
        if self._renewals is None:
            self._renewals = self._records.renewals()
        return self._renewals

    def others(self, row: Attachment) -> Sequence[Attachment]:
        """The other attachments that want the link of *row*."""
        same = self.by_link.get((row.backend, row.link), ())
        return [other for other in same if other.key != row.key]

    @property
    def by_link(self) -> Mapping[tuple[str, LinkName], Sequence[Attachment]]:
        """All attachments that want their link, by back end and link. Raises as :attr:`rows`."""
        if self._wanted is None:
            self._wanted = _by_link(self.rows)
        return self._wanted


def _by_link(
    rows: Sequence[Attachment],
) -> Mapping[tuple[str, LinkName], Sequence[Attachment]]:
    """The attachments that want a link, by that."""
    wanted: defaultdict[tuple[str, LinkName], list[Attachment]] = defaultdict(list)
    for row in rows:
        if row.want > Level.ABSENT:
            wanted[row.backend, row.link].append(row)
    return wanted
