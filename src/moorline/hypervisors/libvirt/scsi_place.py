"""Chooses where on a guest's SCSI controllers a disk goes. Pure."""

from __future__ import annotations

from typing import NamedTuple

from moorline.errors import Refused
from moorline.hypervisors.libvirt.domain_xml import Domain, ScsiPlace

MAX_UNITS = 16384
"""Units of a virtio-scsi controller's target 0 (VIRTIO_SCSI_MAX_LUN of QEMU)."""


class ScsiChoice(NamedTuple):
    """A free place, and whether its controller has to be added first."""

    place: ScsiPlace
    add: bool


def choose(domain: Domain) -> ScsiChoice:
    """The first free place that both halves of *domain* have, or one on a new controller.

    libvirt would add a controller by itself, of a model for which most systems have no driver
    (lsilogic: qemuDomainFindOrCreateSCSIDiskController). Raises Refused.
    """
    halves = domain.halves()
    everywhere = frozenset.intersection(*(half.virtio_scsi for half in halves))
    taken = {place for half in halves for place in half.scsi_places}
    for controller in sorted(everywhere):
        used = {unit for at, unit in taken if at == controller}
        if len(used) < MAX_UNITS:
            return ScsiChoice(
                (controller, next(n for n in range(MAX_UNITS) if n not in used)),
                add=False,
            )
    if any(half.virtio_scsi != everywhere for half in halves):
        raise differ(domain)
    known = {index for half in halves for index in half.scsi_controllers}
    return ScsiChoice((next(n for n in range(len(known) + 1) if n not in known), 0), add=True)


def demand_controller(domain: Domain, place: ScsiPlace | None) -> None:
    """Raise Refused unless both halves have the controller of *place*."""
    if place is None or any(place[0] not in half.virtio_scsi for half in domain.halves()):
        raise differ(domain)


def differ(domain: Domain) -> Refused:
    """The refusal of a guest whose halves have not the same controllers."""
    return Refused(
        f"the virtio-scsi controllers of {domain.name} are not those of its definition",
        hint="restart it, or use the bus virtio",
    )


def controller_xml(index: int) -> str:
    """The controller that is added."""
    return f'<controller type="scsi" index="{index}" model="virtio-scsi"/>'
