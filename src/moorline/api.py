"""The façade: what is offered to edges and to programs, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

from moorline.core.admission import Admission
from moorline.core.backoff import Pending
from moorline.core.connection_renewal import ConnectionRenewer
from moorline.core.driver import Driver
from moorline.core.no_fleet import ALONE
from moorline.core.reconciler import Reconciler
from moorline.core.records import Records
from moorline.core.reservations import Reservations
from moorline.operations.attach import Attacher
from moorline.operations.detach_released import Released
from moorline.operations.extend import Extender
from moorline.operations.grow import Grower
from moorline.operations.query import Query
from moorline.operations.relocate import Relocator
from moorline.operations.service_extend import ServiceExtender
from moorline.operations.service_volumes import ServiceVolumes
from moorline.operations.set_limits import Limiter
from moorline.operations.unwanted_disks import UnwantedDisks
from moorline.ports import Hypervisor
from moorline.ports.guarding import Guarding
from moorline.ports.guests import GuestLifecycle

if TYPE_CHECKING:
    from moorline.care.environment import Environment
    from moorline.care.maintenance import Maintenance
    from moorline.operations.guests import Guests


class Attachments:
    """See :class:`moorline.ports.api.Attachments`. Each method is that of the part it is from."""

    def __init__(
        self,
        attacher: Attacher,
        volumes: ServiceVolumes,
        limiter: Limiter,
        extender: ServiceExtender,
        relocator: Relocator,
        query: Query,
    ) -> None:
        self.attach = volumes.attach
        self.detach = volumes.detach
        self.forget = attacher.forget
        self.sweep = volumes.sweep
        self.set = limiter.set
        self.extend = extender.extend
        self.relocate = relocator.relocate
        self.list = query.list
        self.show = query.show


class Moorline:
    """Attaches volumes to the guests of this host, and keeps them attached.

    Made by :func:`moorline.wiring.open_host`, which also takes the host lock.
    See :class:`moorline.ports.api.Api`. *driver*: the
    loop's, where an agent runs, and *pending* what is in hand there. *reservations*: None where
    volumes have no names.
    """

    def __init__(
        self,
        records: Records,
        reconciler: Reconciler,
        hypervisor: Hypervisor,
        lifecycle: GuestLifecycle[Any] | None = None,
        *,
        environment: Environment,
        guard: Guarding = ALONE,
        driver: Driver | None = None,
        pending: Callable[[], Sequence[Pending]] = tuple,
        reservations: Reservations | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        admission = Admission(records, reconciler, hypervisor, guard)
        driver = driver or Driver(records, reconciler)
        remaining = UnwantedDisks(environment.inventory)
        released = Released(records, reconciler, admission, hypervisor, remaining)
        attacher = Attacher(
            records,
            reconciler,
            hypervisor,
            admission,
            driver,
            released,
            remaining,
            environment.mounts,
            guard,
        )
        reservations = reservations or Reservations(records, reconciler, hypervisor)
        self.attachments = Attachments(
            attacher,
            ServiceVolumes(
                attacher,
                records,
                hypervisor,
                reservations,
                ConnectionRenewer(records, reservations, admission, driver),
            ),
            Limiter(records, reconciler, hypervisor, admission, driver),
            ServiceExtender(
                Extender(
                    reconciler,
                    admission,
                    hypervisor,
                    Grower(records, reconciler, hypervisor, environment.grow_file),
                ),
                admission,
                records,
                lambda: reservations.service(),
            ),
            Relocator(records, reconciler, admission, hypervisor, environment.event_log.saw),
            Query(records, reconciler, admission, hypervisor, environment.measure),
        )

        def guests() -> Guests:
            from moorline.operations.guests import Guests
            from moorline.operations.service_launch import LaunchedByName

            return Guests(
                records,
                reconciler,
                admission,
                driver,
                hypervisor,
                lifecycle,
                environment.event_log.did,
                guard,
                environment.launched_elsewhere,
                by_name=LaunchedByName(records, reservations),
            )

        def maintenance() -> Maintenance:
            from moorline.care.maintenance import Maintenance

            return Maintenance(
                records,
                reconciler,
                hypervisor,
                admission,
                driver,
                attacher.detach,
                reservations,
                environment,
                guard,
                pending,
            )

        self._make_guests, self._make_maintenance = guests, maintenance
        self._close = close

    # Each is loaded and made by the commands that need it.
    @cached_property
    def guests(self) -> Guests:
        """See :class:`moorline.ports.api.Api`."""
        return self._make_guests()

    @cached_property
    def maintenance(self) -> Maintenance:
        """See :class:`moorline.ports.api.Api`."""
        return self._make_maintenance()

    def __enter__(self) -> Moorline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the hypervisor, the store and the host lock."""
        self._close()
