"""The runbooks' commands, typed against `ingest up` with nothing but the host replaced; the metrics' values."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingestcore.ledger import State
from ingestcore.testing.collector import collecting
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.generate import Rows, Truth, generate
from ingestcore.testing.shell import Shell
from ingestcore.testing.span_receiver import Received, SpanReceiver, receiving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

HOST = "http://ingest-service:8080"
SOURCE, DATASET = "s3-main", "orders"
PARTITIONS = 4
NAMES = ("s3-lister", "chunk-downloader", "csv-parser", "normalizer", "lake", "dlq")


class Runbook:
    """A fleet that has read one file with known truth, and a shell."""

    def __init__(self, fleet: LocalFleet, shell: Shell, truth: Truth, more: Path, receiver: SpanReceiver) -> None:
        self.fleet, self._shell, self.truth, self.more, self.receiver = fleet, shell, truth, more, receiver

    def type(self, line: str) -> str:
        """A line of a runbook."""
        places = {HOST: self.fleet.url(), "<tenant>": self.fleet.name, "<source>": SOURCE}
        for written, here in places.items():
            line = line.replace(written, here)
        return self._shell.type(line)

    def type_json(self, line: str) -> Any:
        return json.loads(self.type(line))

    def pressure(self) -> dict[str, Any]:
        found: dict[str, Any] = self.type_json(f"curl -s {HOST}/health/detailed | jq '.backpressure'")
        return found

    def total(self, name: str, **labels: str) -> float:
        """-> sum of the samples with these labels, as `/metrics` tells them now."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.type(f"curl -s {HOST}/metrics"))
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def receiver() -> Iterator[SpanReceiver]:
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def otlp(receiver: SpanReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """-> where services send their spans: to the receiver, by way of a real collector where there is one."""
    with collecting(tmp_path_factory.mktemp("collector"), receiver.url) as url:
        yield url


@pytest.fixture(scope="module")
def runbook(
    make_fleet: Callable[..., LocalFleet], tmp_path_factory: pytest.TempPathFactory, receiver: SpanReceiver, otlp: str
) -> Runbook:
    folder = tmp_path_factory.mktemp("runbook")
    fleet = make_fleet(
        INGEST_PARTITIONS=str(PARTITIONS), OTEL_EXPORTER_OTLP_ENDPOINT=otlp, OTEL_BSP_SCHEDULE_DELAY="500"
    )
    config = {
        "sources": {SOURCE: fleet.source(tenant=fleet.name, route={"orders*.csv": DATASET})},
        "datasets": {DATASET: Rows().shape.spec},
    }
    fleet.up(config, "--replicas", "csv-parser=2")
    truth = generate(folder / "orders.csv", megabytes=8, seed=3, bad=0.001)
    generate(folder / "more.csv", megabytes=1, seed=4)
    fleet.upload("orders.csv", folder / "orders.csv")
    (found,) = fleet.settled(1).objects
    assert found.state is State.BALANCED
    fleet.quiet()
    return Runbook(fleet, Shell(fleet.tools, fleet.environ(), folder / "bin"), truth, folder / "more.csv", receiver)


def test_overall_health_as_typed(runbook: Runbook) -> None:
    found = runbook.type_json(f"curl -s {HOST}/health/detailed | jq")
    assert found["state"] == "ready"
    assert found["backpressure"]["state"] == "normal"
    services = {(one["sink"] or one["service"], one["replica"]) for one in found["services"]}
    assert services == {(name, "0") for name in NAMES} | {("csv-parser", "1")}
    for one in found["services"]:
        assert {"adapters", "backpressure"} <= set(one["health"]), one


def test_an_adapter_as_typed(runbook: Runbook) -> None:
    found = runbook.type_json(f"""curl -s {HOST}/health/detailed | jq '.adapters["s3-main"]'""")
    assert 0 <= found["lag_seconds"] < 60
    assert found["objects_found_total"] == 1
    assert {"s3-lister-0", "chunk-downloader-0", "normalizer-0", "lake-0"} <= set(found["lag_by_service"])
    assert set(runbook.type_json(f"curl -s {HOST}/health/detailed | jq '.adapters'")) == {SOURCE}


def test_nothing_lags_once_all_is_done(runbook: Runbook) -> None:
    line = f"curl -s {HOST}/health/detailed | \\\n  jq '.adapters | to_entries | .[] | select(.value.lag_seconds > 60)'"
    assert runbook.type(line) == ""


def test_metrics_have_the_runbooks_names_and_the_values_the_generator_knows(runbook: Runbook) -> None:
    truth, owned = runbook.truth, {"tenant": runbook.fleet.name, "source": SOURCE, "dataset": DATASET}
    good = truth.rows - len(truth.bad)
    assert runbook.total("ingest_records_total", **owned, stage="chunk-downloader", fate="emitted") == truth.rows
    assert runbook.total("ingest_records_total", **owned, stage="csv-parser", fate="emitted") == good
    assert runbook.total("ingest_records_total", **owned, stage="normalizer", fate="emitted") == truth.fresh
    assert runbook.total("ingest_records_total", **owned, stage="lake", fate="delivered") == truth.fresh
    assert runbook.total("ingest_dlq_total", **owned, stage="csv-parser", reason="VALIDATION_FAIL") == len(truth.bad)
    for name in ("dedupe_hits", "connectors_worker_dedupe_hits"):
        assert runbook.total(name, **owned) == truth.duplicates > 0
    assert runbook.total("ingest_lag_seconds_count", **owned, stage="lake") == truth.fresh
    assert runbook.total("ingest_lag_seconds_bucket", **owned, stage="lake", le="+Inf") == truth.fresh
    assert 0 < runbook.total("ingest_lag_seconds_sum", **owned, stage="lake") / truth.fresh < 300
    assert runbook.total("ingest_batch_seconds_count", stage="lake") > 0
    assert 0 < runbook.total("batch_latency_p95", stage="normalizer") < 60
    assert runbook.total("source_backlog") == runbook.total("connectors_worker_backlog_rows") == 0
    assert runbook.total("ingest_objects_found_total", source=SOURCE) == 1
    assert runbook.total("ingest_service_up") == len(runbook.fleet.processes())
    assert runbook.total("ingest_backpressure_state", state="normal") == len(runbook.fleet.processes())
    assert "ingest_retry_total" in runbook.type(f"curl -s {HOST}/metrics | grep ingest_retry_total")
    assert "connectors_worker_throughput_mb_per_s" in runbook.type(f"curl -s {HOST}/metrics")


def test_every_family_stands_once_with_one_type(runbook: Runbook) -> None:
    lines = runbook.type(f"curl -s {HOST}/metrics | grep '^# TYPE'").splitlines()
    types = defaultdict(list)
    for line in lines:
        _, _, name, kind = line.split()
        types[name].append(kind)
    assert {name: kinds for name, kinds in types.items() if len(kinds) > 1} == {}
    assert types["ingest_records_total"] == ["counter"]
    assert types["process_resident_memory_bytes"] == ["gauge"]


def test_checkpoint_and_consumer_groups_as_typed(runbook: Runbook) -> None:
    checkpoint = runbook.type_json('redis-cli GET "checkpoint:<tenant>:<source>"')
    assert checkpoint["version"] == 1 and checkpoint["snapshot"].startswith("s3://")
    group = runbook.fleet.platform().group("csv-parser")
    told = runbook.type(
        f"kafka-consumer-groups.sh --bootstrap-server $KAFKA_BOOTSTRAP_SERVERS \\\n  --describe --group {group}"
    )
    lags = re.findall(rf"^{group}\s+\S+blocks\s+\d+\s+\d+\s+\d+\s+(\d+)", told, re.MULTILINE)
    assert len(lags) == PARTITIONS, told
    assert set(lags) == {"0"}


def test_one_trace_leads_from_the_listing_to_parquet(runbook: Runbook) -> None:
    eventually(lambda: any(span.service == "ingest-lake" for span in runbook.receiver.spans))
    time.sleep(1)  # the others send every half a second, too
    known = runbook.receiver.by_id()
    (found,) = (span for span in known.values() if span.name == "s3-lister found")
    traced = [span for span in known.values() if span.trace == found.trace]
    written = [span for span in traced if (span.service, span.name) == ("ingest-lake", "parquet-sink process")]
    assert written

    def way(span: Received) -> list[str]:
        return [*(way(known[span.parent]) if span.parent else []), span.name]

    stages = ("chunk-downloader", "csv-parser", "normalizer")
    steps = [f"{stage} {what}" for stage in stages for what in ("process", "step")]
    assert way(written[0]) == ["s3-lister found", *steps, "parquet-sink process"]
    assert {span.service for span in traced} == {f"ingest-{name}" for name in NAMES}, "dead letters are in it, too"


def test_drain_finishes_and_takes_nothing_new_until_resumed(runbook: Runbook) -> None:
    fleet = runbook.fleet
    fleet.upload("orders-2.csv", runbook.truth.path)  # the same rows once more
    eventually(lambda: runbook.total("ingest_objects_found_total") == 2)
    for _ in range(2):
        assert runbook.type_json(f"curl -s -X POST {HOST}/admin/drain")["backpressure"]["state"] == "drain"
    eventually(lambda: runbook.pressure()["drained"])
    assert set(runbook.pressure()["services"].values()) == {"drain"}
    assert runbook.total("ingest_backpressure_state", state="drain") == len(fleet.processes())
    killed = {label: fleet.kill(label) for label in ("chunk-downloader-0", "s3-lister-0")}
    for label, pid in killed.items():
        fleet.await_restart(label, pid)
    eventually(lambda: runbook.pressure()["drained"])
    before = runbook.total("ingest_commits_total", outcome="committed")
    fleet.upload("orders-3.csv", runbook.more)
    time.sleep(4)  # several polls of the lister
    assert runbook.total("ingest_commits_total", outcome="committed") == before
    assert runbook.total("ingest_objects_found_total") == 0, "the lister started anew and has found nothing"
    assert runbook.pressure()["in_flight"] == 0
    for _ in range(2):
        assert runbook.type_json(f"curl -s -X POST {HOST}/admin/resume")["backpressure"]["state"] == "normal"
    found = fleet.settled(3).objects
    assert {o.state for o in found} == {State.BALANCED}
    assert runbook.pressure()["drained"] is False
    fleet.down()


def eventually(check: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.2)
