"""What rows of one plan break, and which are good: the one judge of rows, whatever they were read from. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.tabular import texts
from ingestcore.tabular.plan import Column
from ingestcore.tabular.reader import Part


@dataclass(frozen=True, slots=True)
class Judged:
    """Some rows. `broken`: per row the number of the first of the `checks` it breaks, -1: none."""

    part: Part
    broken: NDArray[np.int64]


def checks(columns: Sequence[Column], encoding: str) -> list[tuple[Column, str]]:
    """What a row can break, in the order in which it is reported: types first, then rules, each by column.

    encoding  the rows were read from; for messages
    """
    types = [(column, f"is not {texts.expected(column.field, encoding)}") for column in columns]
    return types + [(column, f"must {rule.wanted}") for column in columns for rule in column.rules]


def judge(part: Part, columns: Sequence[Column]) -> Judged:
    """-> which of the rows break what."""
    broken = np.full(len(part.places), -1, np.int64)
    found = [part.columns[column.name].bad for column in columns]
    found += [rule.broken(part.columns[column.name].values) for column in columns for rule in column.rules]
    for number, bad in enumerate(found):
        if bad.any():
            broken[bad & (broken < 0)] = number
    return Judged(part, broken)


def good_rows(judged: Sequence[Judged], schema: pa.Schema) -> tuple[pa.Table, NDArray[np.int64]]:
    """-> rows that break nothing, in their order, and their places."""
    tables, places = [schema.empty_table()], [np.empty(0, np.int64)]
    for part, broken in ((one.part, one.broken) for one in judged):
        good = broken < 0
        if good.all():
            tables.append(_rows(part, schema))
            places.append(part.places)
        elif good.any():
            tables.append(_rows(part, schema).filter(texts.as_booleans(good)))
            places.append(part.places[good])
    rows, place = pa.concat_tables(tables), np.concatenate(places)
    # Good rows among those that were set aside: back to where they were.
    if (place[1:] < place[:-1]).any():
        order = np.argsort(place)
        rows, place = rows.take(pa.array(order)), place[order]
    return rows, place


def _rows(part: Part, schema: pa.Schema) -> pa.Table:
    count = len(part.places)
    columns = [
        part.columns[name].values if name in part.columns else pa.nulls(count, type)
        for name, type in zip(schema.names, schema.types, strict=True)
    ]
    return pa.table(columns, schema=schema)
