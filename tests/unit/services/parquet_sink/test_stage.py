"""The Parquet sink as the runtime meets it: what it holds, when it writes, what the files are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from ingestcore.stage import Fate
from ingestcore.stores.objects import Refused
from ingestcore.testing.by_hand import fates, feed, offsets, settle
from ingestcore.testing.sink_world import NOON_MS, ORDERS, SinkWorld, normalized, object_facts, rows_input
from services.parquet_sink import wiring
from services.parquet_sink.settings import ParquetSinkSettings
from services.parquet_sink.stage import ParquetSink


def open_sink(world: SinkWorld, **settings: Any) -> ParquetSink:
    return world.opened(wiring.open_sink, ParquetSinkSettings(**settings))


@pytest.fixture
def world(tmp_path: Path) -> SinkWorld:
    return SinkWorld(tmp_path / "state", {0: [rows_input(offset) for offset in range(6)], 1: []})


# -- holding and writing


def test_inputs_are_held_until_they_are_due(world: SinkWorld) -> None:
    sink = open_sink(world)
    assert feed(sink, *world.topics.inputs[0]) == []
    assert settle(sink) == []
    assert world.bucket.keys("claims") == []


@pytest.mark.parametrize(
    ("parquet", "settings", "waits", "final", "written"),
    [
        ({}, {}, 29.9, False, False),
        ({}, {}, 30.0, False, True),
        ({"max_bytes": 10}, {}, 0.0, False, True),
        ({}, {"held_bytes": 10}, 0.0, False, True),
        ({}, {}, 0.0, True, True),
    ],
    ids=["young and small", "max_age", "max_bytes", "too much held altogether", "the partitions leave"],
)
def test_what_makes_a_file(
    world: SinkWorld, parquet: dict[str, Any], settings: dict[str, Any], waits: float, final: bool, written: bool
) -> None:
    world.specs.parquet |= parquet
    sink = open_sink(world, **settings)
    feed(sink, *world.topics.inputs[0])
    world.now_seconds += waits
    assert offsets(settle(sink, final=final)) == ([0, 1, 2, 3, 4, 5] if written else [])
    assert bool(world.files()) == written


def test_a_shorter_max_age_applies_to_what_is_held_already(world: SinkWorld) -> None:
    sink = open_sink(world)
    feed(sink, *world.topics.inputs[0])
    world.now_seconds += 5
    world.specs.parquet["max_age"] = "5s"
    assert offsets(settle(sink)) == [0, 1, 2, 3, 4, 5]


def test_too_much_held_writes_the_largest_partitions_first(tmp_path: Path) -> None:
    sizes = {0: 100, 1: 3000, 2: 200}
    world = SinkWorld(tmp_path / "state", {p: [rows_input(0, n, partition=p)] for p, n in sizes.items()})
    sink = open_sink(world, held_bytes=100_000)
    feed(sink, *(inputs[0] for inputs in world.topics.inputs.values()))
    assert [step.covers[0].partition for step in settle(sink)] == [1]


def test_one_step_tells_of_every_row_and_object(world: SinkWorld) -> None:
    other = object_facts("more.csv", tenant="acme")
    columns = pa.table({"id": pa.array(range(4), pa.int64()), "text": ["x"] * 4})
    sink = open_sink(world)
    feed(sink, rows_input(0), normalized(1, columns, [ORDERS, other], which=[0, 1, 1, 1]))
    (step,) = settle(sink, final=True)
    assert Counter(
        (line.at.offset, line.origin.uri, line.origin.tenant, line.fate, line.rows) for line in step.tally
    ) == {
        (0, "s3://bucket/raw/orders.csv", "default", Fate.DELIVERED, 10): 1,
        (1, "s3://bucket/raw/orders.csv", "default", Fate.DELIVERED, 1): 1,
        (1, "s3://bucket/raw/more.csv", "acme", Fate.DELIVERED, 3): 1,
    }


def test_files_are_named_by_table_tenant_date_and_coordinates(world: SinkWorld) -> None:
    acme, other = object_facts("a", tenant="acme"), object_facts("b", dataset="visits@3")
    columns = pa.table({"id": pa.array(range(2), pa.int64()), "text": ["x"] * 2})
    sink = open_sink(world)
    feed(
        sink,
        rows_input(4),
        normalized(7, columns, [ORDERS, acme], which=[0, 1]),
        normalized(8, columns, [other], timestamp_ms=NOON_MS + 86_400_000),
    )
    settle(sink, final=True)
    span = "topic-id-0-00000000000000000004-00000000000000000008"
    assert list(world.files()) == [
        f"lake/orders/tenant=acme/ingest_date=2023-11-14/{span}-v1.parquet",
        f"lake/orders/tenant=default/ingest_date=2023-11-14/{span}-v1.parquet",
        f"lake/visits/tenant=default/ingest_date=2023-11-15/{span}-v3.parquet",
    ]


def test_a_claim_records_the_offsets_and_the_layout_and_its_mark_the_files(world: SinkWorld) -> None:
    sink = open_sink(world)
    feed(sink, rows_input(0), rows_input(1), rows_input(5))
    settle(sink, final=True)
    folder = "lake/_ingest/claims/topic-id/0/"
    assert list(world.bucket.keys("claims")) == [f"{folder}00000000.done", f"{folder}00000000.json"]
    assert orjson.loads(world.bucket.objects[f"{folder}00000000.json"]) == {
        "first": 0,
        "last": 5,
        "offsets": [[0, 1], [5, 5]],
        "layout": {"uri": "s3://out/lake/", "batch_size": 131_072, "sink": "lake", "source": "normalized", "format": 1},
    }
    (file,) = world.files()
    done = orjson.loads(world.bucket.objects[f"{folder}00000000.done"])
    assert done == {"files": [{"key": file, "rows": 30}], "rows": 30, "letters": 0}


def test_empty_inputs_make_no_file_and_no_claim(world: SinkWorld) -> None:
    sink = open_sink(world)
    assert offsets(feed(sink, rows_input(0, rows=0))) == [0]
    assert settle(sink, final=True) == []
    assert not world.bucket.objects


def test_datasets_the_sink_is_not_for_are_passed_through(world: SinkWorld) -> None:
    world.specs.more = {"datasets": ["visits"]}
    sink = open_sink(world)
    assert fates(feed(sink, rows_input(0))) == {Fate.NOT_FOR_US: 10}


def test_an_input_that_needs_no_writing_waits_for_the_ones_held_below_it(world: SinkWorld) -> None:
    world.specs.more = {"datasets": ["orders"]}
    columns = pa.table({"id": pa.array(range(4), pa.int64())})
    sink = open_sink(world)
    assert (
        feed(sink, rows_input(0), normalized(1, columns, [object_facts("b", dataset="visits@3")]), rows_input(2)) == []
    )
    steps = settle(sink, final=True)
    assert offsets(steps) == [0, 1, 2]
    assert fates(steps) == {Fate.DELIVERED: 20, Fate.NOT_FOR_US: 4}
    claim = orjson.loads(world.bucket.objects["lake/_ingest/claims/topic-id/0/00000000.json"])
    assert claim["offsets"] == [[0, 0], [2, 2]]


# -- rollback and rebalance


@pytest.mark.parametrize("leave", ["aborted", "revoked", "assigned"])
def test_what_is_held_is_forgotten_and_read_again(world: SinkWorld, leave: str) -> None:
    sink = open_sink(world)
    feed(sink, *world.topics.inputs[0])
    calls: dict[str, Callable[[], None]] = {
        "aborted": sink.aborted,
        "revoked": lambda: sink.revoked([0]),
        "assigned": lambda: sink.assigned([0]),
    }
    calls[leave]()
    assert sink.status()["held_rows"] == 0
    assert world.temporary() == []
    assert settle(sink, final=True) == []


def test_revoking_one_partition_keeps_what_is_held_of_others(tmp_path: Path) -> None:
    world = SinkWorld(tmp_path / "state", {0: [rows_input(0)], 1: [rows_input(0, partition=1)]})
    sink = open_sink(world)
    feed(sink, world.topics.inputs[0][0], world.topics.inputs[1][0])
    sink.revoked([0])
    assert [step.covers[0].partition for step in settle(sink, final=True)] == [1]


def test_temporary_files_are_on_disk_not_in_memory(world: SinkWorld) -> None:
    world.specs.parquet["batch_size"] = 10
    sink = open_sink(world)
    feed(sink, *world.topics.inputs[0])
    (temporary,) = world.temporary()
    assert temporary.suffix == ".tmp"


# -- settings


def test_another_uri_is_used_after_what_is_held_went_to_the_old_one(world: SinkWorld) -> None:
    sink = open_sink(world)
    feed(sink, rows_input(0))
    world.specs.parquet["uri"] = "s3://out/new/"
    feed(sink, rows_input(1))
    assert offsets(settle(sink)) == [0, 1]
    feed(sink, rows_input(2))
    settle(sink, final=True)
    assert [len(world.bucket.keys(f"{place}/orders/")) for place in ("lake", "new")] == [1, 1]
    assert len(world.bucket.keys("new/_ingest/claims")) == 2
    assert sink.status()["uri"] == "s3://out/new/"


def test_a_bad_new_uri_is_said_and_nothing_is_lost(world: SinkWorld) -> None:
    sink = open_sink(world)
    world.specs.parquet["uri"] = "s3://away/new/"
    world.bucket.missing = True
    with pytest.raises(Refused, match="bucket away does not exist"):
        feed(sink, rows_input(0))
    world.specs.parquet["uri"] = "s3://out/lake/"
    feed(sink, rows_input(0))
    assert offsets(settle(sink, final=True)) == [0]


def test_a_sink_removed_from_the_configuration_finishes_what_it_holds(world: SinkWorld) -> None:
    sink = open_sink(world)
    feed(sink, rows_input(0))
    world.specs.removed = True
    feed(sink, rows_input(1))
    assert offsets(settle(sink, final=True)) == [0, 1]


def test_a_missing_bucket_is_refused_at_start(world: SinkWorld) -> None:
    world.bucket.missing = True
    with pytest.raises(Refused, match="bucket out does not exist"):
        open_sink(world)


def test_status_says_what_is_held_and_written(world: SinkWorld) -> None:
    sink = open_sink(world)
    feed(sink, *world.topics.inputs[0][:2])
    world.now_seconds += 4
    status = sink.status()
    assert (status["held_rows"], status["oldest_seconds"], status["claims_written"]) == (20, 4.0, 0)
    assert status["held_bytes"] == sum(len(input.value) for input in world.topics.inputs[0][:2])
    settle(sink, final=True)
    assert sink.status()["claims_written"] == 1
