"""What the loop tells the metrics about any stage: one place that knows their names."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ingestcore.observe.metrics import Metrics
from ingestcore.stage import Input, Step

_WINDOW_COMMITS: Final = 200
_WINDOW_SECONDS: Final = 10.0


class StageGauges:
    """Counts of one stage. `lag` of the last commit is kept for health."""

    def __init__(self, metrics: Metrics, stage: str) -> None:
        self._metrics, self._stage = metrics, stage
        self._latencies: deque[float] = deque(maxlen=_WINDOW_COMMITS)
        self._taken: deque[tuple[float, int]] = deque()
        self._rows_held = 0
        self.lag_seconds = 0.0
        self.totals: dict[str, int] = {}
        for state in ("normal", "throttled", "brownout", "drain", "paused"):
            metrics.set("ingest_backpressure_state", float(state == "normal"), state=state)
        metrics.set("ingest_circuit_open", 0, stage=stage)
        metrics.set("source_backlog", 0, stage=stage)
        metrics.set("connectors_worker_backlog_rows", 0, stage=stage)
        metrics.set("connectors_worker_throughput_mb_per_s", 0, stage=stage)
        metrics.set("batch_latency_p95", 0, stage=stage)

    def took(self, input: Input) -> None:
        self._metrics.count("ingest_bytes", len(input.value), stage=self._stage)
        self._taken.append((time.monotonic(), len(input.value)))
        self._rows_held += input.rows or 0

    def stepped(self, step: Step) -> None:
        for line in step.tally:
            self._metrics.count("ingest_records", line.rows, stage=self._stage, fate=line.fate.value)
            self.totals[line.fate.value] = self.totals.get(line.fate.value, 0) + line.rows
        for reject in step.rejects:
            self._metrics.count("ingest_dlq", max(reject.rows, 1), stage=self._stage, reason=reject.reason.value)

    def committed(self, seconds: float, first_seen: Sequence[str], backlog: int) -> None:
        self._latencies.append(seconds)
        self._metrics.count("ingest_commits", stage=self._stage, outcome="committed")
        self._metrics.observe("ingest_batch_seconds", seconds, stage=self._stage)
        ordered = sorted(self._latencies)
        self._metrics.set("batch_latency_p95", ordered[int(0.95 * (len(ordered) - 1))], stage=self._stage)
        self._metrics.set("ingest_circuit_open", 0, stage=self._stage)
        self._metrics.set("source_backlog", backlog, stage=self._stage)
        if not backlog:
            self._rows_held = 0
        self._metrics.set("connectors_worker_backlog_rows", self._rows_held, stage=self._stage)
        self._throughput()
        now = datetime.now(UTC)
        for text in first_seen:
            self.lag_seconds = max(0.0, (now - datetime.fromisoformat(text)).total_seconds())
            self._metrics.observe("ingest_lag_seconds", self.lag_seconds, stage=self._stage)

    def _throughput(self) -> None:
        now = time.monotonic()
        while self._taken and now - self._taken[0][0] > _WINDOW_SECONDS:
            self._taken.popleft()
        total = sum(size for _, size in self._taken)
        self._metrics.set("connectors_worker_throughput_mb_per_s", total / 1e6 / _WINDOW_SECONDS, stage=self._stage)

    def failed(self, error: Exception) -> None:
        self._rows_held = 0
        self._metrics.count("ingest_commits", stage=self._stage, outcome="aborted")
        self._metrics.count("ingest_retry", stage=self._stage, reason=type(error).__name__)
        self._metrics.set("ingest_circuit_open", 1, stage=self._stage)

    def rebalanced(self) -> None:
        self._rows_held = 0
        self._metrics.count("ingest_rebalances", stage=self._stage)
