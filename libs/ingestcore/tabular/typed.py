"""Typed rows -> messages of `ingest.typed`: keyed, cut by partition and size, each one Arrow stream. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.messages import rows as messages
from ingestcore.stage import Emit
from ingestcore.tabular.partition import repartition


class Coded:
    """Texts by number, for dictionary columns that name only what a batch uses."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def code(self, text: str) -> int:
        return self._codes.setdefault(text, len(self._codes))

    def codes(self, texts: Iterable[str]) -> NDArray[np.int32]:
        return np.array([self.code(text) for text in texts], np.int32)

    def dictionary(self, codes: NDArray[np.int32]) -> pa.Array:
        texts = list(self._codes)
        used = np.flatnonzero(np.bincount(codes, minlength=len(texts)))
        renumbered = np.zeros(len(texts), np.int32)
        renumbered[used] = np.arange(len(used), dtype=np.int32)
        names = pa.array([texts[i] for i in used.tolist()], pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(renumbered[codes]), names)


def typed_messages(
    rows: pa.Table,
    platform: Mapping[pa.Field, pa.Array],
    coded: Mapping[str, Coded],
    *,
    dataset: str,
    partitions: int,
    message_bytes: int,
) -> Iterator[Emit]:
    """-> per partition as few messages as the limits allow.

    rows      the dataset's columns, one chunk each
    platform  the platform's columns after them, in order; `_object` and `_hash` as codes
    coded     the texts of those
    dataset   `name@version`; message_bytes: about how large a message is at most
    """
    named = [field.name for field in platform]
    whole = pa.table([*rows.columns, *platform.values()], names=[*rows.schema.names, *named])
    most = min(messages.MAX_ROWS, max(1, message_bytes * whole.num_rows // max(1, whole.nbytes)))
    schema = pa.schema([*rows.schema, *platform])
    for partition, owned in repartition(whole, whole.column(messages.ENTITY).chunk(0), partitions):
        for part in _cut(owned, most, 2 * message_bytes):
            value = messages.write(_batch(part, schema, coded))
            yield Emit("typed", value, part.num_rows, partition=partition, headers={"dataset": dataset})


def _cut(rows: pa.Table, most: int, nbytes: int) -> Iterator[pa.Table]:
    """-> slices of at most so many rows, and of at most so many bytes where a slice has more than one row."""
    for start in range(0, rows.num_rows, most):
        part = rows.slice(start, most)
        if part.nbytes > nbytes and part.num_rows > 1:
            yield from _cut(part, part.num_rows // 2, nbytes)
        else:
            yield part


def _batch(rows: pa.Table, schema: pa.Schema, coded: Mapping[str, Coded]) -> pa.RecordBatch:
    """-> the message's batch: data columns, then the platform's in their fixed order."""
    arrays = []
    for wanted, column in zip(schema, rows.columns, strict=True):
        values = column.chunk(0)
        arrays.append(coded[wanted.name].dictionary(values.to_numpy()) if wanted.name in coded else values)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
