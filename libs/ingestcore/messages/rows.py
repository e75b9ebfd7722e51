"""`ingest.typed` and `ingest.normalized`: one Arrow IPC stream of one record batch, rows of one dataset version.

Besides the dataset's own columns a batch carries the platform's, whose names start with `_`.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

ENTITY: Final = "_entity"
KEY: Final = "_key"
OBJECT: Final = "_object"
ROW: Final = "_row"
HASH: Final = "_hash"
PROVENANCE: Final = "_provenance"
RECEIVED: Final = "_received"
OBSERVED: Final = "_observed"

MAX_ROWS: Final = 65_536
"""Rows of one message at most."""

HASH_TYPE: Final = pa.binary(16)
TYPED_FIELDS: Final = (
    pa.field(ENTITY, HASH_TYPE, nullable=False),
    pa.field(KEY, HASH_TYPE, nullable=False),
    # ObjectFacts as JSON text: a message may hold rows of many objects.
    pa.field(OBJECT, pa.dictionary(pa.int32(), pa.string()), nullable=False),
    # SHA-256 hex of the segment of the object in which the row starts.
    pa.field(HASH, pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field(ROW, pa.int64(), nullable=False),
)
"""Platform columns of a typed batch, after the dataset's own."""

EVENT_FIELDS: Final = (
    # When the event was taken in: `ingestedAt` of its row.
    pa.field(RECEIVED, pa.timestamp("ms", "UTC"), nullable=False),
    # When it happened, if somebody said: `observedAt`.
    pa.field(OBSERVED, pa.timestamp("us", "UTC")),
)
"""Further platform columns of a typed batch that was made of events. `_hash` is of the event's body, `_row` its offset
in `ingest.events`."""

PROVENANCE_TYPE: Final = pa.struct(
    [
        pa.field("sourceId", pa.string(), nullable=False),
        pa.field("sourceType", pa.string(), nullable=False),
        pa.field("sourceUri", pa.string(), nullable=False),
        pa.field("contentHash", pa.string(), nullable=False),
        pa.field("hashAlgorithm", pa.string(), nullable=False),
        pa.field("ingestedAt", pa.string(), nullable=False),
        pa.field("observedAt", pa.string()),
        pa.field("purpose", pa.string(), nullable=False),
        pa.field("classification", pa.string()),
        pa.field("parentId", pa.string()),
        pa.field("transformations", pa.list_(pa.string())),
        pa.field("ingestedBy", pa.string(), nullable=False),
        pa.field("batchId", pa.string()),
    ]
)
"""ProvenanceMetadata. `ingestedAt` is the object's first_seen, of an event when it came in; `batchId` is the object
id unless the source names one."""

NORMALIZED_FIELDS: Final = (
    pa.field(KEY, HASH_TYPE, nullable=False),
    pa.field(OBJECT, pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field(ROW, pa.int64(), nullable=False),
    # One struct per object and segment, four bytes per row; sinks decode it.
    pa.field(PROVENANCE, pa.dictionary(pa.int32(), PROVENANCE_TYPE), nullable=False),
)
"""Platform columns of a normalized batch, after the dataset's own."""


_READING: Final = pa.ipc.IpcReadOptions(use_threads=False)
"""A thread of Arrow's that lets go of the message's bytes after the interpreter has ended aborts the process."""


def write(batch: pa.RecordBatch, compression: str | None = None) -> pa.Buffer:
    """-> one Arrow IPC stream, which Kafka's client takes as it is: another copy of each message would be dearer than
    the framing. `compression`: None, `lz4` or `zstd` (buffers, not the message)."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def read(value: bytes | pa.Buffer) -> pa.RecordBatch:
    """-> the one batch of the stream. Raises ValueError: not one Arrow IPC stream of one batch."""
    try:
        with pa.ipc.open_stream(pa.py_buffer(value), options=_READING) as reader:
            batches = list(reader)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"not an Arrow IPC stream: {error}") from error
    if len(batches) != 1:
        raise ValueError(f"one record batch expected, {len(batches)} found")
    return batches[0]
