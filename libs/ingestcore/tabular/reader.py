"""The one judge of values: pyarrow's typed CSV reader, fed one block at a time.

A block is read typed in one go. A column the reader refuses is read again as text, judged and converted by
`texts.convert`; so is a column in which it may have accepted too much. Both ways give the same verdict on every
value (the tests compare them), so a row's fate never depends on its neighbours or on where blocks are cut.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Collection, Mapping
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
from ingestcore.tabular.records import Records
from ingestcore.tabular.texts import Converted, Mask

_REMEMBERED_BLOCKS: Final = 16
"""A column that was refused is read as text at once for this many blocks: it is likely to be refused again."""

_ASCII: Final = bytes(byte if byte < 0x80 else ord("?") for byte in range(256))
_LOWER_HEX: Final = int.from_bytes(b"0x", "little")
_UPPER_HEX: Final = int.from_bytes(b"0X", "little")
_REFUSED = re.compile(r"In CSV column #(\d+): ")


@dataclass(frozen=True, slots=True)
class Ragged:
    """A record with the wrong number of fields. `place`: among the records read, from 0."""

    place: int
    found: int


@dataclass(frozen=True, slots=True)
class Read:
    """What the reader made of a block.

    columns  by output name; where `bad`, the value is null
    places   of the rows among the records read, ascending: all but the ragged ones
    """

    columns: Mapping[str, Converted]
    places: NDArray[np.int64]
    ragged: tuple[Ragged, ...]


class Reader:
    """Reads blocks of one plan. Remembers which columns needed the slow way: that changes the speed, never a result."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._by_place = {column.place: column for column in plan.columns}
        self._as_text: Counter[str] = Counter()
        self._zoned: set[str] = set()
        self._has_integers = any(column.field.type is Type.INTEGER for column in plan.columns)
        self._options: dict[str, Any] = {
            "strings_can_be_null": True,
            "quoted_strings_can_be_null": False,
            "null_values": list(plan.dialect.null_values),
        }
        if any(column.field.type is Type.BOOLEAN for column in plan.columns):
            true, false = texts.boolean_words(FieldSpec(type=Type.BOOLEAN))
            self._options |= {"true_values": list(true), "false_values": list(false)}

    def read(self, records: Records) -> Read:
        """Read the records that carry data, of which there must be some."""
        body, ragged = records.body, []
        if not _is_utf8(body):
            ragged = self._ragged_of(body)
            body = records.pick(_others(ragged, len(records.ordinals)))
        types = self._first_types(body)
        table, more = self._settle(body, types)
        ragged += more
        places = _others(ragged, table.num_rows + len(ragged))
        done = {}
        for column in self._plan.columns:
            values = _one_chunk(table.column(column.source))
            if types[column.source] == pa.binary() and column.type != pa.binary():
                done[column.name] = texts.convert(values, column.field)
            else:
                done[column.name] = self._checked(records, places, values, column)
        self._forget(types, done)
        return Read(done, places, tuple(ragged))

    def texts_of(self, body: bytes, sources: Collection[str]) -> dict[str, pa.Array]:
        """-> raw texts (binary, null where the reader sees a null) of some columns of records that are not ragged."""
        table, _ = self._table(body, {source: pa.binary() for source in sources})
        return {source: _one_chunk(table.column(source)) for source in sources}

    def _ragged_of(self, body: bytes) -> list[Ragged]:
        """-> ragged records of a block that is not UTF-8: pyarrow fails when it hands on the text of such a record.
        What tells fields apart is ASCII, so any other byte may stand in for the rest."""
        _, ragged = self._table(body.translate(_ASCII), {self._plan.columns[0].source: pa.binary()})
        return ragged

    def _first_types(self, body: bytes) -> dict[str, pa.DataType]:
        hexadecimal = self._has_integers and _has_hexadecimal(body)
        types = {}
        for column in self._plan.columns:
            field = column.field
            slow = (
                field.format is not None
                or (field.type is Type.BOOLEAN and (field.true is not None or field.false is not None))
                or (field.type is Type.INTEGER and hexadecimal)
                or self._as_text[column.source] > 0
            )
            types[column.source] = pa.binary() if slow else self._fast_type(column)
        return types

    def _fast_type(self, column: Column) -> pa.DataType:
        if column.field.type is Type.TIMESTAMP and column.source not in self._zoned:
            return texts.LOCAL_TIMESTAMP
        return column.type

    def _settle(self, body: bytes, types: dict[str, pa.DataType]) -> tuple[pa.Table, list[Ragged]]:
        """Read, moving columns that are refused to text, until nothing is refused."""
        turned: set[str] = set()
        while True:
            try:
                return self._table(body, types)
            except pa.ArrowInvalid as error:
                refused = _REFUSED.match(str(error))
                column = self._by_place.get(int(refused[1])) if refused else None
                if column is None or types[column.source] == pa.binary():
                    raise
                if "zone offset in" in str(error) and column.source not in turned:
                    turned.add(column.source)
                    self._zoned ^= {column.source}
                    types[column.source] = self._fast_type(column)
                    continue
                # After the second refusal no column is trusted: wide files must not be read over and over.
                several = any(left == _REMEMBERED_BLOCKS for left in self._as_text.values())
                suspects = (
                    [column] if not several else [c for c in self._plan.columns if types[c.source] != pa.string()]
                )
                for suspect in (*suspects, column):
                    types[suspect.source] = pa.binary()
                    self._as_text[suspect.source] = _REMEMBERED_BLOCKS

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
            parse_options=parse_options(self._plan.dialect, note),
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

    def _forget(self, types: Mapping[str, pa.DataType], done: Mapping[str, Converted]) -> None:
        for column in self._plan.columns:
            if self._as_text[column.source] and not done[column.name].bad.any():
                self._as_text[column.source] -= 1


def _nulled(values: pa.Array, bad: Mask) -> Converted:
    if bad.any():
        values = pa.compute.if_else(pa.array(bad), pa.scalar(None, values.type), values)
    return Converted(values, bad)


def _others(ragged: Collection[Ragged], count: int) -> NDArray[np.int64]:
    """-> places of the records that are not ragged."""
    return np.delete(np.arange(count), [row.place for row in ragged]) if ragged else np.arange(count)


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    text = pa.Array.from_buffers(
        pa.large_string(), 1, [None, pa.py_buffer(np.array([0, len(body)], np.int64)), pa.py_buffer(body)]
    )
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _has_hexadecimal(body: bytes) -> bool:
    """Whether `0x` or `0X` stands anywhere: the reader takes such integers. Two bytes are compared at a time."""
    for first in (0, 1):
        pairs = np.frombuffer(body, "<u2", (len(body) - first) // 2, first) if len(body) > first else np.empty(0)
        if (pairs == _LOWER_HEX).any() or (pairs == _UPPER_HEX).any():
            return True
    return False


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
