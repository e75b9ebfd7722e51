"""Origin and `_provenance` of rows, from the `_object` and `_hash` columns of a typed batch. Pure.

Rows of one object and segment share one entry, so a row costs four bytes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.datasets.provenance import source_metadata
from ingestcore.messages.objects import ObjectFacts
from ingestcore.messages.rows import HASH, OBJECT, PROVENANCE_TYPE
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
    """-> `_provenance` of a batch with `_object` and `_hash`: one entry for each pair that occurs."""
    objects, hashes = batch.column(OBJECT), batch.column(HASH)
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
