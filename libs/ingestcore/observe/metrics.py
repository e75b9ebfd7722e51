"""The catalogue, live: values of one process, collected when a scrape asks for them."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import (
    Metric as Family,
)
from prometheus_client.registry import Collector

from ingestcore.observe.catalogue import CATALOGUE, OTHER, OWNER, Metric

LABEL_SETS: Final = 500
"""Tenants × sources × datasets told apart unless a setting says otherwise."""

Values = tuple[str, ...]


class _Histogram:
    """Weights by bucket; the last one is beyond all bounds."""

    __slots__ = ("counts", "sum")

    def __init__(self, bounds: int) -> None:
        self.counts = [0.0] * (bounds + 1)
        self.sum = 0.0


class Metrics(Collector):
    """One per process, thread-safe; the registry is its own, so that tests do not collide.

    label_sets  distinct tenant, source, dataset told apart; all further ones count as `other`
    """

    def __init__(self, label_sets: int = LABEL_SETS) -> None:
        self._lock = threading.Lock()
        self._label_sets = label_sets
        self._owners: dict[Values, set[Values]] = {}
        self._seen: dict[Values, Values] = {}
        """Labels that were looked at before, as they came: most calls repeat a few."""
        self._single: dict[str, dict[Values, float]] = {m.name: {} for m in _here() if m.kind != "histogram"}
        self._histograms: dict[str, dict[Values, _Histogram]] = {m.name: {} for m in _here() if m.kind == "histogram"}
        self._at_scrape: list[Callable[[], None]] = []
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter, or to a gauge that only grows; 0 makes it appear. Raises KeyError: not in the catalogue,
        or a label is missing."""
        values, known = self._values(name, labels), self._single[name]
        with self._lock:
            known[values] = known.get(values, 0.0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge. Raises KeyError."""
        values = self._values(name, labels)
        with self._lock:
            self._single[name][values] = value

    def observe(self, name: str, value: float, weight: float = 1, **labels: str) -> None:
        """Add a value (seconds) to a histogram, as often as `weight` says. Raises KeyError."""
        values, known, bounds = self._values(name, labels), self._histograms[name], CATALOGUE[name].buckets
        with self._lock:
            histogram = known.get(values)
            if histogram is None:
                histogram = known[values] = _Histogram(len(bounds))
            histogram.counts[bisect_left(bounds, value)] += weight
            histogram.sum += value * weight

    def at_scrape(self, hook: Callable[[], None]) -> None:
        """Call this before values are collected: for gauges that are cheaper to look up than to keep."""
        self._at_scrape.append(hook)

    def _values(self, name: str, labels: Mapping[str, str]) -> Values:
        asked = (name, *labels, *labels.values())
        seen = self._seen.get(asked)
        if seen is not None:
            return seen
        metric = CATALOGUE[name]
        if len(labels) != len(metric.labels):
            raise KeyError(f"{name} has the labels {metric.labels}")
        values = tuple(labels[label] for label in metric.labels)
        owned = tuple(label for label in metric.labels if label in OWNER)
        kept = self._limited(metric, owned, values) if owned else values
        if kept == values:  # others are without number
            self._seen[asked] = kept
        return kept

    def _limited(self, metric: Metric, owned: Values, values: Values) -> Values:
        owner = tuple(value for label, value in zip(metric.labels, values, strict=True) if label in owned)
        known = self._owners.setdefault(owned, set())
        if owner in known:
            return values
        if len(known) < self._label_sets:
            known.add(owner)
            return values
        return tuple(OTHER if label in owned else value for label, value in zip(metric.labels, values, strict=True))

    def collect(self) -> Iterator[Family]:
        """For prometheus_client: one family per metric, also of those without values yet."""
        for hook in self._at_scrape:
            hook()
        for metric in _here():
            if metric.kind == "histogram":
                yield self._histogram_family(metric)
            else:
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                family = kind(metric.name, metric.help, labels=metric.labels)
                with self._lock:
                    values = list(self._single[metric.name].items())
                for labels, value in values:
                    family.add_metric(labels, value)
                yield family

    def _histogram_family(self, metric: Metric) -> Family:
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        with self._lock:
            values = [(labels, list(h.counts), h.sum) for labels, h in self._histograms[metric.name].items()]
        for labels, counts, total in values:
            running, buckets = 0.0, []
            for bound, count in zip((*map(str, map(float, metric.buckets)), "+Inf"), counts, strict=True):
                running += count
                buckets.append((bound, running))
            family.add_metric(labels, buckets, total)
        return family


def _here() -> Iterator[Metric]:
    """-> what a service process has."""
    return (metric for metric in CATALOGUE.values() if not metric.fleet)
