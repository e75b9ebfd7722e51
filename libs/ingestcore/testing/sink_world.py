"""The world of a sink, played from memory: normalized batches and dead letters as the platform writes them, a topic, a
bucket."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingestcore.datasets.provenance import source_metadata
from ingestcore.datasets.registry import NotSeenYet
from ingestcore.datasets.spec import SinkSpec
from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.objects import ObjectFacts, object_id
from ingestcore.messages.rows import KEY, OBJECT, PROVENANCE, PROVENANCE_TYPE, ROW, write
from ingestcore.observe.metrics import Metrics
from ingestcore.reasons import Reason
from ingestcore.runtime.service import Context
from ingestcore.settings import Platform
from ingestcore.stage import At, Gap, Input, Stage
from ingestcore.stores.objects import Listed, Missing, Refused

S = TypeVar("S", bound=Stage)

NOON_MS: Final = 1_700_000_000_000
"""2023-11-14, UTC."""


def object_facts(name: str, *, tenant: str = "default", dataset: str = "orders@1") -> ObjectFacts:
    """-> facts of an object `raw/<name>`; equal for equal arguments."""
    table, key = dataset.rpartition("@")[0], f"raw/{name}"
    return ObjectFacts(
        id=object_id(tenant, "src", table, "bucket", key, "etag"),
        tenant=tenant,
        source="src",
        dataset=dataset,
        uri=f"s3://bucket/{key}",
        etag="etag",
        first_seen="2023-11-14T12:00:00Z",
        provenance={"purpose": "test"},
    )


def normalized(
    offset: int,
    columns: pa.Table,
    facts: Sequence[ObjectFacts],
    *,
    which: Sequence[int] | None = None,
    first_row: int = 1,
    partition: int = 0,
    timestamp_ms: int = NOON_MS,
    compression: str | None = None,
) -> Input:
    """-> one message of `ingest.normalized`.

    columns  the dataset's own; which: per row, the index of its object in `facts` (absent: the first)
    """
    rows = columns.num_rows
    codes = np.zeros(rows, np.int32) if which is None else np.asarray(which, np.int32)
    entries = [source_metadata(fact) | {"contentHash": f"{i:064x}"} for i, fact in enumerate(facts)]
    platform = {
        KEY: pa.array([f"{offset:08}{i:08}".encode() for i in range(rows)], pa.binary(16)),
        OBJECT: pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([fact.encode() for fact in facts])),
        ROW: pa.array(np.arange(first_row, first_row + rows), pa.int64()),
        PROVENANCE: pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(entries, PROVENANCE_TYPE)),
    }
    own = {name: columns.column(name).combine_chunks() for name in columns.column_names}
    arrays = own | platform
    fields = [*columns.schema, *(pa.field(name, array.type, nullable=False) for name, array in platform.items())]
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), schema=pa.schema(fields))
    headers = {"dataset": facts[0].dataset, "rows": str(rows), "format": "1"}
    return Input(At("normalized", partition, offset), bytes(write(batch, compression)), headers, b"", timestamp_ms)


ORDERS: Final = object_facts("orders.csv")


def rows_input(offset: int, rows: int = 10, *, partition: int = 0, **more: Any) -> Input:
    """-> a normalized message of rows of one object: `id`, differing between inputs, and `text`.

    more  arguments of `normalized`
    """
    first = (partition * 100 + offset) * 1000
    columns = pa.table({"id": pa.array(range(first, first + rows), pa.int64()), "text": ["x" * 20] * rows})
    return normalized(offset, columns, [ORDERS], partition=partition, first_row=first, **more)


def dead_letter(
    offset: int,
    raw: bytes,
    facts: ObjectFacts | None,
    *,
    row: int = 1,
    place: Mapping[str, str] | None = None,
    partition: int = 0,
    timestamp_ms: int = NOON_MS,
    **more: Any,
) -> Input:
    """-> one message of `ingest.dlq`.

    facts  of its object; place: the letter's own facts (absent: of row `row`, column `amount`)
    more   fields of DeadLetter
    """
    if place is None:
        known_place = {"column": "amount", "value": "x", "byte_first": "10", "byte_last": str(10 + len(raw))}
        place = {"row": str(row), **known_place} if facts else {}
    known: dict[str, Any] = {
        "raw": raw,
        "reason": Reason.VALIDATION_FAIL,
        "message": "amount is no number",
        "stage": "csv-parser",
        "topic": "ingest.blocks",
        "partition": 3,
        "offset": 7,
        "origin": facts.id if facts else "blocks",
        "object": facts,
        "facts": place,
        "reentry": "ingest.blocks",
        "first_seen": "2023-11-14T12:00:00Z",
    }
    letter = DeadLetter(**(known | more))
    headers = letter.headers() | {"rows": "1", "format": "1"}
    return Input(At("dlq", partition, offset), raw, headers, bytes.fromhex(letter.id), timestamp_ms)


class PlayedTopics:
    """`TopicAccess` over lists of inputs. Offsets may have holes, as after aborted transactions."""

    def __init__(self, inputs: Mapping[int, Sequence[Input]], id: str = "topic-id") -> None:
        self.inputs, self.id = {p: list(many) for p, many in inputs.items()}, id
        self.log_start: dict[int, int] = {}
        self.replays: list[tuple[int, int | None, int | None]] = []

    def topic_id(self, topic: str) -> str:
        return self.id

    def partitions(self, topic: str) -> int:
        return len(self.inputs)

    def replay(self, topic: str, partition: int, first: int | None = None, last: int | None = None) -> Iterator[Input]:
        self.replays.append((partition, first, last))
        start = self.log_start.get(partition, 0)
        if first is not None and first < start:
            raise Gap(f"{topic}[{partition}]: offset {first} is wanted, the log starts at {start}")
        for input in self.inputs[partition]:
            if (first is None or first <= input.at.offset) and (last is None or input.at.offset <= last):
                yield input

    def start(self, topic: str, partition: int) -> int:
        return self.log_start.get(partition, 0)

    def end(self, topic: str, partition: int) -> int:
        return max((i.at.offset + 1 for i in self.inputs[partition]), default=0)

    def produced(self, topic: str, partition: int) -> Sequence[tuple[int, int]]:
        return ()


class MemoryBucket:
    """`ObjectStore` over a dict. `before(operation, key)` is called first and may raise."""

    def __init__(self, before: Callable[[str, str], None] | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.before = before or (lambda operation, key: None)
        self.missing = False
        self._lock = Lock()

    def list(self, bucket: str, prefix: str, start_after: str = "") -> Iterator[Listed]:
        self.before("list", prefix)
        for key, data in sorted(self.objects.items()):
            if key.startswith(prefix) and key > start_after:
                yield Listed(key, str(hash(data)), len(data), "2023-11-14T12:00:00Z")

    def get(self, bucket: str, key: str) -> bytes:
        self.before("get", key)
        try:
            return self.objects[key]
        except KeyError:
            raise Missing(key) from None

    def get_range(self, bucket: str, key: str, etag: str, first: int, size: int) -> bytes:
        return self.get(bucket, key)[first : first + size]

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.before("put", key)
        self.objects[key] = data

    def put_new(self, bucket: str, key: str, data: bytes | Path) -> bool:
        self.before("put_new", key)
        body = data.read_bytes() if isinstance(data, Path) else data
        with self._lock:
            if key in self.objects:
                return False
            self.objects[key] = body
            return True

    def delete(self, bucket: str, key: str) -> None:
        self.before("delete", key)
        self.objects.pop(key, None)

    def check(self, bucket: str) -> None:
        if self.missing:
            raise Refused(f"bucket {bucket} does not exist: create it")

    def warm(self, bucket: str) -> None: ...

    def keys(self, part: str) -> Sequence[str]:
        """-> keys that contain this text, in order."""
        return sorted(key for key in self.objects if part in key)


@dataclass
class PlayedSpecs:
    """The registry, as far as a sink asks it."""

    parquet: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)
    removed: bool = False

    def sink(self, name: str) -> SinkSpec:
        if self.removed:
            raise NotSeenYet(f"sink {name} is not in the configuration topic")
        return SinkSpec.model_validate({"parquet": {"uri": "s3://out/lake/", **self.parquet}, **self.more})


class SinkWorld:
    """What outlives the sinks opened on it: bucket, topic, configuration, clock, the replica's folder."""

    def __init__(self, state: Path, inputs: Mapping[int, Sequence[Input]], *, topic_id: str = "topic-id") -> None:
        self.bucket, self.topics = MemoryBucket(), PlayedTopics(inputs, topic_id)
        self.specs = PlayedSpecs({"max_age": "30s", "max_bytes": "1MiB"})
        self.now_seconds = 1000.0
        self.state = state
        state.mkdir(exist_ok=True)

    def clock(self) -> float:
        return self.now_seconds

    def context(self, settings: Any) -> Context:
        """-> what the sink `lake` is built from."""
        return Context(
            Platform(),
            settings,
            "lake",
            self.specs,  # type: ignore[arg-type]
            self.topics,
            Metrics(),
            self.state,
            lambda spec: self.bucket,
        )

    def opened(self, opener: Callable[..., S], settings: Any) -> S:
        """-> the sink `lake`, with all partitions of the topic assigned."""
        sink = opener(self.context(settings), clock=self.clock)
        sink.assigned(sorted(self.topics.inputs))
        return sink

    def files(self) -> dict[str, bytes]:
        """-> Parquet files by key."""
        return {key: self.bucket.objects[key] for key in self.bucket.keys(".parquet")}

    def column(self, name: str) -> Counter[Any]:
        """-> how often each value is in all files."""
        return Counter(i for data in self.files().values() for i in pq.read_table(io.BytesIO(data))[name].to_pylist())

    def temporary(self) -> Sequence[Path]:
        """-> local files that are not removed yet."""
        return sorted(self.state.iterdir())
