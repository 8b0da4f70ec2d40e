"""The metrics for Prometheus. Labels are kinds, results and levels: never a volume or a guest."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from moorline.core.backoff import Pending
from moorline.core.plan import Step
from moorline.core.took import Took
from moorline.loop.drift import Sweep
from moorline.model import Level

KIND = CONTENT_TYPE_PLAIN_0_0_4
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STEPS = tuple(step for step in Step if step not in (Step.NOTHING, Step.WAIT, Step.PARK))
_WANTS = (Level.ABSENT, Level.CONNECTED, Level.ATTACHED)
_LINKS = ("linked", "unlinked", "broken", "foreign", "hung", "unknown")


class Metrics:
    """Counts the steps of one agent, and asks *controller* for the rest when it is collected."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the lines
        self._registry = CollectorRegistry()
        self._steps = Counter(
            "moorline_steps", "Steps that were taken.", ["step", "result"], registry=self._registry
        )
        self._seconds = Histogram(
            "moorline_step_seconds",
            "How long steps took.",
            ["step"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        for step in _STEPS:
            self._steps.labels(step.value, "done")
            self._seconds.labels(step.value)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def took(self, took: Took) -> None:
        """Count a step; the report of a reconciler."""
        result = took.error.kind if took.error else "done"
        self._steps.labels(took.step.value, result).inc()
        self._seconds.labels(took.step.value).observe(took.seconds)

    def watch(
        self, pending: Callable[[], Sequence[Pending]], swept: Callable[[], Sweep | None]
    ) -> None:
        """Collect the controller's metrics, too."""
        self._registry.register(_LoopMetrics(pending, swept))

    def follow(self, unheard: Callable[[], float], stopped: Callable[[], int]) -> None:
        """Collect how this host and its fleet get on, too; see :class:`_FleetMetrics`."""
        self._registry.register(_FleetMetrics(unheard, stopped))

    def page(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _FleetMetrics:
    """*unheard*: seconds since a pass went through. *stopped*: copies of guests that were."""

    def __init__(self, unheard: Callable[[], float], stopped: Callable[[], int]) -> None:
        self._unheard = unheard
        self._stopped = stopped

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        yield GaugeMetricFamily(
            "moorline_fleet_unheard_seconds",
            "How long ago this host last did all that its fleet wants.",
            value=self._unheard(),
        )
        yield CounterMetricFamily(
            "moorline_fleet_copies_stopped",
            "Copies of guests that were stopped because this host had lost them.",
            value=self._stopped(),
        )

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked at registration."""
        return ()


class _LoopMetrics:
    def __init__(
        self, pending: Callable[[], Sequence[Pending]], swept: Callable[[], Sweep | None]
    ) -> None:
        self._pending = pending
        self._swept = swept

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        yield from _queue(self._pending())
        if (sweep := self._swept()) is not None:
            yield from _sweep(sweep)

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked at registration."""
        return ()


def _queue(pending: Sequence[Pending]) -> Iterable[Metric]:
    depth = GaugeMetricFamily(
        "moorline_queue_depth",
        "Attachments that are not as wanted, by what is wanted.",
        labels=["want"],
    )
    age = GaugeMetricFamily(
        "moorline_queue_oldest_seconds", "How long the longest of them has waited.", labels=["want"]
    )
    running = GaugeMetricFamily(
        "moorline_queue_running", "How many of them have a pass under way.", labels=["want"]
    )
    for want in _WANTS:
        those = [each for each in pending if each.want is want]
        depth.add_metric([str(want)], len(those))
        age.add_metric([str(want)], max((each.age for each in those), default=0))
        running.add_metric([str(want)], sum(each.running for each in those))
    return depth, age, running


def _sweep(sweep: Sweep) -> Iterable[Metric]:
    links = GaugeMetricFamily(
        "moorline_links", "Links by how the last sweep found them.", labels=["state"]
    )
    found = Tally(sweep.links)
    for state in _LINKS:
        links.add_metric([state], found[state])
    yield links
    pauses = GaugeMetricFamily(
        "moorline_guest_paused", "Which of them, and why.", labels=["guest", "why"]
    )
    for guest, why in sweep.paused.items():
        pauses.add_metric([guest, why], 1)
    yield pauses
    for name, text, value in (
        ("moorline_attachments", "Attachments that are recorded.", sweep.rows),
        ("moorline_attachments_due", "Those that were not as wanted.", len(sweep.due)),
        ("moorline_attachments_parked", "Those that only a person can help.", sweep.parked),
        ("moorline_hung_links", "Links on which a look has hung.", found["hung"]),
        ("moorline_guests_paused", "Guests that an error of a disk's paused.", len(sweep.paused)),
        ("moorline_sweep_seconds", "How long the last sweep took.", sweep.seconds),
        ("moorline_hypervisor_up", "Whether the guests could be looked at.", not sweep.error),
    ):
        yield GaugeMetricFamily(name, text, value=value)
