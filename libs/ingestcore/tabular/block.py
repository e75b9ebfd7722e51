"""One block of a CSV -> typed rows and bad rows. Pure; every record of the block comes out once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.stage import Unbalanced
from ingestcore.tabular import texts
from ingestcore.tabular.plan import Column, Plan
from ingestcore.tabular.reader import Part, Read, Reader
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
    judged = [_judge(part, plan) for part in read.parts]
    rows, places = _good_rows(judged, plan)
    bad = [
        *_ragged(read, records, plan),
        *_named(judged, records, plan, reader, values_of),
        *_open_quote(records),
    ]
    return Parsed(records, rows, records.ordinals[places], tuple(sorted(bad, key=lambda row: row.ordinal)))


@dataclass(frozen=True, slots=True)
class _Judged:
    """A part of a block. `broken`: per row the number of the first check it breaks, -1: none."""

    part: Part
    broken: NDArray[np.int64]


def _judge(part: Part, plan: Plan) -> _Judged:
    broken = np.full(len(part.places), -1, np.int64)
    found = [part.columns[column.name].bad for column in plan.columns]
    found += [rule.broken(part.columns[column.name].values) for column in plan.columns for rule in column.rules]
    for number, bad in enumerate(found):
        if bad.any():
            broken[bad & (broken < 0)] = number
    return _Judged(part, broken)


def _good_rows(judged: list[_Judged], plan: Plan) -> tuple[pa.Table, NDArray[np.int64]]:
    """-> rows that break nothing, in their order, and their places."""
    tables, places = [plan.schema.empty_table()], [np.empty(0, np.int64)]
    for part, broken in ((one.part, one.broken) for one in judged):
        good = broken < 0
        if good.all():
            tables.append(_rows(part, plan))
            places.append(part.places)
        elif good.any():
            tables.append(_rows(part, plan).filter(pa.array(good)))
            places.append(part.places[good])
    rows, place = pa.concat_tables(tables), np.concatenate(places)
    # Good rows among those that were set aside: back to where they were.
    if (place[1:] < place[:-1]).any():
        order = np.argsort(place)
        rows, place = rows.take(pa.array(order)), place[order]
    return rows, place


def _checks(plan: Plan) -> list[tuple[Column, str]]:
    """What a row can break, in the order in which it is reported: types first, then rules, each by column."""
    types = [(column, f"is not {texts.expected(column.field, plan.dialect.encoding)}") for column in plan.columns]
    return types + [(column, f"must {rule.wanted}") for column in plan.columns for rule in column.rules]


def _rows(part: Part, plan: Plan) -> pa.Table:
    count = len(part.places)
    columns = [
        part.columns[name].values if name in part.columns else pa.nulls(count, type)
        for name, type in zip(plan.schema.names, plan.schema.types, strict=True)
    ]
    return pa.table(columns, schema=plan.schema)


def _named(judged: list[_Judged], records: Records, plan: Plan, reader: Reader, values_of: int) -> list[BadRow]:
    """Bad rows with column, sentence and, for the first ones, the value."""
    broken = np.concatenate([one.broken for one in judged])
    places = np.concatenate([one.part.places for one in judged])
    at = np.flatnonzero(broken >= 0)
    if not len(at):
        return []
    at = at[np.argsort(places[at])]
    checks = _checks(plan)
    looked_up = at[:values_of]
    sources = {checks[number][0].source for number in np.unique(broken[looked_up]).tolist()}
    values = reader.texts_of(records.pick(places[looked_up]), sources)
    ordinals = records.ordinals[places[at]].tolist()
    rows = []
    for i, (ordinal, number) in enumerate(zip(ordinals, broken[at].tolist(), strict=True)):
        column, words = checks[number]
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
