"""What stands in the Parquet files of rows: columns, types, row groups, footers, whatever the inputs were cut like."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestcore.messages.objects import ObjectFacts
from ingestcore.messages.rows import PROVENANCE_TYPE
from ingestcore.stage import Fate, Input
from ingestcore.testing.sink_world import SinkWorld, normalized, object_facts
from services.parquet_sink import wiring
from services.parquet_sink.files import Buffers, FileOptions
from services.parquet_sink.rows import RowsContent, RowsEncoder
from services.parquet_sink.settings import ParquetSinkSettings
from services.parquet_sink.writing import Writing

ORDERS = object_facts("orders.csv")
TYPED = pa.table(
    {
        "name": pa.array(["a", "", None, "ünï\n", "x" * 300]),
        "whole": pa.array([1, -(2**62), None, 0, 5], pa.int64()),
        "number": pa.array([1.5, None, -0.0, 1e300, 2.0]),
        "yes": pa.array([True, None, False, True, True]),
        "day": pa.array([date(2023, 1, 2), None, date(1, 1, 1), date(9999, 12, 31), date(2023, 1, 2)]),
        "at": pa.array([datetime(2023, 1, 2, 3, 4, 5, 678901, UTC)] * 4 + [None], pa.timestamp("us", "UTC")),
    }
)


def write(world: SinkWorld, *inputs: Input, batch_size: int = 131_072, **settings: Any) -> dict[str, bytes]:
    """-> files by key, all inputs in one claim."""
    world.specs.parquet["batch_size"] = batch_size
    sink = wiring.open_sink(world.context(ParquetSinkSettings(**settings)), clock=world.clock)
    sink.assigned([0])
    for input in inputs:
        assert list(sink.process(input, None)) == []
    for step in sink.settle(final=True):
        assert {line.fate for line in step.tally} == {Fate.DELIVERED}
    return world.files()


@pytest.fixture
def world(tmp_path: Path) -> SinkWorld:
    return SinkWorld(tmp_path / "state", {0: []})


def read(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def only(files: dict[str, bytes]) -> bytes:
    (data,) = files.values()
    return data


def test_columns_are_the_datasets_in_order_then_provenance_and_row(world: SinkWorld) -> None:
    table = read(only(write(world, normalized(0, TYPED, [ORDERS], first_row=7))))
    own = table.select(TYPED.column_names)
    assert own.schema.remove_metadata() == TYPED.schema
    assert own.to_pylist() == TYPED.to_pylist()
    assert table.column_names == [*TYPED.column_names, "_provenance", "_row"]
    assert table.schema.field("_provenance").type == PROVENANCE_TYPE
    assert table["_row"].to_pylist() == [7, 8, 9, 10, 11]


def test_provenance_is_the_rows_own_object(world: SinkWorld) -> None:
    facts = [ORDERS, object_facts("b.csv"), object_facts("c.csv")]
    which = [2, 0, 1, 1, 2]
    table = read(only(write(world, normalized(0, TYPED, facts, which=which))))
    entries = table["_provenance"].to_pylist()
    assert [entry["sourceUri"] for entry in entries] == [facts[n].uri for n in which]
    assert [entry["contentHash"] for entry in entries] == [f"{n:064x}" for n in which]
    assert entries[0]["transformations"] == ["csv-parse:orders@1", "dedupe"]
    assert entries[0]["observedAt"] is None


def test_timestamps_are_microseconds_in_utc_for_every_reader(world: SinkWorld) -> None:
    file = pq.ParquetFile(io.BytesIO(only(write(world, normalized(0, TYPED, [ORDERS])))))
    logical = next(c.logical_type for c in map(file.schema.column, range(len(TYPED.column_names))) if c.name == "at")
    assert str(logical).replace(" ", "").startswith("Timestamp(isAdjustedToUTC=true,timeUnit=microseconds")


def test_the_footer_says_where_the_rows_come_from(world: SinkWorld) -> None:
    inputs = [normalized(offset, TYPED, [ORDERS]) for offset in (3, 4, 9)]
    metadata = pq.ParquetFile(io.BytesIO(only(write(world, *inputs)))).metadata.metadata
    assert metadata == {
        b"ingest.format": b"1",
        b"ingest.dataset": b"orders@1",
        b"ingest.topic": b"normalized",
        b"ingest.topic_id": b"topic-id",
        b"ingest.partition": b"0",
        b"ingest.first_offset": b"3",
        b"ingest.last_offset": b"9",
    }


@pytest.mark.parametrize(
    ("rows", "batch_size", "row_group_bytes", "groups"),
    [
        ([10, 10, 10], 100, 1 << 20, [30]),
        ([10, 10, 10], 20, 1 << 20, [20, 10]),
        ([10, 15, 10], 20, 1 << 20, [10, 15, 10]),
        ([45], 20, 1 << 20, [20, 20, 5]),
        ([10, 10, 10], 100, 1, [10, 10, 10]),
        ([1] * 40, 100, 1 << 20, [40]),
    ],
    ids=["one group", "full", "an input is not split for the next group", "large input", "bytes", "many small inputs"],
)
def test_row_groups_hold_at_most_batch_size_rows(
    world: SinkWorld, rows: Sequence[int], batch_size: int, row_group_bytes: int, groups: Sequence[int]
) -> None:
    inputs = [normalized(n, pa.table({"id": list(range(count))}), [ORDERS]) for n, count in enumerate(rows)]
    data = only(write(world, *inputs, batch_size=batch_size, row_group_bytes=row_group_bytes))
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == list(groups)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_compressed_messages_are_read(world: SinkWorld, compression: str | None) -> None:
    assert read(only(write(world, normalized(0, TYPED, [ORDERS], compression=compression)))).num_rows == 5


def test_objects_of_one_version_may_differ_in_columns(world: SinkWorld) -> None:
    """A dataset without fields takes the columns of each object's header."""
    files = write(
        world,
        normalized(0, pa.table({"a": ["1"], "b": ["2"]}), [ORDERS]),
        normalized(1, pa.table({"a": ["3"]}), [object_facts("short.csv")]),
        normalized(2, pa.table({"a": ["4"], "b": ["5"]}), [ORDERS]),
    )
    assert len({key.rpartition("-")[0] for key in files}) == 1
    assert sorted(read(data)["a"].to_pylist() for data in files.values()) == [["1", "4"], ["3"]]


