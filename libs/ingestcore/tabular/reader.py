"""The one judge of values: pyarrow's typed CSV reader, fed one block at a time.

A block is read typed in one go. A row the reader refuses is set aside and the rest is read again; rows set aside, and
those in which it may accept too much, are read as text, judged and converted by `texts.convert`. A column that is
refused time and again is read that way as a whole. Both ways give the same verdict on every value (the tests compare
them), so a row's fate never depends on its neighbours or on where blocks are cut.
"""

from __future__ import annotations

import codecs
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from ingestcore.datasets.spec import FieldSpec, Type
from ingestcore.tabular import texts
from ingestcore.tabular.dialect import parse_options
from ingestcore.tabular.plan import Column, Plan
from ingestcore.tabular.record_scan import KINDS
from ingestcore.tabular.records import Records
from ingestcore.tabular.suspects import hexadecimal, is_utf8, odd_numbers, undecodable
from ingestcore.tabular.texts import Converted, Mask

_REMEMBERED_BLOCKS: Final = 16
"""A column that was refused is likely to be refused again: for this many blocks it is read as text."""
_SUSPICIOUS_BLOCKS: Final = 8
"""So many blocks after the last odd number each number is looked at before a block is read; a clean file saves that."""
_MOST_REFUSALS: Final = 4
"""Rows of a piece that are set aside one by one; from then on columns that are refused are read as text."""
_PIECE_EFFORT: Final = 256 << 10
"""One more piece costs about as much as reading this many bytes."""
_PIECE_EFFORT_A_COLUMN: Final = 8 << 10
"""The same for wide rows: every column costs a fixed effort a piece."""
_FORGETTING: Final = 0.25
"""Weight of the latest block in the expected number of refusals."""

_ASCII: Final = bytes(byte if byte < 0x80 else ord("?") for byte in range(256))
_REFUSED = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?")

Places = NDArray[np.int64]
"""Numbers of records among those of a block that carry data, from 0, ascending."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """A record with the wrong number of fields. `place`: see `Places`."""

    place: int
    found: int


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a block. `columns`: by output name; where `bad`, the value is null."""

    places: Places
    columns: Mapping[str, Converted]


@dataclass(frozen=True, slots=True)
class Read:
    """What the reader made of a block: every record that carries data is in one part, or ragged."""

    parts: tuple[Part, ...]
    ragged: tuple[Ragged, ...]


