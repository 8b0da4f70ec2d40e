"""One look at this host, shared by everything that one call needs to see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

from moorline.core.links import Links
from moorline.core.records import Records
from moorline.core.usage import unknown
from moorline.errors import MoorlineError, Unavailable
from moorline.model import Attachment, Disk, Guest, GuestId, Level, LinkName, VolumeId
from moorline.ports import Hypervisor


class Survey:
    """What this host has: each thing is looked at once, when it is first asked for.

    It may be out of date a moment later, so code that changes something makes a new
    one under the locks that it holds. Not for several threads.
    """

    def __init__(self, records: Records, hypervisor: Hypervisor, links: Links) -> None:
        self._records = records
        self._hypervisor = hypervisor
        self.links = links
        """Links whose back ends ask each share once."""

    @cached_property
    def rows(self) -> Sequence[Attachment]:
        """Every attachment of this host, in the order of guest and volume. Raises Unavailable."""
        return self._records.all()

    @property
    def guests(self) -> Sequence[Guest]:
        """All guests. Raises as the hypervisor's survey, and the same error each time."""
        if isinstance(self._guests, MoorlineError):
            raise self._guests
        return self._guests

    def disks(self, guest: GuestId) -> Mapping[VolumeId, Disk]:
        """The marked disks of *guest*. Raises Unavailable (also if it is unreadable), Uncertain."""
        found = self._by_id.get(guest)
        if found is not None and found.unreadable:
            raise Unavailable(unknown(found))
        return found.disks if found else {}

    def others(self, row: Attachment) -> Sequence[Attachment]:
        """The other attachments that want the link of *row*."""
        same = self._wanted[row.backend, row.link]
        return [other for other in same if other.key != row.key]

    @cached_property
    def _guests(self) -> Sequence[Guest] | MoorlineError:
        try:
            return self._hypervisor.survey()
        except MoorlineError as e:
            return e

    @cached_property
    def _by_id(self) -> Mapping[GuestId, Guest]:
        return {guest.id: guest for guest in self.guests}

    @cached_property
    def _wanted(self) -> Mapping[tuple[str, LinkName], Sequence[Attachment]]:
        wanted: defaultdict[tuple[str, LinkName], list[Attachment]] = defaultdict(list)
        for row in self.rows:
            if row.want > Level.ABSENT:
                wanted[row.backend, row.link].append(row)
        return wanted