def test_a_message_of_many_tenants_is_parted(world: SinkWorld) -> None:
    facts = [object_facts("a", tenant=tenant) for tenant in ("acme", "default", "acme")]
    files = write(world, normalized(0, pa.table({"id": list(range(6))}), facts, which=[0, 1, 2, 1, 0, 2]))
    assert {key.split("/")[2]: read(data)["id"].to_pylist() for key, data in files.items()} == {
        "tenant=acme": [0, 2, 4, 5],
        "tenant=default": [1, 3],
    }


def test_names_never_become_paths(world: SinkWorld) -> None:
    (key,) = write(world, normalized(0, TYPED, [object_facts("a", tenant="../x", dataset="o/../p@1")]))
    assert key.startswith("lake/o%2F..%2Fp/tenant=..%2Fx/ingest_date=")


@pytest.mark.parametrize("name", ["a.b", "with space", "ünï", "_provenance2", 'quo"te', "list.element"])
def test_any_column_name_is_kept(world: SinkWorld, name: str) -> None:
    assert read(only(write(world, normalized(0, pa.table({name: ["1", None]}), [ORDERS]))))[name].to_pylist() == [
        "1",
        None,
    ]


@pytest.mark.parametrize("seed", range(10))
def test_rows_are_the_same_however_they_are_cut(tmp_path: Path, seed: int) -> None:
    """Random inputs of random tables, tenants, days and sizes, under random limits, against plain lists."""
    random = np.random.default_rng(seed)
    expected: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    inputs = [random_input(random, offset, expected) for offset in range(40)]
    world = SinkWorld(tmp_path / "state", {0: inputs})
    limits = {"row_group_bytes": int(random.choice([1, 5000, 1 << 20])), "buffer_bytes": int(random.choice([1, 20000]))}
    files = write(world, *inputs, batch_size=int(random.integers(1, 60)), **limits)
    found: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for key, data in files.items():
        _, table, tenant, _, _ = key.split("/")
        rows = read(data).to_pylist()
        assert rows, "no file is empty"
        found.setdefault((table, tenant), []).extend(
            (row["id"], row["text"], row["_row"], row["_provenance"]["sourceUri"]) for row in rows
        )
    assert {place: Counter(rows) for place, rows in found.items()} == {
        place: Counter(rows) for place, rows in expected.items()
    }


def random_input(
    random: np.random.Generator, offset: int, expected: dict[tuple[str, str], list[tuple[Any, ...]]]
) -> Input:
    rows, dataset = int(random.integers(1, 30)), f"d{random.integers(2)}@{random.integers(1, 3)}"
    facts: list[ObjectFacts] = [
        object_facts(f"o{random.integers(5)}", tenant=f"t{random.integers(2)}", dataset=dataset) for _ in range(3)
    ]
    which = random.integers(0, 3, rows)
    text = [None if n == 0 else "x" * n for n in random.integers(0, 5, rows)]
    for i, n in enumerate(which):
        place = (dataset.partition("@")[0], f"tenant={facts[n].tenant}")
        expected.setdefault(place, []).append((offset * 100 + i, text[i], i + 1, facts[n].uri))
    columns = pa.table({"id": [offset * 100 + i for i in range(rows)], "text": pa.array(text, pa.string())})
    return normalized(offset, columns, facts, which=which.tolist(), timestamp_ms=int(random.integers(0, 2**41)))


@pytest.mark.parametrize("make", [lambda n: pa.table({f"c{i}": ["x" * 10] * 20 for i in range(n)})], ids=["text"])
@pytest.mark.parametrize("columns", [1, 100])
def test_buffered_rows_stay_within_the_limit(tmp_path: Path, make: Callable[[int], pa.Table], columns: int) -> None:
    limit = 1 << 20
    buffers, content = Buffers(limit), RowsContent()
    writing = Writing(content, 131_072, FileOptions(tmp_path, 32 << 20, 1), buffers)
    table = make(columns)
    for offset in range(60):
        input = normalized(offset, table, [object_facts("a", dataset=f"d{offset % 10}@1")])
        writing.add(input, content.read(input))
        assert buffers.nbytes <= limit
    writing.discard()
    assert buffers.nbytes == 0
    assert list(tmp_path.iterdir()) == []


def test_gathering_small_pieces_changes_nothing() -> None:
    content, encoder = RowsContent(), RowsEncoder()
    items = [
        content.read(normalized(n, TYPED, [object_facts(f"o{n % 3}")], first_row=n * 10)).pieces[0].item
        for n in range(8)
    ]
    assert encoder.table(encoder.gather(items)).to_pylist() == encoder.table(items).to_pylist()


def test_inputs_that_are_no_rows_are_the_runtimes_to_isolate() -> None:
    with pytest.raises(ValueError, match="not an Arrow IPC stream"):
        RowsContent().read(Input(normalized(0, TYPED, [ORDERS]).at, b"nonsense", {"dataset": "orders@1"}))
