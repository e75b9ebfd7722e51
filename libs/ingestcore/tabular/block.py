"""One block of a CSV -> typed rows and bad rows. Pure; every record of the block comes out once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.stage import Unbalanced
from ingestcore.tabular import texts
from ingestcore.tabular.plan import Column, Plan
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
    if len(read.places) + len(read.ragged) != len(records.ordinals):
        raise Unbalanced(
            f"the reader saw {len(read.places)} rows and {len(read.ragged)} ragged ones, "
            f"the scan {len(records.ordinals)} records"
        )
    broken = _broken(read, plan)
    good = broken < 0
    ordinals = records.ordinals[read.places]
    rows = _rows(read, plan)
    bad = [
        *_ragged(read, records, plan),
        *_named(broken, read, records, plan, reader, values_of),
        *_open_quote(records),
    ]
    if not good.all():
        rows, ordinals = rows.filter(pa.array(good)), ordinals[good]
    return Parsed(records, rows, ordinals, tuple(sorted(bad, key=lambda row: row.ordinal)))


def _checks(plan: Plan) -> list[tuple[Column, str]]:
    """What a row can break, in the order in which it is reported: types first, then rules, each by column."""
    types = [(column, f"is not {texts.expected(column.field)}") for column in plan.columns]
    return types + [(column, f"must {rule.wanted}") for column in plan.columns for rule in column.rules]


def _broken(read: Read, plan: Plan) -> NDArray[np.int64]:
    """-> per row the number of the first check it breaks, -1: none."""
    first = np.full(len(read.places), -1, np.int64)
    number = 0
    unreadable = np.zeros(len(first), np.bool_)
    for column in plan.columns:
        bad = read.columns[column.name].bad
        if bad.any():
            first[bad & (first < 0)] = number
            unreadable |= bad
        number += 1
    for column in plan.columns:
        for rule in column.rules:
            bad = rule.broken(read.columns[column.name].values)
            if bad.any():
                first[bad & (first < 0)] = number
            number += 1
    return first


def _rows(read: Read, plan: Plan) -> pa.Table:
    count = len(read.places)
    columns = [
        read.columns[name].values if name in read.columns else pa.nulls(count, type)
        for name, type in zip(plan.schema.names, plan.schema.types, strict=True)
    ]
    return pa.table(columns, schema=plan.schema)


def _named(
    broken: NDArray[np.int64], read: Read, records: Records, plan: Plan, reader: Reader, values_of: int
) -> list[BadRow]:
    """Bad rows with column, sentence and, for the first ones, the value."""
    at = np.flatnonzero(broken >= 0)
    if not len(at):
        return []
    checks = _checks(plan)
    looked_up = at[:values_of]
    sources = {checks[number][0].source for number in np.unique(broken[looked_up]).tolist()}
    values = reader.texts_of(records.pick(read.places[looked_up]), sources)
    ordinals = records.ordinals[read.places[at]].tolist()
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
