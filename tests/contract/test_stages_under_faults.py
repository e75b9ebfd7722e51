"""Every stage keeps the contract: whatever is aborted, killed and resumed, the same rows come out, once.

Stages are built by their own `SERVICE.build`, over an object store in memory and topics made of what was committed.
"""

from __future__ import annotations

import collections
import gzip
import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestcore.datasets.registry import Registry
from ingestcore.messages import rows
from ingestcore.messages.objects import ObjectRef
from ingestcore.observe.metrics import Metrics
from ingestcore.runtime.service import Context, discover
from ingestcore.settings import Platform
from ingestcore.stage import At, Emit, Gap, Input, Stage
from ingestcore.testing.harness import Committed, drive
from ingestcore.testing.memory_store import MemoryStore, etag_of

SERVICES = discover()
PARTITIONS = 3
ROUNDS = 12

SPECS: dict[str, Any] = {
    "source/s": {"s3": {"bucket": "raw"}, "provenance": {"purpose": "p", "ingestedBy": "me"}},
    "sink/lake": {"parquet": {"uri": "s3://out/x/", "max_age": 0, "batch_size": 50}},
    "dataset/orders@1": {
        "primary_key": ["id"],
        "fields": {"id": "integer", "amount": {"type": "float", "min": 0}, "note": "string"},
    },
    "dataset/orders": {"version": 1},
    "dataset/logs@1": {"csv": {"comment": "#"}},
    "dataset/logs": {"version": 1},
}


def registry() -> Registry:
    found = Registry()
    for key, value in SPECS.items():
        found.feed(key, orjson.dumps(value))
    return found


def orders(count: int, seed: int) -> bytes:
    """Every 9th row repeats the one before, every 50th is bad, some notes hold newlines in quotes."""
    lines = ["id,amount,note"]
    for i in range(count):
        number = seed * 100_000 + i - (i % 9 == 8)
        if i % 50 == 7:
            lines.append(f"{number},not a number,x")
        else:
            note = f'"line one\nline {number % 7}"' if number % 13 == 0 else f"note {number} " + "x" * (number % 40)
            lines.append(f"{number},{number / 4},{note}")
    return ("\n".join(lines) + "\n").encode()


def objects() -> dict[str, bytes]:
    logs = b"# head\nlevel,text\n" + b"".join(b"info,%d\n\n# c\n" % i for i in range(300))
    return {
        "orders/a.csv": orders(9_000, 1),
        "orders/b.csv.gz": gzip.compress(orders(6_000, 2)),
        "orders/empty.csv": b"",
        "orders/head.csv": b"id,amount,note\n",
        "orders/again.csv": orders(3_000, 1),
        "logs/a.csv": logs.removeprefix(b"# head\n"),
        "orders/drift.csv": b"id,price\n1,2\n",
        "orders/cut.csv.gz": gzip.compress(orders(2_000, 3))[:-200],
    }


class CommittedTopics:
    """`TopicAccess` over what a run has committed and over a stage's inputs: a stand-in for the broker."""

    def __init__(self, committed: Committed, inputs: dict[tuple[str, int], list[Input]]) -> None:
        self._committed, self._inputs = committed, inputs

    def topic_id(self, topic: str) -> str:
        return f"id-{topic}"

    def partitions(self, topic: str) -> int:
        return PARTITIONS

    def _log(self, topic: str, partition: int) -> list[Input]:
        if (topic, partition) in self._inputs:
            return self._inputs[topic, partition]
        return self._committed.inputs(topic).get((topic, partition), [])

    def replay(self, topic: str, partition: int, first: int | None = None, last: int | None = None) -> Iterator[Input]:
        log = self._log(topic, partition)
        if first is not None and first > len(log):
            raise Gap(f"{topic}[{partition}]: {first} is beyond the end")
        for input in log:
            if (first is None or input.at.offset >= first) and (last is None or input.at.offset <= last):
                yield input

    def start(self, topic: str, partition: int) -> int:
        return 0

    def end(self, topic: str, partition: int) -> int:
        return len(self._log(topic, partition))

    def produced(self, topic: str, partition: int) -> int | None:
        log = self._log(topic, partition)
        return log[-1].at.offset if log else None


Inputs = dict[tuple[str, int], list[Input]]


