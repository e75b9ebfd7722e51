"""The Parquet sink on a real S3 server: conditional writes under contention, and an independent reader."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from ingestcore.stage import Input
from ingestcore.stores.objects import Refused
from ingestcore.stores.s3 import S3Store, open_store
from ingestcore.testing import lake
from ingestcore.testing.sink_world import ORDERS, SinkWorld, dead_letter, normalized, object_facts, rows_input
from services.parquet_sink import wiring
from services.parquet_sink.claim import Layout
from services.parquet_sink.claims import ClaimLog
from services.parquet_sink.settings import ParquetSinkSettings
from services.parquet_sink.stage import ParquetSink

pytestmark = pytest.mark.integration

WRITERS, CLAIMS = 6, 8


@pytest.fixture
def store(endpoints: dict[str, str]) -> S3Store:
    return open_store(os.environ["S3_ENDPOINT_URL"])


@pytest.fixture
def bucket(endpoints: dict[str, str]) -> str:
    from devstack.seaweedfs import create_bucket

    name = f"sink-{time.time_ns()}"
    create_bucket(keys(endpoints), name)
    return name


def keys(environ: dict[str, str]) -> dict[str, str]:
    return {
        "s3": environ["S3_ENDPOINT_URL"],
        "s3_access_key": environ["AWS_ACCESS_KEY_ID"],
        "s3_secret_key": environ["AWS_SECRET_ACCESS_KEY"],
        "s3_region": environ.get("AWS_REGION", "us-east-1"),
    }


@pytest.fixture
def world(tmp_path: Path, store: S3Store, bucket: str) -> SinkWorld:
    world = SinkWorld(tmp_path / "state", {0: [rows_input(n) for n in range(6)]})
    world.bucket = store  # type: ignore[assignment]
    world.specs.parquet["uri"] = f"s3://{bucket}/lake/"
    return world


def open_sink(world: SinkWorld) -> ParquetSink:
    return world.opened(wiring.open_sink, ParquetSinkSettings())


def deliver(sink: ParquetSink, inputs: list[Input]) -> int:
    """-> inputs finished."""
    steps = [step for input in inputs for step in sink.process(input, None) if step]
    return sum(len(step.covers) for step in [*steps, *sink.settle(final=True)])


def test_one_of_many_writers_wins_each_entry(store: S3Store, bucket: str) -> None:
    """All claim the same offsets at once, over and over: no offset is claimed twice, none is left out."""
    layout = Layout(f"s3://{bucket}/", 100, "lake", "normalized")

    def claim_all(writer: int) -> int:
        log, won = ClaimLog(store, bucket, "", "id/0"), 0
        log.load()
        for start in range(0, CLAIMS * 10, 10):
            while free := [o for o in range(start, start + 10 + writer) if log.covering(o) is None]:
                won += log.add(free, layout) is not None
        return won

    with ThreadPoolExecutor(WRITERS) as writers:
        won = sum(writers.map(claim_all, range(WRITERS)))
    log = ClaimLog(store, bucket, "", "id/0")
    log.load()
    assert len(log.claims) == won
    assert sorted(o for claim in log.claims for o in claim.offsets) == list(range(log.claims[-1].offsets.last + 1))


def test_rows_are_read_back_by_duckdb_and_a_reset_changes_nothing(
    world: SinkWorld, endpoints: dict[str, str], bucket: str
) -> None:
    inputs = world.topics.inputs[0]
    assert deliver(open_sink(world), inputs) == 6
    files = sorted((e.key, e.etag, e.last_modified) for e in world.bucket.list(bucket, "lake/orders/"))
    assert deliver(open_sink(world), inputs) == 6
    assert sorted((e.key, e.etag, e.last_modified) for e in world.bucket.list(bucket, "lake/orders/")) == files
    connection = lake.connect(SimpleNamespace(**keys(endpoints)))
    found = lake.rows(connection, f"s3://{bucket}/lake/", "orders")
    assert found.aggregate("count(*), count(distinct id), max(_row)").fetchall() == [(60, 60, 5009)]
    assert found.project("_provenance.sourceUri, tenant, ingest_date::varchar").distinct().fetchall() == [
        ("s3://bucket/raw/orders.csv", "default", "2023-11-14")
    ]


def test_versions_of_a_dataset_are_one_table(world: SinkWorld, endpoints: dict[str, str], bucket: str) -> None:
    newer = object_facts("orders2.csv", dataset="orders@2")
    columns = pa.table({"id": pa.array([7, 8], pa.int64()), "text": ["y", "z"], "extra": [True, None]})
    assert deliver(open_sink(world), [rows_input(0), normalized(1, columns, [newer])]) == 2
    connection = lake.connect(SimpleNamespace(**keys(endpoints)))
    found = lake.rows(connection, f"s3://{bucket}/lake/", "orders")
    assert found.aggregate("count(*), count(extra), count(text)").fetchall() == [(12, 1, 12)]


def test_owners_that_believe_to_be_the_only_one_write_every_row_once(
    world: SinkWorld, endpoints: dict[str, str], bucket: str
) -> None:
    """Four owners of one partition at the same time, each with the same records in hand."""
    sinks = [open_sink(world) for _ in range(4)]
    inputs = world.topics.inputs[0]
    with ThreadPoolExecutor(4) as owners:
        done = list(owners.map(lambda n: deliver(sinks[n], inputs[: 6 - n]), range(4)))
    assert done == [6, 5, 4, 3]
    connection = lake.connect(SimpleNamespace(**keys(endpoints)))
    found = lake.rows(connection, f"s3://{bucket}/lake/", "orders")
    assert found.aggregate("count(*), count(distinct id)").fetchall() == [(60, 60)]


def test_dead_letters_are_read_back_with_their_bytes(world: SinkWorld, endpoints: dict[str, str], bucket: str) -> None:
    world.specs.more = {"from": "dlq"}
    raw = b'1,"\xff\x00'
    letters = [dead_letter(n, raw, ORDERS, row=row) for n, row in enumerate((1, 2, 1))]
    assert deliver(open_sink(world), letters) == 3
    assert deliver(open_sink(world), [dead_letter(3, raw, ORDERS, row=2)]) == 1
    connection = lake.connect(SimpleNamespace(**keys(endpoints)))
    found = lake.rows(connection, f"s3://{bucket}/lake/", "dlq").project(
        '"row", raw, reason, tenant, _provenance.purpose'
    )
    assert sorted(found.fetchall()) == [(n, raw, "VALIDATION_FAIL", "default", "test") for n in (1, 2)]


def test_a_missing_bucket_is_one_clear_message(world: SinkWorld) -> None:
    world.specs.parquet["uri"] = "s3://nobody-made-this/"
    with pytest.raises(Refused, match="nobody-made-this"):
        open_sink(world)
