"""The part of the façade for people who look after a host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from moorline.care.abort import Aborter
from moorline.care.adopt import Adopter
from moorline.care.adopt_all import BulkAdopter
from moorline.care.disks import Disks
from moorline.care.doctor import Doctor
from moorline.care.environment import Environment
from moorline.care.explain import Explainer
from moorline.care.repair import Detach, Repairer
from moorline.care.service_adopt import ServiceAdopter, ServiceBulkAdopter
from moorline.care.service_findings import service_findings
from moorline.core.admission import Admission
from moorline.core.backoff import Pending
from moorline.core.driver import Driver
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.reservations import Reservations
from moorline.ports import Hypervisor
from moorline.ports.guarding import Guarding


class Maintenance:
    """See :class:`moorline.ports.api.Maintenance`. Each method is that of the part it is from."""

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        admission: Admission,
        driver: Driver,
        detach: Detach,
        reservations: Reservations,
        environment: Environment,
        guard: Guarding,
        pending: Callable[[], Sequence[Pending]],
    ) -> None:
        check_state = environment.check_state
        environment = replace(
            environment,
            check_state=lambda: [*check_state(), *service_findings(records, reservations)],
        )
        doctor = Doctor(records, reconciler, hypervisor, environment, pending)
        event_log = environment.event_log
        explainer = Explainer(event_log, records, reconciler, admission, doctor.about, pending)
        adopter = Adopter(records, reconciler, hypervisor, admission, environment)
        by_name = ServiceAdopter(adopter, hypervisor, reservations)
        bulk_adopter = ServiceBulkAdopter(
            BulkAdopter(adopter, records, reconciler, hypervisor, admission, environment),
            records,
            hypervisor,
            environment.inventory,
            reservations,
        )
        survey = hypervisor.survey
        self.events = explainer.events
        self.explain = explainer.explain
        self.doctor = doctor.examine
        self.repair = Repairer(records, reconciler, survey, detach, environment).repair
        self.abort = Aborter(records, reconciler, survey, driver, environment).abort
        self.disks = Disks(records, hypervisor, environment).disks
        self.adopt = by_name.adopt
        self.release = by_name.release
        self.follow = guard.follow
        self.adopt_all = bulk_adopter.adopt_all
        self.release_all = bulk_adopter.release_all
