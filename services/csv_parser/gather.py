"""Parsed blocks of one dataset version, held until they are emitted together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.datasets.spec import DatasetSpec
from ingestcore.messages import rows as messages
from ingestcore.messages.blocks import SEGMENT_BYTES, Block
from ingestcore.stage import At, Emit, Input, Line, Reject, Step
from ingestcore.tabular.block import Parsed
from ingestcore.tabular.keys import Owner, keys
from ingestcore.tabular.partition import repartition


@dataclass(frozen=True)
class Piece:
    """One parsed block.

    rows      data columns
    numbers   `_row` of each
    object    ObjectFacts as JSON text
    segments  for each row a number into `hashes`
    """

    at: At
    nbytes: int
    tally: Sequence[Line]
    rejects: Sequence[Reject]
    rows: pa.Table
    numbers: NDArray[np.int64]
    owner: Owner
    object: str
    hashes: Sequence[str]
    segments: NDArray[np.int32]

    @classmethod
    def of(cls, input: Input, block: Block, parsed: Parsed, tally: Sequence[Line], rejects: Sequence[Reject]) -> Piece:
        """Raises ValueError: the block's headers lack the hash of a segment."""
        return cls(
            at=input.at,
            nbytes=len(input.value),
            tally=tally,
            rejects=rejects,
            rows=parsed.rows,
            numbers=parsed.ordinals + block.first_row,
            owner=Owner.of(block.object),
            object=input.headers["object"],
            hashes=[text for _, text in block.segments],
            segments=_segments(block, parsed),
        )


def _segments(block: Block, parsed: Parsed) -> NDArray[np.int32]:
    """-> for each row the place of its segment among the block's."""
    if not len(parsed.ordinals):
        return np.empty(0, np.int32)
    wanted = (block.first_byte + parsed.records.starts[parsed.ordinals]) // SEGMENT_BYTES
    told = np.array([number for number, _ in block.segments], np.int64)
    place = np.searchsorted(told, wanted)
    if not len(told) or place.max() >= len(told) or (told[place] != wanted).any():
        raise ValueError(f"{block.object.uri}, block {block.number}: its headers lack the hash of a segment it is in")
    return place.astype(np.int32)


@dataclass
class Group:
    """Pieces of one dataset version with one schema. `dataset`: `name@version`; `nbytes`: of the blocks held."""

    dataset: str
    spec: DatasetSpec
    pieces: list[Piece] = field(default_factory=list)
    nbytes: int = 0

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.nbytes += piece.nbytes

    def clear(self) -> None:
        self.pieces.clear()
        self.nbytes = 0

    def step(self, partitions: int, message_bytes: int) -> Step:
        """-> one step that covers all pieces: per partition as few messages as the limits allow."""
        return Step(
            covers=[piece.at for piece in self.pieces],
            tally=[line for piece in self.pieces for line in piece.tally],
            emits=list(self._emits(partitions, message_bytes)),
            rejects=[reject for piece in self.pieces for reject in piece.rejects],
        )

    def _emits(self, partitions: int, message_bytes: int) -> Iterator[Emit]:
        pieces = [piece for piece in self.pieces if piece.rows.num_rows]
        if not pieces:
            return
        objects, hashes = _Coded(), _Coded()
        rows = self._with_platform_columns(pieces, objects, hashes)
        most = min(messages.MAX_ROWS, max(1, message_bytes * rows.num_rows // max(1, rows.nbytes)))
        for partition, owned in repartition(rows, rows.column(messages.ENTITY).chunk(0), partitions):
            for part in _cut(owned, most, 2 * message_bytes):
                value = messages.write(_typed(part, objects, hashes))
                yield Emit("typed", value, part.num_rows, partition=partition, headers={"dataset": self.dataset})

    def _with_platform_columns(self, pieces: Sequence[Piece], objects: _Coded, hashes: _Coded) -> pa.Table:
        """-> all rows, one chunk a column; `_object` and `_hash` still as codes."""
        rows = pa.concat_tables([piece.rows for piece in pieces]).combine_chunks()
        counts = [piece.rows.num_rows for piece in pieces]
        numbers = pa.array(np.concatenate([piece.numbers for piece in pieces]))
        made = keys(rows, self.spec, [(piece.owner, piece.rows.num_rows) for piece in pieces], numbers)
        owner = np.repeat(np.array([objects.code(piece.object) for piece in pieces], np.int32), counts)
        segment = [np.array([hashes.code(text) for text in p.hashes], np.int32)[p.segments] for p in pieces]
        columns = {
            messages.ENTITY: made.entity,
            messages.KEY: made.key,
            messages.OBJECT: pa.array(owner),
            messages.HASH: pa.array(np.concatenate(segment)),
            messages.ROW: numbers,
        }
        return pa.table([*rows.columns, *columns.values()], names=[*rows.schema.names, *columns])


def _cut(rows: pa.Table, most: int, nbytes: int) -> Iterator[pa.Table]:
    """-> slices of at most so many rows, and of at most so many bytes where a slice has more than one row."""
    for start in range(0, rows.num_rows, most):
        part = rows.slice(start, most)
        if part.nbytes > nbytes and part.num_rows > 1:
            yield from _cut(part, part.num_rows // 2, nbytes)
        else:
            yield part


class _Coded:
    """Texts by number, for dictionary columns that name only what a batch uses."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def code(self, text: str) -> int:
        return self._codes.setdefault(text, len(self._codes))

    def dictionary(self, codes: NDArray[np.int32]) -> pa.Array:
        texts = list(self._codes)
        used = np.flatnonzero(np.bincount(codes, minlength=len(texts)))
        renumbered = np.zeros(len(texts), np.int32)
        renumbered[used] = np.arange(len(used), dtype=np.int32)
        names = pa.array([texts[i] for i in used.tolist()], pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(renumbered[codes]), names)


def _typed(rows: pa.Table, objects: _Coded, hashes: _Coded) -> pa.RecordBatch:
    """-> the message's batch: data columns, then the platform's in their fixed order."""
    coded = {messages.OBJECT: objects, messages.HASH: hashes}
    platform = len(messages.TYPED_FIELDS)
    fields = [*list(rows.schema)[:-platform], *messages.TYPED_FIELDS]
    arrays = []
    for wanted, column in zip(fields, rows.columns, strict=True):
        values = column.chunk(0)
        arrays.append(coded[wanted.name].dictionary(values.to_numpy()) if wanted.name in coded else values)
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
