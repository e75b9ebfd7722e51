"""One block of a CSV -> typed rows and bad rows. Pure; every record of the block comes out once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.stage import Unbalanced
from ingestcore.tabular import texts
from ingestcore.tabular.judge import Judged, checks, good_rows, judge
from ingestcore.tabular.plan import Plan
from ingestcore.tabular.reader import Read, Reader
from ingestcore.tabular.records import Records


@dataclass(frozen=True, slots=True)
class BadRow:
    """A record that is no row of the dataset. `ordinal`: from 0 in the block; `column`: by its name in the rows."""

    ordinal: int
    message: str
    column: str = ""
    value: str = ""


@dataclass(frozen=True)
class Parsed:
    """What became of a block: `len(ordinals) + len(bad) + records.blank == records.count`.

    rows      good rows, columns of `Plan.schema`
    ordinals  number of each good row's record in the block, from 0, ascending
    bad       the others in order; a storm carries the value of its first rows only
    """

    records: Records
    rows: pa.Table
    ordinals: NDArray[np.int64]
    bad: tuple[BadRow, ...]


def parse_block(data: bytes, reader: Reader, plan: Plan, values_of: int = 1000) -> Parsed:
    """Parse whole records. `values_of`: bad rows whose offending value is looked up.

    Raises Unbalanced: the reader and the scan of record ends count differently (a defect).
    """
    records = Records.of(data, plan.dialect)
    if not len(records.ordinals):
        return Parsed(records, plan.schema.empty_table(), records.ordinals, _open_quote(records))
    read = reader.read(records)
    seen = sum(len(part.places) for part in read.parts)
    if seen + len(read.ragged) != len(records.ordinals):
        raise Unbalanced(
            f"the reader saw {seen} rows and {len(read.ragged)} ragged ones, the scan {len(records.ordinals)} records"
        )
    judged = [judge(part, plan.columns) for part in read.parts]
    rows, places = good_rows(judged, plan.schema)
    bad = [
        *_ragged(read, records, plan),
        *_named(judged, records, plan, reader, values_of),
        *_open_quote(records),
    ]
    return Parsed(records, rows, records.ordinals[places], tuple(sorted(bad, key=lambda row: row.ordinal)))


def _named(judged: list[Judged], records: Records, plan: Plan, reader: Reader, values_of: int) -> list[BadRow]:
    """Bad rows with column, sentence and, for the first ones, the value."""
    broken = np.concatenate([one.broken for one in judged])
    places = np.concatenate([one.part.places for one in judged])
    at = np.flatnonzero(broken >= 0)
    if not len(at):
        return []
    at = at[np.argsort(places[at])]
    known = checks(plan.columns, plan.dialect.encoding)
    looked_up = at[:values_of]
    sources = {known[number][0].source for number in np.unique(broken[looked_up]).tolist()}
    values = reader.texts_of(records.pick(places[looked_up]), sources)
    ordinals = records.ordinals[places[at]].tolist()
    rows = []
    for i, (ordinal, number) in enumerate(zip(ordinals, broken[at].tolist(), strict=True)):
        column, words = known[number]
        value = texts.shown(values[column.source][i].as_py()) if i < len(looked_up) else ""
        rows.append(BadRow(ordinal, f"{column.name} {words}", column.name, value))
    return rows


def _ragged(read: Read, records: Records, plan: Plan) -> list[BadRow]:
    wanted = len(plan.titles)
    return [
        BadRow(int(records.ordinals[row.place]), f"{wanted} columns are expected and {row.found} were found")
        for row in read.ragged
    ]


def _open_quote(records: Records) -> tuple[BadRow, ...]:
    if not records.open_quote:
        return ()
    return (BadRow(records.count - 1, "a quote is opened and never closed: close it, or double it within the value"),)
