"""Every metric of the platform, declared once: type, unit, labels, meaning. `docs/metrics.md` is drawn from it.

Names are those of the runbooks, to the letter. The client library appends `_total` to every counter, so what a runbook
calls without it is a gauge that only grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

LAG_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

OWNER: Final = ("tenant", "source", "dataset")
"""Whose data: the labels that operators' configurations can make many of; limited together."""
OTHER: Final = "other"
"""What such labels say beyond the limit."""
LABELS: Final = {
    "tenant": "whose data",
    "source": "source of the configuration",
    "dataset": "dataset, without its version",
    "stage": "service, or the sink's name",
    "fate": "what became of a row in this stage: `emitted` to the next, `delivered` by a sink, `duplicate`, `stale` (a "
    "sink has a newer one), `rejected` (dead-lettered), `blank` (blank and comment records), `not_for_us` (a dataset "
    "this sink does not take)",
    "reason": "of dead letters: the codes of `ingestcore.reasons`; of retries these and `CONFIG_PENDING` (a spec has "
    "not come yet), `OPERATOR_NEEDED` (credentials, permissions)",
    "outcome": "of transactions: `committed` or `aborted`; of requests: `accepted`, `duplicate`, `partly` (a batch), "
    "`challenge`, or the last part of the problem's type",
    "cause": "`missing`, `malformed`, `wrong`, `expired`, `future`, `unknown_source`",
    "state": "`normal`, `throttled`, `brownout`, `drain`, `paused`",
    "step": "of reading an object: `fetch`, `inflate`, `cut`, `hash`, over all threads; `total` by the clock",
    "partition": "of the topic the stage reads",
    "service": "name of the service; only on the port of `ingest up`, which adds it to everything",
    "replica": "replica id; as `service`",
}

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    name     as it stands in the text a scrape reads
    unit     of its value
    help     one sentence, without a full stop
    fleet    only on the port of `ingest up`
    buckets  upper bounds of a histogram, without +Inf
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    fleet: bool = False

    def __post_init__(self) -> None:
        if (self.kind == "counter") != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters, and only they, end in _total")


_ROWS: Final = (
    Metric("ingest_records_total", "counter", "rows", "Rows by fate, once committed", (*OWNER, "stage", "fate")),
    Metric("ingest_dlq_total", "counter", "rows", "Rows dead-lettered; objects count 1", (*OWNER, "stage", "reason")),
    Metric("dedupe_hits", "gauge", "rows", "Rows recognised as duplicates since start; only grows", (*OWNER, "stage")),
    Metric("connectors_worker_dedupe_hits", "gauge", "rows", "The same as `dedupe_hits`", (*OWNER, "stage")),
    Metric("ingest_dedupe_keys", "gauge", "keys", "Keys known", ("partition",)),
)
_PACE: Final = (
    Metric("ingest_bytes_total", "counter", "bytes", "Input taken, again after a rollback", ("stage",)),
    Metric("connectors_worker_throughput_mb_per_s", "gauge", "MB/s", "Input taken, mean of the last 10 s", ("stage",)),
    Metric(
        "connectors_worker_backlog_rows",
        "gauge",
        "rows",
        "Rows not committed yet: those taken, and an estimate of those still in Kafka (waiting messages times the mean "
        "rows of a message)",
        ("stage",),
    ),
    Metric(
        "source_backlog",
        "gauge",
        "messages",
        "Input messages of this process's partitions not committed yet; those in Kafka are counted by offset",
        ("stage",),
    ),
)
_TIME: Final = (
    Metric(
        "ingest_lag_seconds",
        "histogram",
        "seconds",
        "From first seen in the source to committed by a sink, a row at a time",
        (*OWNER, "stage"),
        LAG_BUCKETS,
    ),
    Metric(
        "ingest_stage_lag_seconds",
        "histogram",
        "seconds",
        "From first seen in the source to committed by this stage, a step at a time",
        ("stage",),
        LAG_BUCKETS,
    ),
    Metric(
        "ingest_batch_seconds",
        "histogram",
        "seconds",
        "A batch, from its first input (or the commit before) to its commit",
        ("stage",),
        LATENCY_BUCKETS,
    ),
    Metric(
        "batch_latency_p95",
        "gauge",
        "seconds",
        "95th percentile of `ingest_batch_seconds` over the last 5 minutes; 0 where none was committed",
        ("stage",),
    ),
    Metric("ingest_commit_seconds", "histogram", "seconds", "Settle, produce, commit", ("stage",), LATENCY_BUCKETS),
    Metric("ingest_object_seconds", "histogram", "seconds", "Reading an object", ("step",), LATENCY_BUCKETS),
)
_TROUBLE: Final = (
    Metric("ingest_commits_total", "counter", "transactions", "Transactions", ("stage", "outcome")),
    Metric("ingest_retry_total", "counter", "retries", "What was tried again, by cause", ("stage", "reason")),
    Metric("ingest_rebalances_total", "counter", "rebalances", "Rebalances of the consumer group", ("stage",)),
    Metric("ingest_backpressure_state", "gauge", "0 or 1", "1 for the state the process is in", ("state",)),
    Metric(
        "ingest_circuit_open",
        "gauge",
        "0 or 1",
        "1 while something it needs is away, or a sink's circuit breaker is not closed",
        ("stage",),
    ),
)
_LISTING: Final = (
    Metric("ingest_objects_found_total", "counter", "objects", "New or changed objects handed on", ("source",)),
    Metric("ingest_listing_seconds", "gauge", "seconds", "Duration of the last listing", ("source",)),
    Metric("ingest_unmatched_keys", "gauge", "keys", "Keys of the last listing no route pattern matches", ("source",)),
)
_WEBHOOKS: Final = (
    Metric(
        "ingest_webhook_requests_total",
        "counter",
        "requests",
        "Requests answered; `gone`: the client left before",
        ("source", "outcome"),
    ),
    Metric(
        "ingest_webhook_signature_failures_total",
        "counter",
        "requests",
        "Posts that were not proven, by cause",
        ("source", "cause"),
    ),
    Metric(
        "ingest_webhook_ack_seconds",
        "histogram",
        "seconds",
        "From an event's way to Kafka to its acknowledgement by all in-sync replicas",
        ("source",),
        LATENCY_BUCKETS,
    ),
    Metric("ingest_webhook_in_flight", "gauge", "events", "Events taken and not answered yet"),
)
_FLEET: Final = (
    Metric(
        "ingest_service_up",
        "gauge",
        "0 or 1",
        "1 where the process answered this scrape",
        ("service", "replica"),
        fleet=True,
    ),
)

SECTIONS: Final = {
    "rows": _ROWS,
    "pace": _PACE,
    "time": _TIME,
    "trouble": _TROUBLE,
    "listing": _LISTING,
    "webhooks": _WEBHOOKS,
    "fleet": _FLEET,
}
"""As `docs/metrics.md` groups them."""
CATALOGUE: Final = {metric.name: metric for section in SECTIONS.values() for metric in section}
