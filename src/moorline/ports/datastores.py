"""Datastores: what is known of those that a disk could go to, and which is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moorline.errors import Refused

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Datastore:
    """What the hypervisor says of one."""

    id: str
    """The hypervisor's reference (``datastore-12``)."""
    name: str
    type: str
    capacity: int
    free: int
    accessible: bool
    maintenance: str = "normal"
    """``normal``, ``enteringMaintenance`` or ``inMaintenance``."""
    shared: bool = False
    """Several hosts reach it."""
    thin: bool = True
    """It makes disks that are allocated as they are written."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one candidate."""

    datastore: Datastore
    against: str
    """Why it was passed over; '' if it would do."""
    size: int = 0
    """Bytes of the disk there; 0 if its size was not looked at, as more speaks against it."""
    hint: str = ""
    """What would make it do."""


@dataclass(frozen=True, slots=True)
class Choice:
    """All candidates, the best first."""

    verdicts: Sequence[Verdict]

    def best(self) -> Verdict:
        """The one to take. Raises Refused, which says why each was passed over."""
        self.demand()
        return self.verdicts[0]

    def demand(self) -> None:
        """Raise Refused if none will do."""
        if self.verdicts and not self.verdicts[0].against:
            return
        names: dict[str, list[str]] = {}
        for v in self.verdicts:
            names.setdefault(v.against, []).append(f"{v.datastore.name} ({v.datastore.type})")
        reasons = [f"{', '.join(some)}: {against}" for against, some in names.items()]
        raise Refused(
            "no datastore will do: " + ("; ".join(reasons) or "there is none"),
            hint=next((v.hint for v in self.verdicts if v.hint), ""),
        )

    def explain(self) -> list[str]:
        """A line for each candidate: taken, could be, or why not."""
        return [
            f"{v.datastore.name} ({v.datastore.type}): "
            + (v.against or f"{'could be' if rank else 'is'} taken, {gib(v.datastore.free)} free")
            for rank, v in enumerate(self.verdicts)
        ]


def gib(size: int) -> str:
    """Bytes, for people."""
    return f"{size / GIB:.1f} GiB"
