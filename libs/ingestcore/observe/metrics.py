"""Metrics: every one declared once, typed and documented. Names are those of the runbooks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LAG_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Counters are declared without `_total`: the client appends it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


CATALOGUE: Final = {
    metric.name: metric
    for metric in (
        Metric("ingest_records", "counter", "Records by fate", ("stage", "fate")),
        Metric("ingest_bytes", "counter", "Input bytes taken", ("stage",)),
        Metric("ingest_dlq", "counter", "Records dead-lettered", ("stage", "reason")),
        Metric("ingest_retry", "counter", "Retries by cause", ("stage", "reason")),
        Metric("ingest_commits", "counter", "Transactions by outcome", ("stage", "outcome")),
        Metric("ingest_rebalances", "counter", "Rebalances seen", ("stage",)),
        Metric("ingest_lag_seconds", "histogram", "First seen to commit here", ("stage",), LAG_BUCKETS),
        Metric(
            "ingest_batch_seconds",
            "histogram",
            "One commit: settle, produce, commit",
            ("stage",),
            LATENCY_BUCKETS,
        ),
        Metric(
            "batch_latency_p95",
            "gauge",
            "95th percentile of commit times, recent window, seconds",
            ("stage",),
        ),
        Metric("ingest_backpressure_state", "gauge", "One-hot state", ("state",)),
        Metric("ingest_circuit_open", "gauge", "1 while a retriable failure is waited out", ("stage",)),
        Metric("source_backlog", "gauge", "Inputs admitted and not yet committed", ("stage",)),
        Metric("connectors_worker_throughput_mb_per_s", "gauge", "Input MB/s, recent window", ("stage",)),
        Metric("connectors_worker_backlog_rows", "gauge", "Rows admitted and not yet committed", ("stage",)),
        Metric("connectors_worker_dedupe_hits", "gauge", "Rows recognised as duplicates since start", ("stage",)),
        Metric("dedupe_hits", "gauge", "Rows recognised as duplicates since start", ("stage",)),
        Metric("ingest_dedupe_keys", "gauge", "Keys known per partition", ("partition",)),
        Metric("ingest_object_seconds", "histogram", "Time per object, by step", ("step",), LATENCY_BUCKETS),
        Metric("ingest_unmatched_keys", "gauge", "Listed keys no route pattern matches", ("source",)),
        Metric("ingest_listing_seconds", "gauge", "Duration of the last listing", ("source",)),
        Metric("ingest_objects_found", "counter", "Objects emitted by a lister", ("source",)),
    )
}


class Metrics:
    """The catalogue, live. One per process; the registry is its own, so tests do not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._live: dict[str, Counter | Gauge | Histogram] = {}
        for metric in CATALOGUE.values():
            if metric.kind == "histogram":
                self._live[metric.name] = Histogram(
                    metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
                )
            else:
                kind = Counter if metric.kind == "counter" else Gauge
                self._live[metric.name] = kind(metric.name, metric.help, metric.labels, registry=self.registry)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter. Raises KeyError: not in the catalogue."""
        counter = self._of(name, labels)
        assert isinstance(counter, Counter)
        counter.inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        gauge = self._of(name, labels)
        assert isinstance(gauge, Gauge)
        gauge.set(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value (seconds) to a histogram."""
        histogram = self._of(name, labels)
        assert isinstance(histogram, Histogram)
        histogram.observe(value)

    def names(self) -> Iterable[str]:
        return self._live

    def _of(self, name: str, labels: dict[str, str]) -> Counter | Gauge | Histogram:
        live = self._live[name]
        return live.labels(**labels) if labels else live
