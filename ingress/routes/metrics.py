"""Every metric, once. None is labelled by tenant: ``/metrics`` needs no token."""

from collections.abc import Iterator, Mapping

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from governor.actions import UNDER_WAY
from governor.fsm import RUN_OPEN
from governor.slo.contract import OBJECTIVES
from governor.slo.counting import BOUNDS_MS
from ledger.contracts import MODELS

WEBHOOKS = Counter("ggen_webhooks", "Webhooks answered, by outcome", ["outcome"])
SIGNALS = Counter("ggen_signals", "Signals answered: accepted, or why not", ["verdict"])
LEASE_S = Gauge("ggen_lease_seconds", "How long the lease to admit still lasts; 0 refuses all")
ORPHANS = Gauge(
    "ggen_orphaned_actions", "Overdue actions that only the minute's scan found; alert if not 0"
)
UNSEALED = Gauge("ggen_unsealed_ledgers", "Ledgers with receipts that wait to be sealed")
SEALED_AGO_S = Gauge(
    "ggen_sealed_ago_seconds", "Since any ledger was sealed; 0 where none waits for it"
)
DEGRADED = Gauge("ggen_degraded", "1 while all that is new is refused, the store having failed")
SPOOLED = Gauge("ggen_spooled_commits", "Commits that wait in the spool for the store to be back")
UNDELIVERED = Gauge(
    "ggen_undelivered_alerts", "Alerts that were tried in vain, and are tried again"
)
READY = Gauge("ggen_ready", "1 when nothing that /readyz looks at is missing")
IN_FLIGHT = Gauge("ggen_in_flight_actions", "Actions that were accepted and are looked after")
WAITING = Gauge("ggen_waiting_actions", "Accepted actions that wait for a worker")
BUSY = Gauge("ggen_busy_processes", "Processes that carry out an action now")
OLDEST_S = Gauge("ggen_waiting_oldest_seconds", "Age of the oldest action that waits")
LONGEST = Gauge(
    "ggen_waiting_actions_longest",
    "Actions that wait in the longest lists, by rank from 1",
    ["rank"],
)
LONGEST_LISTS = 20


class Measured(Collector):
    """What sealed receipts and the reaper's scans have measured, as Memory counts it.

    Every series is there from the first count on, at 0, so that a first miss is an increase. While
    Memory does not answer there is none: counters that began again at 0 would look like misses.
    """

    def __init__(self) -> None:
        self._counts: Mapping[str, int] = {}
        self._states: Mapping[str, int] = {}
        self._is_known = False

    def know(self, counts: Mapping[str, int], states: Mapping[str, int]) -> None:
        """What Memory has just said."""
        self._counts, self._states, self._is_known = counts, states, True

    def forget(self) -> None:
        """Memory does not answer."""
        self._is_known = False

    def collect(self) -> Iterator[Metric]:
        """Each family; called by the exposition."""
        if self._is_known:
            yield from self.families()

    def families(self) -> Iterator[Metric]:
        """Each family, whether it is known or not."""
        yield self._durations()
        yield self._counter(
            "ggen_objective_events", "Receipts that were events of an objective", "events"
        )
        yield self._counter("ggen_objective_misses", "Events that missed their objective", "bad")
        targets = GaugeMetricFamily(
            "ggen_objective_target_ratio",
            "Share of events that are to be good",
            labels=["objective"],
        )
        for objective in OBJECTIVES.values():
            targets.add_metric([objective.name], objective.target)
        yield targets
        yield self._gauge("ggen_actions", "Actions under way, by the last minute's scan", "action")
        yield self._gauge("ggen_runs", "Runs that have not ended, by the last scan", "run")

    def _durations(self) -> Metric:
        family = HistogramMetricFamily(
            "ggen_operation_duration_seconds",
            "Operations, by the receipt that says how they ended",
            labels=["operation"],
        )
        for operation in MODELS:
            of = f"duration|{operation}|"
            buckets = [(str(b / 1000), self._counts.get(f"{of}{b}", 0)) for b in BOUNDS_MS]
            buckets.append(("+Inf", self._counts.get(f"{of}inf", 0)))
            family.add_metric([operation], buckets, self._counts.get(f"{of}sum", 0) / 1000)
        return family

    def _counter(self, name: str, told: str, kind: str) -> Metric:
        family = CounterMetricFamily(name, told, labels=["objective"])
        for objective in OBJECTIVES:
            family.add_metric([objective], self._counts.get(f"{kind}|{objective}", 0))
        return family

    def _gauge(self, name: str, told: str, kind: str) -> Metric:
        family = GaugeMetricFamily(name, told, labels=["state"])
        for state in UNDER_WAY if kind == "action" else RUN_OPEN:
            family.add_metric([state], self._states.get(f"{kind}|{state}", 0))
        return family


MEASURED = Measured()
REGISTRY.register(MEASURED)
