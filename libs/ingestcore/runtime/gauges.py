"""What the loop tells the metrics about any stage: one place that knows their names.

Rows are counted when they are committed: what a rollback dropped and a later attempt redid counts once.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaException

from ingestcore.observe.metrics import Metrics
from ingestcore.reasons import Reason
from ingestcore.runtime.recording import Delivery
from ingestcore.runtime.waiting import Waiting, seconds_since
from ingestcore.stage import At, Fate, Input, OperatorNeeded, Owner, Retriable, Step

_PACE_SECONDS: Final = 10.0
_LATENCY_SECONDS: Final = 300.0
_LATENCIES: Final = 2_000
"""Kept at most; two a second fill five minutes with 600."""
_TICK_SECONDS: Final = 1.0


def retry_reason(error: BaseException) -> str:
    """-> the code an operator finds in `ingest_retry_total`."""
    if isinstance(error, Retriable):
        return error.reason
    if isinstance(error, OperatorNeeded):
        return "OPERATOR_NEEDED"
    away = isinstance(error, OSError | KafkaException)
    return (Reason.CONNECTION_ERROR if away else Reason.INTERNAL_ERROR).value


class _Uncommitted:
    """Counts of one transaction."""

    def __init__(self) -> None:
        self.rows: Counter[tuple[Owner, Fate]] = Counter()
        self.letters: Counter[tuple[Owner, Reason]] = Counter()
        self.delivered: Counter[tuple[Owner, str]] = Counter()
        self.steps: Counter[str] = Counter()

    def add(self, step: Step, deliveries: Mapping[At, Delivery]) -> None:
        for line in step.tally:
            owner = line.origin.owner
            self.rows[owner, line.fate] += line.rows
            if line.fate is Fate.DELIVERED:
                known = deliveries.get(line.at)
                self.delivered[owner, known.first_seen if known else ""] += line.rows
        for reject in step.rejects:
            self.letters[reject.origin.owner, reject.reason] += max(reject.rows, 1)
        self.steps[min((d.first_seen for at in step.covers if (d := deliveries.get(at))), default="")] += 1


class StageGauges:
    """Counts of one stage. Used by the thread that runs it; `adapters` and `progress` by any."""

    def __init__(self, metrics: Metrics, stage: str) -> None:
        self._metrics, self._stage = metrics, stage
        self._uncommitted = _Uncommitted()
        self._latencies: deque[tuple[float, float]] = deque(maxlen=_LATENCIES)
        self._taken: deque[tuple[float, int, int]] = deque()
        self._waiting = Waiting()
        self._mean_rows = 0.0
        self._ticked = 0.0
        self._totals: Counter[str] = Counter()
        self._set("source_backlog", 0)
        self._set("connectors_worker_backlog_rows", 0)
        self._set("connectors_worker_throughput_mb_per_s", 0)
        self._set("batch_latency_p95", 0)

    def _set(self, name: str, value: float) -> None:
        self._metrics.set(name, value, stage=self._stage)

    # -- what the loop does
    def took(self, input: Input, delivery: Delivery) -> None:
        self._taken.append((time.monotonic(), len(input.value), input.rows or 0))
        self._waiting.take(delivery)
        self._metrics.count("ingest_bytes_total", len(input.value), stage=self._stage)

    def stepped(self, step: Step, deliveries: Mapping[At, Delivery]) -> None:
        self._uncommitted.add(step, deliveries)

    def committed(self, batch_seconds: float, commit_seconds: float, still_held: Iterable[Delivery]) -> None:
        """A transaction is in.

        batch_seconds   from its first input, or the commit before
        commit_seconds  settle, produce, commit
        """
        self._latencies.append((time.monotonic(), batch_seconds))
        stage, metrics = self._stage, self._metrics
        metrics.count("ingest_commits_total", stage=stage, outcome="committed")
        metrics.observe("ingest_batch_seconds", batch_seconds, stage=stage)
        metrics.observe("ingest_commit_seconds", commit_seconds, stage=stage)
        self.count_committed()
        self._waiting.keep(still_held)

    def forget(self) -> None:
        """What was not committed is dropped."""
        self._uncommitted = _Uncommitted()

    def count_committed(self) -> None:
        """What was not committed is, now."""
        stage, metrics, done = self._stage, self._metrics, self._uncommitted
        self._uncommitted = _Uncommitted()
        for (owner, fate), rows in done.rows.items():
            metrics.count("ingest_records_total", rows, **_labels(owner), stage=stage, fate=fate.value)
            self._totals[fate.value] += rows
        for (owner, reason), letters in done.letters.items():
            metrics.count("ingest_dlq_total", letters, **_labels(owner), stage=stage, reason=reason.value)
        now = time.time()
        for (owner, first_seen), rows in done.delivered.items():
            lag = seconds_since(first_seen, now)
            if lag is not None:
                metrics.observe("ingest_lag_seconds", lag, rows, **_labels(owner), stage=stage)
        for first_seen, steps in done.steps.items():
            lag = seconds_since(first_seen, now)
            if lag is not None:
                metrics.observe("ingest_stage_lag_seconds", lag, steps, stage=stage)

    def failed(self, error: BaseException) -> None:
        """Rolled back for an error; what was taken comes again."""
        self.forget()
        self._metrics.count("ingest_commits_total", stage=self._stage, outcome="aborted")
        self._metrics.count("ingest_retry_total", stage=self._stage, reason=retry_reason(error))

    def rebalanced(self) -> None:
        """Rolled back because the group moved; what was taken may be another replica's now."""
        self.forget()
        self._waiting.clear()
        self._metrics.count("ingest_rebalances_total", stage=self._stage)

    def due(self) -> bool:
        """Is it time for `tick`? Once a second."""
        return time.monotonic() - self._ticked >= _TICK_SECONDS

    def tick(self, held: Iterable[Delivery], messages: int) -> None:
        """What changes also while nothing is committed.

        held      inputs at work
        messages  that wait besides, here or in Kafka
        """
        now = self._ticked = time.monotonic()
        while self._taken and now - self._taken[0][0] > _PACE_SECONDS:
            self._taken.popleft()
        if self._taken:
            self._mean_rows = sum(rows for _, _, rows in self._taken) / len(self._taken)
        nbytes = sum(size for _, size, _ in self._taken)
        self._set("connectors_worker_throughput_mb_per_s", nbytes / 1e6 / _PACE_SECONDS)
        while self._latencies and now - self._latencies[0][0] > _LATENCY_SECONDS:
            self._latencies.popleft()
        ordered = sorted(seconds for _, seconds in self._latencies)
        self._set("batch_latency_p95", ordered[int(0.95 * (len(ordered) - 1))] if ordered else 0.0)
        rows = [delivery.rows or 0 for delivery in held]
        self._set("source_backlog", len(rows) + messages)
        self._set("connectors_worker_backlog_rows", sum(rows) + round(messages * self._mean_rows))

    # -- for health
    def adapters(self) -> dict[str, Any]:
        """-> by source: `lag_seconds`, the age of its oldest input here that is not committed; 0 without one."""
        return {name: {"lag_seconds": lag} for name, lag in self._waiting.by_source().items()}

    def progress(self) -> dict[str, Any]:
        """-> rows committed by fate, and the age of the oldest input that is not."""
        return {"lag_seconds": self._waiting.lag_seconds(), "rows": dict(self._totals)}


def _labels(owner: Owner) -> dict[str, str]:
    tenant, source, dataset = owner
    return {"tenant": tenant, "source": source, "dataset": dataset}
