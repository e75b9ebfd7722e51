"""Where rows are, told by numbers alone: which block, which rows of a message, which of a dead letter's. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import orjson
import pyarrow as pa

from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.rows import KEY, OBJECT, ROW


def block_of(
    blocks: Iterable[tuple[int, int, int]], partitions: int, object_id: str, row: int
) -> tuple[int, int] | None:
    """-> (partition, offset) of the block that holds a row; None: it is not among them.

    blocks  (partition, offset, rows) of one pass over one object, in any order. Blocks go round the partitions by their
            number, and offsets ascend with it within a partition; so the numbers follow, and from them the first rows.
    """
    by_partition: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for partition, offset, rows in blocks:
        by_partition[partition].append((offset, rows))
    numbered: dict[int, tuple[int, int, int]] = {}
    for partition, found in by_partition.items():
        first_number = (partition - int(object_id[:8], 16)) % partitions
        for nth, (offset, rows) in enumerate(sorted(found)):
            numbered[first_number + nth * partitions] = (partition, offset, rows)
    first_row = 1
    for number in range(len(numbered)):
        if number not in numbered:
            return None
        partition, offset, rows = numbered[number]
        if first_row <= row < first_row + rows:
            return partition, offset
        first_row += rows
    return None


def rows_of_object(batch: pa.RecordBatch, object_id: str, row: int) -> list[int]:
    """-> places of an object's row in a typed or normalized batch."""
    facts = batch.column(OBJECT)
    meant = np.array([_id(text) == object_id for text in facts.dictionary.to_pylist()], np.bool_)
    if not meant.any():
        return []
    found: list[int] = np.flatnonzero(meant[facts.indices.to_numpy()] & (batch.column(ROW).to_numpy() == row)).tolist()
    return found


def rows_of_key(batch: pa.RecordBatch, key: bytes) -> list[int]:
    """-> places of the rows with a key."""
    column = batch.column(KEY)
    width = len(key)
    data = np.frombuffer(column.buffers()[1] or b"", np.dtype(f"S{width}"), len(column), column.offset * width)
    # Strings of bytes compare without their zeros at the end: what looks equal is looked at again.
    found: list[int] = [
        i for i in np.flatnonzero(data == np.array(key, f"S{width}")).tolist() if column[i].as_py() == key
    ]
    return found


def object_of(batch: pa.RecordBatch, place: int) -> tuple[Mapping[str, str], int]:
    """-> facts of a row's object, and the row's number."""
    facts = batch.column(OBJECT)
    return orjson.loads(facts.dictionary[facts.indices[place].as_py()].as_py()), batch.column(ROW)[place].as_py()


def speaks_of(letter: DeadLetter, object_id: str, row: int) -> bool:
    """Whether a dead letter stands for a row: for it alone, for a run of rows, or for the object from a row on."""
    if letter.origin != object_id and (letter.object is None or letter.object.id != object_id):
        return False
    facts = letter.facts
    if "rows" in facts:
        return any(first <= row <= last for first, last in _runs(facts["rows"]))
    if "row" not in facts:
        return letter.rows == 0
    first = int(facts["row"])
    # Without a count of rows it is all the rest of the object.
    return first <= row if letter.rows == 0 else first == row


def _runs(text: str) -> Iterator[tuple[int, int]]:
    """`5-9,12` -> (5, 9), (12, 12)."""
    for run in filter(None, text.split(",")):
        first, _, last = run.partition("-")
        yield int(first), int(last or first)


def _id(facts: str) -> str:
    return str(orjson.loads(facts)["id"])
