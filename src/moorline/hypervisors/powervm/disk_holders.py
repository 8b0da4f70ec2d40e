"""Finds who has the disks of mappings that name no LPAR.

NovaLink names a mapping's client (``AssociatedLogicalPartition``) only if that is
an LPAR. Virtual I/O Servers are clients too, which boot from files of the NovaLink
partition; and adapters of the server stay, with their disks, when their LPAR is
deleted. ``fake_vios_hosting_vios_feed.txt`` and ``fake_vios_mappings.txt`` in the tests
of https://github.com/powervm/pypowervm, which are replies of real systems, have both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pypowervm.wrappers.base_partition import LPARState

from moorline.hypervisors.powervm.mappings import ANYBODY, ScsiMapping
from moorline.model import Guest, GuestId, Use


def holders(found: Sequence[ScsiMapping], partitions: Sequence[Any]) -> list[Guest]:
    """The holders of files among *found*, each partition once, and each that is gone.

    *partitions* are all that NovaLink lists. A client is gone if it has no adapter
    any more: ids are used again, so another partition that has the id now is not it.
    """
    by_client: dict[tuple[int, bool], list[ScsiMapping]] = {}
    for m in found:
        if m.path:
            by_client.setdefault((m.client_id, m.paired), []).append(m)
    known = {partition.id: partition for partition in partitions}
    return [
        _holder(number, paired, known.get(number) if paired else None, ms)
        for (number, paired), ms in by_client.items()
    ]


def is_of(m: ScsiMapping, lpar: Any) -> bool:
    """Whether *lpar* is the client: it is named, or not named and has the adapter."""
    if m.client or not m.paired:
        return bool(m.client == lpar.uuid.upper())
    return bool(m.client_id == lpar.id)


def runs(partition: Any) -> bool:
    """Whether a partition is activated, or on its way to be."""
    return bool(partition.state != LPARState.NOT_ACTIVATED)


def use(m: ScsiMapping, volume: str = "", shared: bool = False) -> Use:
    """How its client has the file of *m*, which must have one."""
    return Use(m.path, "raw", m.optical, shared, volume)


def _holder(number: int, paired: bool, partition: Any, found: Sequence[ScsiMapping]) -> Guest:
    paths = frozenset(m.path for m in found)
    uses = frozenset(map(use, found))
    if partition is not None:
        id = GuestId(partition.uuid.upper())
        return Guest(id, partition.name, runs(partition), {}, paths, uses=uses)
    who = f"LPAR {number}" if 0 < number < ANYBODY else "an LPAR"
    name = f"{who}, which is not listed" if paired else f"{who}, which is gone"
    # A partition that has an adapter and cannot be looked at may run.
    id = GuestId(f"partition-{number}{'' if paired else '-gone'}")
    return Guest(id, name, paired, {}, paths, uses=uses)
