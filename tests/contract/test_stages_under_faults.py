"""Every stage keeps the contract: whatever is aborted, killed and resumed, the same rows come out, once.

Stages are built by their own `SERVICE.build`, over an object store in memory and topics made of what was committed.
"""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from devstack import Stack
from ingestcore.messages import rows
from ingestcore.stage import Emit, Input
from ingestcore.testing.database_world import DatabaseWorld
from ingestcore.testing.harness import Committed, drive
from ingestcore.testing.seeds import seeds
from ingestcore.testing.stage_chain import SETTINGS, Chain, World, registry


def letters(run: Committed) -> collections.Counter[Any]:
    return collections.Counter(
        (r.origin.id, r.reason, r.facts.get("row"), r.facts.get("byte_first"), r.raw) for r in run.rejects
    )


def fates(run: Committed) -> collections.Counter[Any]:
    counted: collections.Counter[Any] = collections.Counter()
    for line in run.tally:
        counted[line.origin.uri, line.fate, "rows"] += line.rows
        counted[line.origin.uri, line.fate, "bytes"] += line.nbytes
    return +counted


def table(emits: list[Emit], topic: str, drop: tuple[str, ...] = ()) -> collections.Counter[Any]:
    found: collections.Counter[Any] = collections.Counter()
    for emit in emits:
        if emit.topic == topic:
            batch = rows.read(bytes(emit.value))
            plain = [c.dictionary_decode() if isinstance(c, pa.DictionaryArray) else c for c in batch.columns]
            names = [n for n in batch.schema.names if n not in drop]
            columns = [plain[batch.schema.get_field_index(n)].to_pylist() for n in names]
            found.update((emit.partition, emit.headers["dataset"], repr(row)) for row in zip(*columns, strict=True))
    return found


@pytest.mark.parametrize("seed", seeds(3, 20))
def test_downloader(chain: Chain, tmp_path: Path, seed: int) -> None:
    make = World(tmp_path, seed).maker(
        "chunk-downloader", chain.inputs["chunk-downloader"], **SETTINGS["chunk-downloader"]
    )
    calm = chain.committed["chunk-downloader"]
    stormy = drive(make, chain.inputs["chunk-downloader"], seed)

    def blocks(run: Committed) -> collections.Counter[Any]:
        return collections.Counter(
            (e.key, bytes(e.value), e.rows, e.partition, tuple(sorted(e.headers.items()))) for e in run.emits
        )

    assert blocks(stormy) == blocks(calm)
    assert letters(stormy) == letters(calm)
    assert fates(stormy) == fates(calm)
    assert len(calm.emits) > 10


@pytest.mark.parametrize("seed", seeds(3, 20))
def test_parser(chain: Chain, tmp_path: Path, seed: int) -> None:
    make = World(tmp_path, seed).maker("csv-parser", chain.inputs["csv-parser"], **SETTINGS["csv-parser"])
    calm = chain.committed["csv-parser"]
    stormy = drive(make, chain.inputs["csv-parser"], seed)
    assert table(stormy.emits, "typed") == table(calm.emits, "typed")
    assert letters(stormy) == letters(calm)
    assert fates(stormy) == fates(calm)
    assert sum(letters(calm).values()) > 150


@pytest.mark.parametrize("seed", seeds(3, 20))
def test_event_parser(chain: Chain, tmp_path: Path, seed: int) -> None:
    make = World(tmp_path, seed).maker("event-parser", chain.inputs["event-parser"], **SETTINGS["event-parser"])
    calm = chain.committed["event-parser"]
    stormy = drive(make, chain.inputs["event-parser"], seed)
    assert table(stormy.emits, "typed") == table(calm.emits, "typed")
    assert letters(stormy) == letters(calm)
    assert fates(stormy) == fates(calm)
    promised = sum(len(many) for many in chain.inputs["event-parser"].values())
    assert sum(line.rows for line in stormy.tally) == promised == 900
    assert letters(calm).total() == sum(i.value.startswith(b'{"payment": {"id": 1') for i in all_of(chain)) > 30


def all_of(chain: Chain) -> list[Input]:
    return [input for many in chain.inputs["event-parser"].values() for input in many]


