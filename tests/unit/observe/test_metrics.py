"""Metrics as a scrape reads them, their limits, and what the loop tells them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ingestcore.observe.admin import OneService
from ingestcore.observe.catalogue import CATALOGUE, LABELS, Metric
from ingestcore.observe.health import Health, Pressure
from ingestcore.observe.metrics import Metrics
from ingestcore.reasons import Reason
from ingestcore.runtime.gauges import StageGauges, retry_reason
from ingestcore.runtime.recording import Delivery, headers
from ingestcore.stage import At, Fate, Input, Line, OperatorNeeded, Origin, Reject, Retriable, Step
from ingestcore.stores.objects import Unavailable

RUNBOOK_NAMES = (
    "connectors_worker_throughput_mb_per_s",
    "connectors_worker_backlog_rows",
    "connectors_worker_dedupe_hits",
    "dedupe_hits",
    "source_backlog",
    "batch_latency_p95",
    "ingest_lag_seconds",
    "ingest_dlq_total",
    "ingest_records_total",
    "ingest_retry_total",
    "ingest_backpressure_state",
)
OWNED = {"tenant": "acme", "source": "s3-main", "dataset": "orders"}
ORIGIN = Origin("a" * 32, "acme", "s3-main", "orders@3", "s3://lake/a.csv")
LONG_AGO = "2020-01-01T00:00:00.000Z"


def text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_every_name_of_the_runbooks_stands_in_the_text_to_the_letter_before_anything_happened() -> None:
    lines = text(Metrics()).splitlines()
    types = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE")}
    assert {name for name in RUNBOOK_NAMES if name not in types} == set()
    assert types["ingest_lag_seconds"] == "histogram"
    assert types["connectors_worker_dedupe_hits"] == "gauge"
    assert types["ingest_records_total"] == "counter"


def test_samples_carry_exactly_the_declared_names_and_labels() -> None:
    metrics = Metrics()
    for metric in CATALOGUE.values():
        labels = dict.fromkeys(metric.labels, "x")
        if metric.fleet:
            continue
        if metric.kind == "histogram":
            metrics.observe(metric.name, 0.2, **labels)
        else:
            metrics.count(metric.name, 3, **labels)
    found = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text(metrics))
        for sample in family.samples
    }
    for metric in CATALOGUE.values():
        if not metric.fleet:
            name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
            assert found[name] == set(metric.labels), metric.name


def test_a_name_or_label_that_is_not_declared_is_a_defect() -> None:
    metrics = Metrics()
    for labels in ({}, {"stage": "x", "extra": "y"}):
        with pytest.raises(KeyError):
            metrics.set("source_backlog", 1, **labels)
    with pytest.raises(KeyError):
        metrics.count("nobody_declared_this_total")
    with pytest.raises(ValueError, match="_total"):
        Metric("grows", "counter", "rows", "Without the suffix")


def test_every_label_is_explained() -> None:
    assert {label for metric in CATALOGUE.values() for label in metric.labels} <= set(LABELS)


def test_beyond_the_limit_tenants_sources_and_datasets_count_together_as_other() -> None:
    metrics = Metrics(label_sets=2)
    for number in range(5):
        labels = {"tenant": f"t{number}", "source": "s", "dataset": "d", "stage": "normalizer"}
        metrics.count("dedupe_hits", 10, **labels)
        metrics.count("dedupe_hits", 1, **labels)
    assert value(metrics, "dedupe_hits", tenant="t1", source="s", dataset="d", stage="normalizer") == 11
    other = dict.fromkeys(("tenant", "source", "dataset"), "other")
    assert value(metrics, "dedupe_hits", **other, stage="normalizer") == 33
    assert text(metrics).count("\ndedupe_hits{") == 3


def test_the_same_owners_stay_told_apart_in_every_metric() -> None:
    metrics = Metrics(label_sets=1)
    metrics.count("dedupe_hits", **OWNED, stage="normalizer")
    metrics.count("dedupe_hits", **{**OWNED, "tenant": "late"}, stage="normalizer")
    metrics.count("ingest_records_total", **{**OWNED, "tenant": "late"}, stage="lake", fate="delivered")
    metrics.count("ingest_records_total", 7, **OWNED, stage="lake", fate="delivered")
    assert value(metrics, "ingest_records_total", **OWNED, stage="lake", fate="delivered") == 7


def test_a_histogram_takes_weights_and_adds_up() -> None:
    metrics = Metrics()
    labels = {**OWNED, "stage": "lake"}
    metrics.observe("ingest_lag_seconds", 0.25, 10, **labels)  # a bound belongs to its bucket
    metrics.observe("ingest_lag_seconds", 7.0, 90, **labels)
    metrics.observe("ingest_lag_seconds", 1e6, 1, **labels)
    at = {
        bound: value(metrics, "ingest_lag_seconds_bucket", **labels, le=bound)
        for bound in ("0.1", "0.25", "5.0", "10.0", "3600.0", "+Inf")
    }
    assert at == {"0.1": 0, "0.25": 10, "5.0": 10, "10.0": 100, "3600.0": 100, "+Inf": 101}
    assert value(metrics, "ingest_lag_seconds_count", **labels) == 101
    assert value(metrics, "ingest_lag_seconds_sum", **labels) == pytest.approx(2.5 + 630 + 1e6)


# -- what the loop tells


def delivery(offset: int, rows: int = 10, sources: str = "s3-main", first_seen: str = LONG_AGO) -> tuple[At, Delivery]:
    told = {"rows": str(rows), "sources": sources, "first_seen": first_seen}
    input = Input(At("normalized", 0, offset), b"x" * 1000, told)
    return input.at, Delivery(input, "pass", 0)


def taken(gauges: StageGauges, *known: tuple[At, Delivery]) -> Mapping[At, Delivery]:
    for at, one in known:
        gauges.took(Input(at, b"x" * 1000, {"rows": str(one.rows)}), one)
    return dict(known)


def delivered(at: At, rows: int) -> Step:
    return Step((at,), (Line(at, ORIGIN, Fate.DELIVERED, rows),))


def test_rows_count_once_however_often_their_transaction_is_rolled_back() -> None:
    metrics = Metrics()
    gauges = StageGauges(metrics, "lake")
    held = taken(gauges, delivery(1))
    (at,) = held
    reject = Reject(at=at, origin=ORIGIN, raw=b"", reason=Reason.VALIDATION_FAIL, message="no number")
    step = Step((at,), (Line(at, ORIGIN, Fate.DELIVERED, 9), Line(at, ORIGIN, Fate.REJECTED, 1)), rejects=(reject,))
    for _ in range(3):
        gauges.stepped(step, held)
        gauges.failed(Unavailable("S3 is away"))
    gauges.stepped(step, held)
    assert value(metrics, "ingest_records_total", **OWNED, stage="lake", fate="delivered") is None
    gauges.committed(0.5, 0.1, ())
    assert value(metrics, "ingest_records_total", **OWNED, stage="lake", fate="delivered") == 9
    assert value(metrics, "ingest_dlq_total", **OWNED, stage="lake", reason="VALIDATION_FAIL") == 1
    assert value(metrics, "ingest_retry_total", stage="lake", reason="CONNECTION_ERROR") == 3
    assert value(metrics, "ingest_commits_total", stage="lake", outcome="aborted") == 3
    assert value(metrics, "ingest_lag_seconds_count", **OWNED, stage="lake") == 9


def test_only_what_a_sink_delivered_counts_as_lag() -> None:
    metrics = Metrics()
    gauges = StageGauges(metrics, "csv-parser")
    held = taken(gauges, delivery(1))
    (at,) = held
    gauges.stepped(Step((at,), (Line(at, ORIGIN, Fate.EMITTED, 10),)), held)
    gauges.committed(0.5, 0.1, ())
    assert "ingest_lag_seconds_count{" not in text(metrics)
    assert value(metrics, "ingest_stage_lag_seconds_count", stage="csv-parser") == 1


def test_backlog_is_what_is_taken_and_what_waits_in_kafka() -> None:
    metrics = Metrics()
    gauges = StageGauges(metrics, "lake")
    held = taken(gauges, delivery(1, rows=100), delivery(2, rows=300))
    gauges.tick(held.values(), messages=5)
    assert value(metrics, "source_backlog", stage="lake") == 7
    assert value(metrics, "connectors_worker_backlog_rows", stage="lake") == 400 + 5 * 200
    assert value(metrics, "connectors_worker_throughput_mb_per_s", stage="lake") == pytest.approx(2000 / 1e6 / 10)
    gauges.tick((), messages=0)
    assert value(metrics, "connectors_worker_backlog_rows", stage="lake") == 0


def test_the_95th_percentile_of_batches() -> None:
    metrics = Metrics()
    gauges = StageGauges(metrics, "lake")
    for number in range(1, 101):
        gauges.committed(number / 100, 0.01, ())
    gauges.tick((), 0)
    assert value(metrics, "batch_latency_p95", stage="lake") == pytest.approx(0.95)
    assert value(metrics, "ingest_batch_seconds_count", stage="lake") == 100


def test_lag_by_source_is_the_age_of_the_oldest_input_that_is_not_committed() -> None:
    gauges = StageGauges(Metrics(), "lake")
    held = dict(taken(gauges, delivery(1, sources="s3-main"), delivery(2, sources="other,third")))
    gauges.failed(Unavailable("S3 is away"))  # they come again: no lag is lost
    assert all(told["lag_seconds"] > 1e8 for told in gauges.adapters().values())
    del held[At("normalized", 0, 1)]
    gauges.committed(0.5, 0.1, held.values())
    assert {name: told["lag_seconds"] > 1e8 for name, told in gauges.adapters().items()} == {
        "s3-main": False,
        "other": True,
        "third": True,
    }
    gauges.rebalanced()
    assert gauges.progress()["lag_seconds"] == 0


def test_messages_carry_the_sources_of_their_rows() -> None:
    at, known = delivery(1)
    assert headers(delivered(at, 1), [known], LONG_AGO)["sources"] == "s3-main"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("slow down", throttled=True), "RATE_LIMITED"),
        (Unavailable("reset"), "CONNECTION_ERROR"),
        (Retriable("Kafka"), "CONNECTION_ERROR"),
        (OSError("no route"), "CONNECTION_ERROR"),
        (OperatorNeeded("no permission"), "OPERATOR_NEEDED"),
        (ZeroDivisionError(), "INTERNAL_ERROR"),
    ],
)
def test_retries_are_named_by_the_codes_of_the_runbook(error: Exception, code: str) -> None:
    assert retry_reason(error) == code


def test_the_state_is_one_hot_and_follows_health() -> None:
    health, metrics = Health(), Metrics()
    OneService(health, metrics, "lake")

    def now() -> set[str]:
        hot = {state.value: value(metrics, "ingest_backpressure_state", state=state.value) for state in Pressure}
        assert set(hot.values()) == {0.0, 1.0}
        return {state for state, on in hot.items() if on}

    assert now() == {"normal"}
    health.throttled()
    assert now() == {"throttled"}
    health.waiting("Kafka is away")
    assert now() == {"paused"}
    assert value(metrics, "ingest_circuit_open", stage="lake") == 1
    health.drain()
    assert now() == {"drain"}
