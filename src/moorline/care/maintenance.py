"""The part of the façade for people who look after a host."""

from __future__ import annotations

from moorline.care.abort import Aborter
from moorline.care.disks import Disks
from moorline.care.doctor import Doctor
from moorline.care.explain import Explainer
from moorline.care.repair import Repairer
from moorline.care.service_adopt import ServiceAdopter, ServiceBulkAdopter
from moorline.ports.guarding import Guarding


class Maintenance:
    """See :class:`moorline.ports.api.Maintenance`. Each method is that of the part it is from."""

    def __init__(
        self,
        explainer: Explainer,
        doctor: Doctor,
        repairer: Repairer,
        aborter: Aborter,
        adopter: ServiceAdopter,
        bulk_adopter: ServiceBulkAdopter,
        disks: Disks,
        guard: Guarding,
    ) -> None:
        self.events = explainer.events
        self.explain = explainer.explain
        self.doctor = doctor.examine
        self.repair = repairer.repair
        self.abort = aborter.abort
        self.disks = disks.disks
        self.adopt = adopter.adopt
        self.release = adopter.release
        self.follow = guard.follow
        self.adopt_all = bulk_adopter.adopt_all
        self.release_all = bulk_adopter.release_all
