"""Which of the connections that were given is a disk's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from moorline.care.connection_rows import ConnectionRow
from moorline.core.admission import AcceptedConnection, Admission
from moorline.errors import Refused
from moorline.ports.inspection import GuestDisk


class Offer:
    """A row of the connections, and what its back end makes of it."""

    def __init__(self, row: ConnectionRow, admission: Admission) -> None:
        self.row = row
        self._admission = admission

    @cached_property
    def accepted(self) -> AcceptedConnection | None:
        """None: it is refused."""
        try:
            return self._admission.accept(self.row.connection, None)
        except Refused:
            return None

    def is_of(self, disk: GuestDisk) -> bool:
        """Whether the row names the disk's volume by its id."""
        return bool(self.row.volume) and self.row.volume in (disk.mark, disk.serial)

    def has(self, storage: AcceptedConnection | None, disk: GuestDisk) -> bool:
        """Whether the row's connection leads to the disk, or is of the same *storage*."""
        accepted = self.accepted
        if accepted is None:
            return False
        name = f"/{accepted.name}" if accepted.name else ""
        if f"{accepted.link}{name}" == disk.path:
            return True
        return storage is not None and _is_same(accepted, storage)


def _is_same(one: AcceptedConnection, other: AcceptedConnection) -> bool:
    same = (one.backend, one.name) == (other.backend, other.name)
    return one.id == other.id or (same and bool(one.shares & other.shares))


def chosen(offers: Sequence[Offer]) -> Offer | None:
    """The one connection. Raises Refused: there are several, and they name different storages."""
    if not offers:
        return None
    first = offers[0]
    for other in offers[1:]:
        both = first.accepted, other.accepted
        same = both[0] is not None and both[1] is not None and _is_same(both[0], both[1])
        if not same and first.row.connection != other.row.connection:
            raise Refused("there are several connections for it, and they differ")
    return first