class Reader:
    """Reads blocks of one plan. Remembers what needed the slow way: that changes the speed, never a result."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._by_place = {column.place: column for column in plan.columns}
        self._piece_effort = max(_PIECE_EFFORT, _PIECE_EFFORT_A_COLUMN * len(plan.titles))
        self._refusals_a_byte = 0.0
        self._suspicious = _SUSPICIOUS_BLOCKS
        self._as_text: Counter[str] = Counter()
        self._zoned: set[str] = set()
        self._quote = (plan.dialect.quote or "").encode()
        self._has_integers = any(column.field.type is Type.INTEGER for column in plan.columns)
        self._options: dict[str, Any] = {
            "strings_can_be_null": True,
            "quoted_strings_can_be_null": False,
            "null_values": list(plan.dialect.null_values),
            # What is no UTF-8 was set aside, and is read as bytes.
            "check_utf8": False,
        }
        if any(column.field.type is Type.BOOLEAN for column in plan.columns):
            true, false = texts.boolean_words(FieldSpec(type=Type.BOOLEAN))
            self._options |= {"true_values": list(true), "false_values": list(false)}

    def read(self, records: Records) -> Read:
        """Read the records that carry data, of which there must be some."""
        block = _Block(records, self._first_types())
        self._set_suspects_aside(block)
        for piece in self._pieces(records):
            self._read_piece(block, np.setdiff1d(piece, block.aside, assume_unique=True) if block.aside else piece)
        self._read_aside(block)
        self._remember(block)
        return Read(tuple(block.parts), tuple(block.ragged))

    def texts_of(self, body: bytes, sources: Collection[str]) -> dict[str, pa.Array]:
        """-> raw texts (binary, null where the reader sees a null) of some columns of records that are not ragged."""
        table, _ = self._table(body, {source: pa.binary() for source in sources})
        return {source: _one_chunk(table.column(source)) for source in sources}

    # -- before reading
    def _first_types(self) -> dict[str, pa.DataType]:
        return {c.source: pa.binary() if self._needs_text(c) else self._fast_type(c) for c in self._plan.columns}

    def _needs_text(self, column: Column) -> bool:
        field = column.field
        words = field.type is Type.BOOLEAN and (field.true is not None or field.false is not None)
        slow = field.type in texts.READ_AS_TEXT or field.format is not None or words
        return slow or self._as_text[column.source] > 0

    def _fast_type(self, column: Column) -> pa.DataType:
        if column.field.type is Type.TIMESTAMP and column.source not in self._zoned:
            return texts.LOCAL_TIMESTAMP
        return column.type

    def _set_suspects_aside(self, block: _Block) -> None:
        """Rows the typed reader would take too lightly, and those whose bytes it can't tell us about."""
        block.aside += undecodable(block.records).tolist()
        suspects = None
        if self._suspicious:
            suspects = odd_numbers(block.records, self._plan.dialect, self._kinds(block))
            found = suspects is not None and len(suspects)
            self._suspicious = _SUSPICIOUS_BLOCKS if found else self._suspicious - 1
        if suspects is None:
            if not self._has_integers:
                return
            suspects = hexadecimal(block.records)
        if suspects is not None:
            block.aside = sorted({*block.aside, *suspects.tolist()})
            return
        for column in self._plan.columns:
            if column.field.type is Type.INTEGER:
                block.types[column.source] = pa.binary()

    def _kinds(self, block: _Block) -> NDArray[np.uint8]:
        """-> for each place in the file what is read typed there, of `KINDS`."""
        kinds = np.zeros(len(self._plan.titles), np.uint8)
        for column in self._plan.columns:
            if block.types[column.source] != pa.binary():
                kinds[column.place] = KINDS.get(column.field.type, 0)
        return kinds

    def _pieces(self, records: Records) -> Iterator[Places]:
        """-> places to read together: all of them, unless some rows are likely to be refused.

        A refusal costs reading its piece again, and every piece costs an effort of its own: the sum is least where
        both cost the same.
        """
        places = np.arange(len(records.ordinals))
        piece_bytes = len(records.data)
        if self._refusals_a_byte:
            piece_bytes = math.ceil(math.sqrt(self._piece_effort / self._refusals_a_byte))
        if piece_bytes >= len(records.data):
            yield places
            return
        ends = records.ends[records.ordinals]
        cuts = np.searchsorted(ends, np.arange(piece_bytes, len(records.data), piece_bytes))
        yield from (piece for piece in np.split(places, np.unique(cuts)) if len(piece))

    # -- reading
    def _read_piece(self, block: _Block, places: Places) -> None:
        """Read typed what can be: rows that are refused are set aside, columns that are refused turned to text."""
        refusals = 0
        while len(places):
            try:
                table, ragged = self._table(block.records.pick(places), block.types)
            except pa.ArrowInvalid as error:
                told = _REFUSED.match(str(error))
                column = self._by_place.get(int(told[1])) if told else None
                if told is None or column is None or block.types[column.source] == pa.binary():
                    raise
                if "zone offset in" in str(error) and column.source not in block.turned:
                    block.turned.add(column.source)
                    self._zoned ^= {column.source}
                    block.types[column.source] = self._fast_type(column)
                elif told[2] is not None and refusals < _MOST_REFUSALS:
                    refusals += 1
                    self._suspicious = _SUSPICIOUS_BLOCKS
                    block.refusals += 1
                    row = int(told[2]) - 1
                    block.aside.append(int(places[row]))
                    places = np.delete(places, row)
                else:
                    self._turn_to_text(block, column)
                continue
            self._take(block, places, table, ragged)
            return

    def _turn_to_text(self, block: _Block, column: Column) -> None:
        several = any(left == _REMEMBERED_BLOCKS for left in self._as_text.values())
        # After the second refusal no column is trusted: wide files must not be read over and over.
        for suspect in self._plan.columns if several else [column]:
            if suspect is column or block.types[suspect.source] != pa.string():
                block.types[suspect.source] = pa.binary()
                self._as_text[suspect.source] = _REMEMBERED_BLOCKS

    def _read_aside(self, block: _Block) -> None:
        if not block.aside:
            return
        places = np.array(sorted(block.aside), np.int64)
        body = block.records.pick(places)
        ragged: list[Ragged] = []
        if not is_utf8(body):
            # pyarrow fails when it hands on the text of a ragged record that is not UTF-8. What tells fields apart is
            # ASCII, so any other byte may stand in for the rest.
            _, ragged = self._table(body.translate(_ASCII), {self._plan.columns[0].source: pa.binary()})
            block.ragged += [Ragged(int(places[row.place]), row.found) for row in ragged]
            places = _others(ragged, places)
            body = block.records.pick(places)
        block.types = {column.source: pa.binary() for column in self._plan.columns}
        table, more = self._table(body, block.types)
        self._take(block, places, table, more)

    def _take(self, block: _Block, places: Places, table: pa.Table, ragged: list[Ragged]) -> None:
        """A table that was read: take out what the types do not accept. `ragged` by row of what was read."""
        block.ragged += [Ragged(int(places[row.place]), row.found) for row in ragged]
        places = _others(ragged, places)
        done = {}
        for column in self._plan.columns:
            values = _one_chunk(table.column(column.source))
            if block.types[column.source] == pa.binary() and column.type != pa.binary():
                done[column.name] = texts.convert(values, column.field)
            else:
                done[column.name] = self._checked(block.records, places, values, column)
        block.parts.append(Part(places, done))

    def _table(self, body: bytes, types: Mapping[str, pa.DataType]) -> tuple[pa.Table, list[Ragged]]:
        ragged: list[Ragged] = []
        if not body:
            return pa.table({source: pa.array([], type) for source, type in types.items()}), ragged
        # pyarrow would drop a byte order mark here, in the middle of an object, where it belongs to the first value.
        skipped = int(body.startswith(codecs.BOM_UTF8))
        body = b"\n" * skipped + body

        def note(row: Any) -> str:
            ragged.append(Ragged(row.number - 1 - skipped, row.actual_columns))
            return "skip"

        table = pa.csv.read_csv(
            pa.BufferReader(body),
            read_options=pa.csv.ReadOptions(
                use_threads=False, block_size=len(body) + 1, column_names=self._plan.titles, skip_rows=skipped
            ),
            parse_options=parse_options(self._plan.dialect, note, quoted=self._quote in body),
            convert_options=pa.csv.ConvertOptions(column_types=types, include_columns=list(types), **self._options),
        )
        return table, ragged

    def _checked(self, records: Records, places: NDArray[np.int64], values: pa.Array, column: Column) -> Converted:
        """Take out what the reader accepts and the types do not."""
        kind = column.field.type
        if kind is Type.FLOAT:
            return _nulled(values, texts.not_finite(values))
        if kind is Type.DATE:
            return _nulled(values, texts.out_of_days(values))
        if kind is not Type.TIMESTAMP:
            return Converted(values, np.zeros(len(values), np.bool_))
        if column.source in self._zoned:
            return _nulled(values, texts.out_of_time(values))
        local = texts.localised(values, column.field.timezone)
        bad = local.bad | texts.out_of_time(local.values)
        suspects = np.flatnonzero(texts.midnight(values))
        if len(suspects):
            text = self.texts_of(records.pick(places[suspects]), [column.source])[column.source]
            bad[suspects] |= texts.convert(text, column.field).bad
        return _nulled(local.values, bad)

    def _remember(self, block: _Block) -> None:
        refused = block.refusals / len(block.records.data)
        self._refusals_a_byte += _FORGETTING * (refused - self._refusals_a_byte)
        for column in self._plan.columns:
            if self._as_text[column.source] and not any(part.columns[column.name].bad.any() for part in block.parts):
                self._as_text[column.source] -= 1


class _Block:
    """A block while it is read.

    types     of the columns, by name in the file; binary: read as text
    aside     places of rows to be read as text
    turned    columns whose time zone was tried the other way
    refusals  rows that were refused and set aside
    """

    def __init__(self, records: Records, types: dict[str, pa.DataType]) -> None:
        self.records, self.types = records, types
        self.aside: list[int] = []
        self.turned: set[str] = set()
        self.refusals = 0
        self.parts: list[Part] = []
        self.ragged: list[Ragged] = []


def _nulled(values: pa.Array, bad: Mask) -> Converted:
    if bad.any():
        values = pa.compute.if_else(texts.as_booleans(bad), pa.scalar(None, values.type), values)
    return Converted(values, bad)


def _others(ragged: Collection[Ragged], places: Places) -> Places:
    """-> the places without those of ragged rows."""
    return np.delete(places, [row.place for row in ragged]) if ragged else places


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
