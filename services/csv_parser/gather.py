"""Parsed blocks of one dataset version, held until they are emitted together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from ingestcore.tabular.typed import Coded, typed_messages


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
        rows = pa.concat_tables([piece.rows for piece in pieces]).combine_chunks()
        coded = {messages.OBJECT: Coded(), messages.HASH: Coded()}
        yield from typed_messages(
            rows,
            dict(zip(messages.TYPED_FIELDS, self._platform_columns(pieces, rows, coded), strict=True)),
            coded,
            dataset=self.dataset,
            partitions=partitions,
            message_bytes=message_bytes,
        )

    def _platform_columns(
        self, pieces: Sequence[Piece], rows: pa.Table, coded: Mapping[str, Coded]
    ) -> tuple[pa.Array, ...]:
        """-> in the order of TYPED_FIELDS; `_object` and `_hash` still as codes."""
        counts = [piece.rows.num_rows for piece in pieces]
        numbers = pa.array(np.concatenate([piece.numbers for piece in pieces]))
        made = keys(rows, self.spec, [(piece.owner, piece.rows.num_rows) for piece in pieces], numbers)
        owner = np.repeat(coded[messages.OBJECT].codes(piece.object for piece in pieces), counts)
        segment = [coded[messages.HASH].codes(piece.hashes)[piece.segments] for piece in pieces]
        return made.entity, made.key, pa.array(owner), pa.array(np.concatenate(segment)), numbers
