"""Parsed blocks of one dataset version, held until they are emitted together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.datasets.spec import DatasetSpec
from ingestcore.messages import rows as messages
from ingestcore.messages.blocks import SEGMENT_BYTES, Block
from ingestcore.stage import At, Emit, Line, Reject, Step
from ingestcore.tabular.block import Parsed
from ingestcore.tabular.keys import keys
from ingestcore.tabular.partition import repartition

_BARE_COLUMNS: Final = (messages.ENTITY, messages.KEY, messages.ROW)


@dataclass(frozen=True)
class Piece:
    """One parsed block. `rows`: data columns, `_entity`, `_key`, `_row`; `segments`: a number into `hashes` per row."""

    at: At
    nbytes: int
    tally: Sequence[Line]
    rejects: Sequence[Reject]
    rows: pa.Table
    object: str
    hashes: Sequence[str]
    segments: NDArray[np.int32]


def piece_of(
    parsed: Parsed,
    block: Block,
    spec: DatasetSpec,
    at: At,
    tally: Sequence[Line],
    rejects: Sequence[Reject],
    nbytes: int,
) -> Piece:
    """Give rows their platform columns. Raises ValueError: a segment's hash is missing in the block's headers."""
    facts = block.object
    ordinals = pa.array(parsed.ordinals + block.first_row)
    entity, key = keys(parsed.rows, spec, tenant=facts.tenant, dataset=facts.table, facts=facts, ordinals=ordinals)
    rows = parsed.rows
    for name, values in zip(_BARE_COLUMNS, (entity, key, ordinals), strict=True):
        rows = rows.append_column(name, values)
    segments = _segments(block, parsed)
    return Piece(at, nbytes, tally, rejects, rows, facts.encode(), [text for _, text in block.segments], segments)


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
    """Pieces with one schema."""

    dataset: str
    pieces: list[Piece] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces)

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)

    def clear(self) -> None:
        self.pieces.clear()

    def step(self, partitions: int, message_bytes: int) -> Step:
        """-> one step that covers all pieces: per partition as few messages as the limits allow."""
        return Step(
            covers=[piece.at for piece in self.pieces],
            tally=[line for piece in self.pieces for line in piece.tally],
            emits=list(self._emits(partitions, message_bytes)),
            rejects=[reject for piece in self.pieces for reject in piece.rejects],
        )

    def _emits(self, partitions: int, message_bytes: int) -> Iterator[Emit]:
        objects, hashes = _Coded(), _Coded()
        tables = []
        for piece in self.pieces:
            if piece.rows.num_rows:
                owner = np.full(piece.rows.num_rows, objects.code(piece.object), np.int32)
                segment = np.array([hashes.code(text) for text in piece.hashes], np.int32)[piece.segments]
                tables.append(
                    piece.rows.append_column(messages.OBJECT, pa.array(owner)).append_column(
                        messages.HASH, pa.array(segment)
                    )
                )
        if not tables:
            return
        rows = pa.concat_tables(tables).combine_chunks()
        most = min(messages.MAX_ROWS, max(1, message_bytes * rows.num_rows // max(1, rows.nbytes)))
        entity = rows.column(messages.ENTITY).combine_chunks()
        for partition, owned in repartition(rows, entity, partitions):
            for start in range(0, owned.num_rows, most):
                batch = _typed(owned.slice(start, most), objects, hashes)
                value = messages.write(batch)
                yield Emit("typed", value, batch.num_rows, partition=partition, headers={"dataset": self.dataset})


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
    data = [name for name in rows.schema.names if name not in (*_BARE_COLUMNS, *coded)]
    fields = [*(rows.schema.field(name) for name in data), *messages.TYPED_FIELDS]
    arrays = []
    for wanted in fields:
        values = rows.column(wanted.name).combine_chunks()
        if wanted.name in coded:
            values = coded[wanted.name].dictionary(values.to_numpy())
        arrays.append(values)
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
