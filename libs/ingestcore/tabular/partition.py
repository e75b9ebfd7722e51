"""Which partition a row goes to, and batches cut accordingly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def partition_of(entity: pa.Array, partitions: int) -> NDArray[np.uint16]:
    """-> partition of each row: the first four bytes of its 16-byte `_entity`, big-endian, modulo `partitions`."""
    words = np.frombuffer(entity.buffers()[1], np.dtype(">u4"), 4 * len(entity), 16 * entity.offset)[::4]
    return (words % partitions).astype(np.uint16)


def repartition(rows: pa.Table, entity: pa.Array, partitions: int) -> Iterator[tuple[int, pa.Table]]:
    """-> (partition, its rows in their order) for each partition that has rows."""
    if not rows.num_rows:
        return
    owner = partition_of(entity, partitions)
    # A stable sort of small integers is a radix sort, linear in the rows.
    key = owner.astype(np.uint8) if partitions <= 256 else owner
    ordered = rows.take(pa.array(np.argsort(key, kind="stable")))
    ends = np.cumsum(np.bincount(owner, minlength=partitions)).tolist()
    start = 0
    for partition, end in enumerate(ends):
        if end > start:
            yield partition, ordered.slice(start, end - start)
        start = end
