"""Typed messages for tests of what reads `ingest.typed`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from ingestcore.messages.objects import ObjectFacts, object_id
from ingestcore.messages.rows import HASH_TYPE, TYPED_FIELDS, write
from ingestcore.stage import At, Input

DATASET = "items@1"


def facts_of(name: str, dataset: str = DATASET, **provenance: str) -> ObjectFacts:
    """-> facts of an object named so."""
    return ObjectFacts(
        id=object_id("default", "s3-main", dataset, "lake", name, "etag"),
        tenant="default",
        source="s3-main",
        dataset=dataset,
        uri=f"s3://lake/{name}",
        etag="etag",
        first_seen="2024-05-01T12:00:00.000Z",
        provenance=provenance,
    )


def typed_batch(
    keys: Sequence[bytes],
    objects: Sequence[ObjectFacts],
    rows: Sequence[int] | None = None,
    hashes: Sequence[str] | None = None,
) -> pa.RecordBatch:
    """One row per key (16 bytes), with a column `text` that spells the key and `number` that repeats the row number.

    objects  the object of each row; rows: its number there, by default 1, 2, …; hashes: its segment's SHA-256
    """
    numbers = list(rows) if rows is not None else list(range(1, len(keys) + 1))
    key = pa.array(list(keys), HASH_TYPE)
    columns = [
        pa.array([k.hex() for k in keys], pa.string()),
        pa.array(numbers, pa.int64()),
        key,
        key,
        _dictionary([facts.encode() for facts in objects]),
        _dictionary(list(hashes) if hashes is not None else ["0" * 64] * len(keys)),
        pa.array(numbers, pa.int64()),
    ]
    own = [pa.field("text", pa.string(), metadata={b"pii": b"no"}), pa.field("number", pa.int64())]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*own, *TYPED_FIELDS]))


def typed_input(partition: int, offset: int, batch: pa.RecordBatch, dataset: str = DATASET) -> Input:
    headers = {"dataset": dataset, "rows": str(batch.num_rows)}
    return Input(At("typed", partition, offset), bytes(write(batch)), headers, timestamp_ms=1_700_000_000_000 + offset)


def _dictionary(texts: list[str]) -> pa.DictionaryArray:
    places: dict[str, int] = {}
    indices = [places.setdefault(text, len(places)) for text in texts]
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(list(places), pa.string()))