class World:
    """What outlives a process: the object store and local state folders."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.store = MemoryStore("raw", "out")
        for key, data in objects().items():
            self.store.put("raw", key, data)
        self._folder, self._random, self._number = folder, random.Random(seed), itertools.count()
        self._last: Path | None = None

    def state(self) -> Path:
        """A new process finds its disk as its predecessor left it, or an empty one."""
        fresh = self._folder / str(next(self._number))
        if self._last is not None and self._random.random() < 0.6:
            shutil.copytree(self._last, fresh)
        else:
            fresh.mkdir(parents=True)
        self._last = fresh
        return fresh

    def maker(self, service: str, inputs: Inputs, **settings: Any) -> Callable[[Committed], Stage]:
        declared = SERVICES[service]
        instance = "lake" if declared.per == "sink" else service

        def make(committed: Committed) -> Stage:
            context = Context(
                platform=Platform(partitions=PARTITIONS, max_row_bytes=64 << 10),
                settings=declared.settings(**settings),
                instance=instance,
                specs=registry(),
                topics=CommittedTopics(committed, inputs),
                metrics=Metrics(),
                state=self.state(),
                store=lambda _: self.store,
            )
            return declared.build(context)  # type: ignore[return-value]

        return make


def listed() -> Inputs:
    placed: Inputs = collections.defaultdict(list)
    for number, (key, data) in enumerate(objects().items()):
        dataset = key.partition("/")[0]
        ref = ObjectRef(
            "default",
            "s",
            dataset,
            "raw",
            key,
            etag_of(data),
            len(data),
            "2026-01-01T00:00:00Z",
            "2026-01-02T00:00:00Z",
        )
        place = ("objects", number % 2)
        at = At("objects", place[1], len(placed[place]))
        placed[place].append(Input(at, ref.encode(), {}, bytes.fromhex(ref.id)))
    return dict(placed)


SETTINGS: dict[str, dict[str, Any]] = {
    "chunk-downloader": {"chunk_size": 64 << 10, "block_bytes": 64 << 10, "max_workers": 2},
    "csv-parser": {"gather_bytes": 100 << 10, "large_bytes": 50 << 10},
    "normalizer": {"gather_bytes": 30 << 10, "memtable_keys": 500, "filter_capacity": 1_000},
    "parquet-sink": {"buffer_bytes": 64 << 10},
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Inputs]:
    """-> inputs of every stage, made by the stages before it without any fault."""
    inputs = {"chunk-downloader": listed()}
    order = ["chunk-downloader", "csv-parser", "normalizer", "parquet-sink"]
    for service, following in itertools.pairwise(order):
        world = World(tmp_path_factory.mktemp(service), 0)
        made = drive(world.maker(service, inputs[service], **SETTINGS[service]), inputs[service], 0, faults=False)
        inputs[following] = made.inputs(SERVICES[service].produces[0])
    return inputs


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


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_downloader(chain: dict[str, Inputs], tmp_path: Path, seed: int) -> None:
    make = World(tmp_path, seed).maker("chunk-downloader", chain["chunk-downloader"], **SETTINGS["chunk-downloader"])
    calm = drive(make, chain["chunk-downloader"], seed, faults=False)
    stormy = drive(make, chain["chunk-downloader"], seed)

    def blocks(run: Committed) -> collections.Counter[Any]:
        return collections.Counter(
            (e.key, bytes(e.value), e.rows, e.partition, tuple(sorted(e.headers.items()))) for e in run.emits
        )

    assert blocks(stormy) == blocks(calm)
    assert letters(stormy) == letters(calm)
    assert fates(stormy) == fates(calm)
    assert len(calm.emits) > 10


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_parser(chain: dict[str, Inputs], tmp_path: Path, seed: int) -> None:
    make = World(tmp_path, seed).maker("csv-parser", chain["csv-parser"], **SETTINGS["csv-parser"])
    calm = drive(make, chain["csv-parser"], seed, faults=False)
    stormy = drive(make, chain["csv-parser"], seed)
    assert table(stormy.emits, "typed") == table(calm.emits, "typed")
    assert letters(stormy) == letters(calm)
    assert fates(stormy) == fates(calm)
    assert sum(letters(calm).values()) > 200


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_normalizer(chain: dict[str, Inputs], tmp_path: Path, seed: int) -> None:
    make = World(tmp_path, seed).maker("normalizer", chain["normalizer"], **SETTINGS["normalizer"])
    calm = drive(make, chain["normalizer"], seed, faults=False)
    stormy = drive(make, chain["normalizer"], seed, fault_rate=0.1)
    # Of rows with one key exactly one is published, which one is open: their place may differ.
    place = (rows.ROW, rows.OBJECT, rows.PROVENANCE)
    assert table(stormy.emits, "normalized", place) == table(calm.emits, "normalized", place)
    assert max(table(stormy.emits, "normalized", place).values()) == 1
    changelog = b"".join(bytes(e.value) for e in stormy.emits if e.topic == "dedupe-changelog")
    keys = [changelog[i : i + 16] for i in range(0, len(changelog), 16)]
    assert len(keys) == len(set(keys)) == table(calm.emits, "normalized", place).total()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_parquet_sink(chain: dict[str, Inputs], tmp_path: Path, seed: int) -> None:
    """Also reset to earliest and run again with other settings: the same files, byte for byte."""
    inputs = chain["parquet-sink"]
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
