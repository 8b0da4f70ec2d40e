"""One change: makes a file a disk of an LPAR, if that is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moorline.errors import NotOurs, Refused
from moorline.hypervisors.powervm import mappings
from moorline.hypervisors.powervm.mappings import ScsiMapping
from moorline.hypervisors.powervm.remembered_slots import Slot
from moorline.model import VolumeId


def marked(m: ScsiMapping, client: str, volume: VolumeId, known: Slot | None) -> bool:
    """Whether *m* is the volume's mapping to *client*: by its tag, then by its name.

    A server that keeps no tags shows none. There the name proves it, if we
    asked for that very file (*known*) and, as far as we saw it, at that place.
    An LPAR that was deleted is named no more: its mapping is known by the place too.
    """
    if not m.path or m.optical or (m.client != client and not _left_by(m, known)):
        return False
    if m.tag:
        return m.tag == volume
    if known is None or known.path != m.path:
        return False
    return not known.lua or known.meets(m.place) or not m.lua


def _left_by(m: ScsiMapping, known: Slot | None) -> bool:
    """Whether *m*, which names no client, is what is left of the mapping that was *known*."""
    return not m.client and not m.paired and known is not None and known == m.place


@dataclass(frozen=True, slots=True)
class Plug:
    """The attachment that *path* be the disk *volume* of *client*. Call it with a server."""

    client: str
    name: str
    """The client's name, for people."""
    volume: VolumeId
    """'' while it is only asked whether any volume could be mapped."""
    path: str
    shared: bool
    obstacle: str
    """Why the client cannot be changed now; '': it can."""
    recall: Callable[[], Slot]
    """Reads the recorded slot.

    To be called after the mappings are read, so as to see others' claims.
    """
    claim: Callable[[Slot], None]
    """Records that we ask for the file."""

    @property
    def known(self) -> Slot:
        return self.recall()

    def __call__(self, vios: Any) -> bool:
        """Edit *vios*; return whether that was needed.

        Raises Refused or NotOurs, nothing changed.
        """
        found = mappings.read(vios, client=self.client, path=self.path)
        mine = [m for m in found if self._is_mine(m)]
        if any(m.path != self.path for m in mine):
            raise NotOurs(
                f"{self.name} has volume {self.volume} from {mine[0].path}, not from {self.path}"
            )
        if any(m.visible for m in mine):
            return False
        self.refuse(found)
        for m in mine:  # the guest does not see them
            mappings.remove(m)
        rest = [m for m in found if m not in mine]
        place = mappings.choose(rest, self.client, self.known)
        slot = self.known if place.lua is not None else Slot("")
        self.claim(replace(slot, path=self.path, shared=self.shared))
        mappings.add(vios, self.client, self.path, self.volume, place)
        return True

    def made(self, vios: Any) -> list[ScsiMapping]:
        """Return the volume's mappings after the change."""
        asked = Slot(self.path)
        found = mappings.read(vios, client=self.client)
        return [m for m in found if marked(m, self.client, self.volume, asked)]

    def refuse(self, found: Sequence[ScsiMapping]) -> None:
        """Raise Refused or NotOurs if the file must not be mapped now."""
        if self.obstacle:
            raise Refused(f"{self.name} cannot be changed now: {self.obstacle}")
        for m in found:
            if m.path != self.path:
                continue
            if m.client != self.client and not self._is_mine(m) and not self.shared:
                raise Refused(
                    f"{self.path} is mapped to LPAR {m.client_id} already"
                    + ("" if m.paired else ", whose adapter is gone"),
                    hint="detach it there, or say that the volume is shared"
                    if m.paired
                    else f"remove the mapping from server slot {m.server_slot} if nobody needs it",
                )
            if m.client == self.client and self.volume and not self._is_mine(m):
                raise NotOurs(f"{self.path} is a disk of {self.name} that somebody else made")

    def _is_mine(self, m: ScsiMapping) -> bool:
        return marked(m, self.client, self.volume, self.known)