@pytest.mark.parametrize("seed", seeds(3, 20))
def test_normalizer(chain: Chain, tmp_path: Path, seed: int) -> None:
    make = World(tmp_path, seed).maker("normalizer", chain.inputs["normalizer"], **SETTINGS["normalizer"])
    calm = chain.committed["normalizer"]
    stormy = drive(make, chain.inputs["normalizer"], seed, fault_rate=0.1)
    # Of rows with one key exactly one is published, which one is open: their place may differ.
    place = (rows.ROW, rows.OBJECT, rows.PROVENANCE)
    published = table(stormy.emits, "normalized", place)
    assert published == table(calm.emits, "normalized", place)
    assert max(published.values()) == 1
    changelog = b"".join(bytes(e.value) for e in stormy.emits if e.topic == "dedupe-changelog")
    keys = [changelog[i : i + 16] for i in range(0, len(changelog), 16)]
    assert len(keys) == len(set(keys)) == published.total()


@pytest.mark.parametrize("seed", seeds(3, 20))
def test_parquet_sink(chain: Chain, tmp_path: Path, seed: int) -> None:
    """Also reset to earliest and run again with other settings: the same files, byte for byte."""
    inputs = chain.inputs["parquet-sink"]
    world = World(tmp_path, seed)
    stormy = drive(world.maker("parquet-sink", inputs, **SETTINGS["parquet-sink"]), inputs, seed, fault_rate=0.1)
    files = {e.key: e.etag for e in world.store.list("out", "x/")}
    again = drive(world.maker("parquet-sink", inputs, row_group_bytes=10_000), inputs, seed + 1, fault_rate=0.1)
    assert {e.key: e.etag for e in world.store.list("out", "x/")} == files
    delivered: collections.Counter[str] = collections.Counter()
    for key in files:
        if key.endswith(".parquet"):
            read = pq.read_table(pa.BufferReader(world.store.get("out", key)), partitioning=None)
            columns = [c for c in read.schema.names if not c.startswith("_")]
            dataset = key.split("/")[1]
            delivered.update(f"{dataset} {row}" for row in read.select(columns).to_pylist())
    wanted: collections.Counter[str] = collections.Counter()
    for many in inputs.values():
        for input in many:
            batch = rows.read(input.value)
            columns = [c for c in batch.schema.names if not c.startswith("_")]
            dataset = input.headers["dataset"].rpartition("@")[0]
            wanted.update(f"{dataset} {row}" for row in batch.select(columns).to_pylist())
    assert delivered == wanted
    promised = sum(i.rows or 0 for many in inputs.values() for i in many)
    assert sum(line.rows for line in stormy.tally) == promised
    assert sum(line.rows for line in again.tally) == promised


@pytest.mark.parametrize("seed", seeds(2, 8))
def test_postgres_sink(chain: Chain, tmp_path: Path, postgres: Stack, seed: int) -> None:
    """On a real database. Also reset to earliest and run again with other batches: nothing is written."""
    inputs, database = chain.inputs["parquet-sink"], DatabaseWorld(postgres.endpoints.postgres)
    reads = "SELECT id, amount, note, _row, xmin::text FROM orders", "SELECT level, text, _row, xmin::text FROM logs"
    runs, found = [], []
    for again, batch_size in enumerate((700, 5_000)):
        specs = registry()
        specs.feed("sink/warehouse", orjson.dumps({"postgres": {**database.spec, "batch_size": batch_size}}))
        make = World(tmp_path / str(again), seed).maker("postgres-sink", inputs, sink="warehouse", specs=specs)
        runs.append(drive(make, inputs, seed + again, fault_rate=0.1))
        found.append([sorted(database.sql(read)) for read in reads])
    assert found[1] == found[0]
    wanted: collections.defaultdict[str, list[tuple[Any, ...]]] = collections.defaultdict(list)
    for many in inputs.values():
        for input in many:
            batch = rows.read(input.value)
            columns = [c for c in batch.schema.names if not c.startswith("_")]
            values = [batch.column(c).to_pylist() for c in (*columns, rows.ROW)]
            wanted[input.headers["dataset"].rpartition("@")[0]] += zip(*values, strict=True)
    for table, name in zip(found[0], ("orders", "logs"), strict=True):
        assert [row[:-1] for row in table] == sorted(wanted[name]) and len(table) > 200
    promised = sum(i.rows or 0 for many in inputs.values() for i in many)
    for run in runs:
        assert run.rejects == [] and sum(line.rows for line in run.tally) == promised
