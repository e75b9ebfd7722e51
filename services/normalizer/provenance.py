"""Origin and `_provenance` of rows, from the `_object` and `_hash` columns of a typed batch. Pure.

Rows of one object and segment share one entry, so a row costs four bytes. Rows of events have one each: it says when
the event was taken in and when it happened.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingestcore.datasets.provenance import source_metadata
from ingestcore.messages.objects import ObjectFacts
from ingestcore.messages.rows import HASH, OBJECT, OBSERVED, PROVENANCE_TYPE, RECEIVED
from ingestcore.stage import Origin

Codes = NDArray[np.int64]

_DENSE_PAIRS = 1 << 20
"""Up to so many possible (object, segment) pairs are counted in a table instead of sorted."""


@lru_cache(maxsize=8192)
def origin_of(facts: str) -> Origin:
    """ObjectFacts as text -> whose rows they are. Raises ValueError."""
    return Origin.of(ObjectFacts.decode(facts))


@lru_cache(maxsize=8192)
def _shared(facts: str) -> tuple[str | list[str] | None, ...]:
    """-> the values of an entry in the order of its fields; `contentHash`, which differs by segment, is None."""
    known = source_metadata(ObjectFacts.decode(facts))
    return tuple(known.get(field.name) for field in PROVENANCE_TYPE)


_HASH_FIELD = PROVENANCE_TYPE.get_field_index("contentHash")


def codes(column: pa.DictionaryArray) -> Codes:
    """-> each row's place in the column's dictionary. The column has no nulls."""
    indices: Codes = column.indices.to_numpy().astype(np.int64)
    return indices


def provenance_column(batch: pa.RecordBatch) -> pa.DictionaryArray:
    """-> `_provenance` of a batch with `_object` and `_hash`: one entry for each pair that occurs, or each event."""
    objects, hashes = batch.column(OBJECT), batch.column(HASH)
    if RECEIVED in batch.schema.names:
        return _of_events(batch)
    width = max(len(hashes.dictionary), 1)
    pairs = codes(objects) * width + codes(hashes)
    if len(objects.dictionary) * width <= _DENSE_PAIRS:
        used = np.flatnonzero(np.bincount(pairs))
        place = np.zeros(used[-1] + 1 if len(used) else 0, np.int32)
        place[used] = np.arange(len(used), dtype=np.int32)
        rows = place[pairs]
    else:
        used, inverse = np.unique(pairs, return_inverse=True)
        rows = inverse.astype(np.int32)
    entries = _entries(objects.dictionary.to_pylist(), hashes.dictionary.take(pa.array(used % width)), used // width)
    return pa.DictionaryArray.from_arrays(pa.array(rows, pa.int32()), entries)


def _entries(texts: list[str], content_hashes: pa.StringArray, objects: Codes) -> pa.StructArray:
    columns = list(zip(*(_shared(texts[number]) for number in objects), strict=True)) or [()] * len(PROVENANCE_TYPE)
    fields = list(PROVENANCE_TYPE)
    arrays = [
        content_hashes if number == _HASH_FIELD else pa.array(column, field.type)
        for number, (field, column) in enumerate(zip(fields, columns, strict=True))
    ]
    return pa.StructArray.from_arrays(arrays, fields=fields)


def _of_events(batch: pa.RecordBatch) -> pa.DictionaryArray:
    objects = batch.column(OBJECT)
    columns = zip(*(_shared(text) for text in objects.dictionary.to_pylist()), strict=True)
    fields = list(PROVENANCE_TYPE)
    shared = dict(zip(fields, columns, strict=True)) if len(objects.dictionary) else dict.fromkeys(fields, ())
    made = {field: pa.array(values, field.type).take(objects.indices) for field, values in shared.items()}
    observed = fields[PROVENANCE_TYPE.get_field_index("observedAt")]
    made[fields[_HASH_FIELD]] = batch.column(HASH).dictionary_decode()
    made[fields[PROVENANCE_TYPE.get_field_index("ingestedAt")]] = _moments(batch.column(RECEIVED))
    made[observed] = pc.coalesce(_moments(batch.column(OBSERVED)), made[observed])
    entries = pa.StructArray.from_arrays(list(made.values()), fields=fields)
    return pa.DictionaryArray.from_arrays(pa.array(np.arange(batch.num_rows, dtype=np.int32)), entries)


def _moments(column: pa.Array) -> pa.StringArray:
    """-> ISO 8601, UTC, ending in `Z`."""
    return pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")
