"""Records where a guest has its disks: for each volume the adapter's slot and the LUN on it.

PowerVM forgets them with the mapping, but operating systems know their disks by
them. So they are kept in our store, and used again when the volume comes back
or the LPAR is rebuilt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Protocol
from urllib.parse import quote

from moorline.model import GuestId, VolumeId
from moorline.ports import At, Delete, Entry, Put, Store


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a volume on a guest's SCSI busses."""

    path: str
    """The file that we asked to be mapped; '' since it was detached."""
    slot: int = 0
    """The client adapter's virtual slot; 0: not known yet."""
    lua: str = ""
    """The logical unit address, in the words of the server; '': not known yet."""
    client: int = 0
    """The id of the LPAR when we saw it there; 0: not known yet."""
    shared: bool = field(default=False, compare=False)
    """Others may write to the file at the same time."""

    def meets(self, other: Slot) -> bool:
        """Whether both stand for the same known place."""
        return bool(self.slot and self.lua) and (self.slot, self.lua) == (other.slot, other.lua)


class Slots(Protocol):
    """The record of places. One place of a guest belongs to one volume."""

    def of(self, guest: GuestId) -> Mapping[VolumeId, Slot]: ...

    def put(self, guest: GuestId, volume: VolumeId, slot: Slot) -> None:
        """Record *slot*, and forget whichever other volume of the guest had the place."""

    def drop(self, guest: GuestId, volume: VolumeId) -> None:
        """Forget the volume's place, if there is one."""


class MemorySlots:
    """The record for as long as the process lives."""

    def __init__(self) -> None:
        self._known: dict[GuestId, dict[VolumeId, Slot]] = {}

    def of(self, guest: GuestId) -> Mapping[VolumeId, Slot]:
        return dict(self._known.get(guest, {}))

    def put(self, guest: GuestId, volume: VolumeId, slot: Slot) -> None:
        others = {v: s for v, s in self.of(guest).items() if v != volume and not s.meets(slot)}
        self._known[guest] = {**others, volume: slot}

    def drop(self, guest: GuestId, volume: VolumeId) -> None:
        self._known.get(guest, {}).pop(volume, None)


class StoredSlots:
    """The record in a store, as JSON."""

    def __init__(self, store: Store, host: str, *, own: bool = True) -> None:
        """*own* False: what is put or dropped is not written. Only the host's owner writes."""
        self._store = store
        self._own = own
        self._prefix = f"/moorline/slots/{quote(host, safe='')}/"

    def of(self, guest: GuestId) -> Mapping[VolumeId, Slot]:
        entries, _ = self._store.list(f"{self._prefix}{guest}/")
        return {_volume(entry): Slot(**json.loads(entry.value)) for entry in entries}

    def put(self, guest: GuestId, volume: VolumeId, slot: Slot) -> None:
        if not self._own:
            return
        entries, _ = self._store.list(f"{self._prefix}{guest}/")
        at = f"{self._prefix}{guest}/{volume}"
        losers = [
            Delete(entry.key)
            for entry in entries
            if entry.key != at and Slot(**json.loads(entry.value)).meets(slot)
        ]
        revision = next((entry.revision for entry in entries if entry.key == at), 0)
        value = json.dumps(asdict(slot), sort_keys=True).encode()
        self._store.commit([At(at, revision)], [Put(at, value), *losers])

    def drop(self, guest: GuestId, volume: VolumeId) -> None:
        at = f"{self._prefix}{guest}/{volume}"
        if self._own and self._store.get(at):
            self._store.commit([], [Delete(at)])


def _volume(entry: Entry) -> VolumeId:
    return VolumeId(entry.key.rpartition("/")[2])
