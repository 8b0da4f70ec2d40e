"""Which datastore a disk goes to: decided from facts, and explained. Touches nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from moorline.errors import Refused
from moorline.hypervisors.vsphere.provision.disk_sizes import size_on
from moorline.ports.datastores import Choice, Datastore, Verdict, gib


class DiskKind(Enum):
    """What a disk is made from."""

    EMPTY = "empty"
    STREAM = "streamOptimized"
    SPARSE = "sparse"
    FLAT = "preallocated"


ANY_KIND = frozenset(DiskKind)
TYPES = {
    "VMFS": ANY_KIND,
    "NFS": ANY_KIND,
    "NFS41": ANY_KIND,
    # Both keep objects, not files: what is made elsewhere comes in as a stream.
    "vsan": frozenset({DiskKind.EMPTY, DiskKind.STREAM}),
    "VVOL": frozenset({DiskKind.EMPTY, DiskKind.STREAM}),
}
"""Datastore types as vSphere spells them (``HostFileSystemVolume.type``), and what they take."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a datastore must have."""

    size: int
    """Bytes of the disk."""
    kind: DiskKind = DiskKind.EMPTY
    names: str = ""
    """A regular expression that the whole name matches; '' for all."""
    policy: str = ""
    """The name of the storage policy, for people."""
    matching: frozenset[str] | None = None
    """The ids of the datastores that the policy is met by; None: there is no policy."""
    thin: bool | None = None
    """Whether the disk is to be allocated as it is written; None: as the datastore has it."""
    round_up: bool = False
    """The disk may become larger to meet a datastore's size rule."""
    reserve: int = 0
    """Bytes that must stay free beside the disk."""
    types: frozenset[str] = field(default_factory=lambda: frozenset(TYPES))


def choose(candidates: Sequence[Datastore], wanted: Wanted) -> Choice:
    """Judge every candidate, and rank those that will do.

    First those that several hosts reach, then those with the most free space,
    then by name, so that the same facts give the same answer. A candidate whose
    size rule the disk does not meet is passed over while others remain; it and
    those that lack only room come before those that can never do. Raises Refused
    if the expression for names is none.
    """
    names = expression(wanted.names)
    verdicts = [_judge(candidate, wanted, names) for candidate in candidates]
    return Choice(
        tuple(
            sorted(
                verdicts,
                key=lambda v: (
                    bool(v.against),
                    not v.size,
                    not v.datastore.shared,
                    -v.datastore.free,
                    v.datastore.name,
                ),
            )
        )
    )


def expression(names: str) -> re.Pattern[str]:
    """What whole names of datastores shall match. Raises Refused."""
    try:
        return re.compile(names)
    except re.error as error:
        raise Refused(f"{names!r} is no regular expression: {error}") from None


def _judge(candidate: Datastore, wanted: Wanted, names: re.Pattern[str]) -> Verdict:
    against = _against(candidate, wanted, names)
    if against:
        return Verdict(candidate, against)
    if wanted.thin and not candidate.thin:
        return Verdict(
            candidate,
            "makes thick disks only",
            wanted.size,
            hint="leave out --thin, or say --eager",
        )
    try:
        size = size_on(candidate.type, wanted.size, round_up=wanted.round_up)
    except Refused as error:
        hint = f"{error.hint}: --round-up" if error.hint else ""
        return Verdict(candidate, error.message, wanted.size, hint)
    needed = size + wanted.reserve
    if candidate.free < needed:
        return Verdict(
            candidate, f"has {gib(candidate.free)} free, and {gib(needed)} must be", size
        )
    return Verdict(candidate, "", size)


def _against(candidate: Datastore, wanted: Wanted, names: re.Pattern[str]) -> str:
    """What speaks against it, whatever its free space."""
    takes = TYPES.get(candidate.type) if candidate.type in wanted.types else None
    if takes is None:
        return "its type is not one of those that are taken"
    if wanted.kind not in takes:
        return f"does not take {wanted.kind.value} images, only streamOptimized ones"
    if not candidate.accessible:
        return "is not accessible"
    if candidate.maintenance not in ("", "normal"):
        return "is in maintenance, or entering it"
    if wanted.names and not names.fullmatch(candidate.name):
        return f"its name does not match {wanted.names!r}"
    if wanted.matching is not None and candidate.id not in wanted.matching:
        return f"does not meet the storage policy {wanted.policy!r}"
    return ""
