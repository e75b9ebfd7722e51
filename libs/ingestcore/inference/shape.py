"""How a file is written: delimiter, quote, escape, lines before the header, and whether there is a header."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from ingestcore.datasets.spec import DatasetSpec, Dialect, FieldSpec, Type
from ingestcore.tabular.block import parse_block
from ingestcore.tabular.header import fields_of
from ingestcore.tabular.plan import Plan
from ingestcore.tabular.reader import Reader
from ingestcore.tabular.row_ends import record_ends
from ingestcore.tabular.texts import convert

LOOK_BYTES: Final = 256 << 10
"""Of a file's start: enough to see how it is written."""

_DELIMITERS: Final = (",", ";", "\t", "|")
_CONSISTENT: Final = 0.9
"""Share of records that must have as many fields as the first."""

_RATHER: Final = 0.5
"""Share that still speaks for a delimiter where nothing fits better."""

_MAX_PREAMBLE: Final = 20
_MAX_COLUMNS: Final = 10_000
_ESCAPED_QUOTE: Final = re.compile(rb'\\"[^,;\t|\r\n"]')
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_TYPED: Final = (Type.FLOAT, Type.DATE, Type.TIMESTAMP)
_YEARS: Final = range(1800, 2200)


@dataclass(frozen=True, slots=True)
class Shape:
    """titles: of the columns in file order, `column_N` where nothing names them

    dialect   as in a dataset; its `header` says whether the first record names the columns
    remarks   what an operator should know about the guess
    """

    dialect: Dialect
    titles: tuple[str, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Fit:
    """A dialect tried on a file.

    first  fields of the first record; rows: the records after it that have as many; share: of all after it
    lines  line ends up to the first record's own, with those of lines that are skipped
    """

    dialect: Dialect
    first: tuple[str, ...]
    rows: pa.Table
    share: float
    lines: int

    @property
    def rank(self) -> tuple[bool, float, int]:
        consistent = len(self.first) > 1 and self.share >= _CONSISTENT
        return consistent, self.share if len(self.first) > 1 else 0.0, len(self.first)


def shape_of(data: bytes, *, whole: bool) -> Shape | None:
    """-> how a file is written; None: it holds no record. `data`: its first bytes as UTF-8; `whole`: all of them."""
    data = data.removeprefix(codecs.BOM_UTF8)
    window = _window(data, whole=whole)
    fit = _best(window)
    if fit is None:
        return None
    fit = _with_quotes(window, fit)
    return _headed(fit)


def _window(data: bytes, *, whole: bool) -> bytes:
    if whole and len(data) <= LOOK_BYTES:
        return data if data.endswith((b"\n", b"\r")) or not data else data + b"\n"
    return data[:LOOK_BYTES]


def _best(window: bytes) -> _Fit | None:
    """Delimiters at the first record; where none fits, other quotes, comments, or lines before the header."""
    plain = _tried(window)
    if plain is None or plain.rank[0]:
        return plain
    changes: list[dict[str, object]] = []
    changes += [{"quote": "'"}] if b"'" in window else []
    changes += [{"escape": "\\"}] if _ESCAPED_QUOTE.search(window) else []
    changes += [{"comment": "#"}] if window.startswith(b"#") else []
    for change in changes:
        found = _tried(window, **change)
        if found is not None and found.rank[0]:
            return found
    found = _after_preamble(window)
    if found is not None or (len(plain.first) > 1 and plain.share >= _RATHER):
        return found or plain
    # One column: with a delimiter that its texts do not hold.
    return max((fit for fit in _fits(window) if len(fit.first) == 1), key=lambda fit: fit.share, default=plain)


def _tried(window: bytes, **change: object) -> _Fit | None:
    """-> the delimiter that fits best."""
    return max(_fits(window, **change), key=lambda fit: fit.rank, default=None)


def _fits(window: bytes, **change: object) -> list[_Fit]:
    fits = [_fit(window, _changed(Dialect(delimiter=delimiter), **change)) for delimiter in _DELIMITERS]
    return [fit for fit in fits if fit is not None]


def _after_preamble(window: bytes) -> _Fit | None:
    start = 0
    for lines in range(1, _MAX_PREAMBLE + 1):
        start = window.find(b"\n", start) + 1
        if not start:
            return None
        best = _tried(window, skip_rows=lines)
        if best is not None and best.rank[0] and best.rows.num_rows > 1 and all(best.first):
            return best
    return None


def _with_quotes(window: bytes, fit: _Fit) -> _Fit:
    """Single quotes, or quotes escaped by a backslash, where the file is better read so."""
    others: list[dict[str, object]] = []
    if _ESCAPED_QUOTE.search(window):
        others.append({"escape": "\\"})
    if _single_quoted(fit):
        others.append({"quote": "'"})
    for change in others:
        other = _fit(window, _changed(fit.dialect, **change))
        if other is not None and (other.share, len(other.first)) >= (fit.share, min(len(fit.first), len(other.first))):
            return other
    return fit


def _single_quoted(fit: _Fit) -> bool:
    for column in fit.rows.columns:
        texts = column.combine_chunks().drop_null()
        if len(texts) > 1 and pc.all(pc.match_substring_regex(texts, r"\A'(?s:.*)'\z")).as_py():
            return True
    return False


def _fit(window: bytes, dialect: Dialect) -> _Fit | None:
    above = 0
    for _ in range(dialect.skip_rows):
        above = window.find(b"\n", above) + 1
    start = above
    ends = (record_ends(memoryview(window)[above:], dialect) + above).tolist()
    for end in ends:
        record = window[start:end]
        comment = dialect.comment is not None and record.startswith(dialect.comment.encode())
        if record.strip(b"\r\n") and not comment:
            break
        start = end
    else:
        return None
    try:
        first = fields_of(record, dialect)
    except (ValueError, pa.ArrowInvalid):
        return None
    if len(first) > _MAX_COLUMNS:
        return None
    rows, bad = split(window[end : ends[-1]], dialect, len(first))
    lines = len(_LINE_END.findall(window[:end]))
    return _Fit(dialect, first, rows, 1 - bad / max(1, bad + rows.num_rows), lines)


def split(data: bytes, dialect: Dialect, width: int) -> tuple[pa.Table, int]:
    """Records -> their fields as strings, columns `c0` …, and how many records are no rows of that width."""
    fields = {f"c{place}": FieldSpec() for place in range(width)}
    plain = _changed(dialect, header=False, skip_rows=0)
    plan = Plan.of(DatasetSpec(fields=fields, csv=plain), ())
    parsed = parse_block(data, Reader(plan), plan, values_of=0)
    return parsed.rows, len(parsed.bad)


def _headed(fit: _Fit) -> Shape:
    remarks = []
    dialect = fit.dialect
    if dialect.skip_rows:
        remarks.append(f"the first {dialect.skip_rows} lines are no records: skipped")
    header, why = _has_header(fit)
    if why:
        remarks.append(why)
    names = tuple(name or f"column_{place}" for place, name in enumerate(fit.first, 1))
    if not header:
        titles = tuple(f"column_{place}" for place in range(1, len(names) + 1))
        return Shape(_changed(dialect, header=False), titles, tuple(remarks))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        # A header that names a column twice is refused, so columns are taken by their place.
        remarks.append(
            f"the header names {', '.join(twice)} twice: it is skipped and columns are taken by their place, so files "
            "with another order of columns would be misread"
        )
        return Shape(_changed(dialect, header=False, skip_rows=fit.lines), _told_apart(names), tuple(remarks))
    return Shape(dialect, names, tuple(remarks))


def _changed(dialect: Dialect, **change: object) -> Dialect:
    return Dialect.model_validate(dialect.model_dump() | change)


def _told_apart(names: tuple[str, ...]) -> tuple[str, ...]:
    """`a, b, a` -> `a, b, a_2`."""
    taken: list[str] = []
    for name in names:
        number, made = 1, name
        while made in taken or (number > 1 and made in names):
            number += 1
            made = f"{name}_{number}"
        taken.append(made)
    return tuple(taken)


def _has_header(fit: _Fit) -> tuple[bool, str]:
    """-> whether the first record names the columns, and a remark where that is unsure."""
    first = pa.array([name.strip() or None for name in fit.first], pa.string())
    if _consecutive_years(fit.first):
        return True, ""
    typed_cells = [_type_of(first.slice(place, 1)) for place in range(len(first))]
    if not fit.rows.num_rows:
        # One record: names, unless it holds a number or a date.
        return (False, "one record, which holds values: taken as a row") if any(typed_cells) else (True, "")
    yes = no = 0
    for cell, column in zip(typed_cells, fit.rows.columns, strict=True):
        values = column.combine_chunks().drop_null()
        kind = _type_of(values)
        if kind is not None:
            yes, no = yes + (cell is None), no + (cell is not None)
    if yes or no:
        if yes and no:
            return yes >= no, "whether the first record is a header is unsure: look at it"
        return yes > 0, "" if yes else "the first record looks like a row: taken as one, columns are numbered"
    if any(typed_cells):
        return False, "the first record holds a number or a date: taken as a row, columns are numbered"
    if _recurs(fit):
        return False, "values of the first record come again below: taken as a row, columns are numbered"
    return True, "" if len(fit.first) > 1 else "nothing tells whether the first record is a header: taken as one"


def _type_of(values: pa.Array) -> Type | None:
    """-> a type that is not text and that all values are of."""
    if not len(values) or values.null_count == len(values):
        return None
    raw = values.cast(pa.binary())
    return next((kind for kind in _TYPED if not convert(raw, FieldSpec(type=kind)).bad.any()), None)


def _recurs(fit: _Fit) -> bool:
    """Whether most fields of the first record stand in their columns again: names do not, values of few kinds do."""
    again = 0
    for name, column in zip(fit.first, fit.rows.columns, strict=True):
        values = column.combine_chunks()
        again += bool(name) and bool(pc.any(pc.equal(values, name)).as_py())
    return again * 2 > len(fit.first)


def _consecutive_years(names: tuple[str, ...]) -> bool:
    years = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) == 4]
    in_a_row = all(later - year == 1 for year, later in pairwise(years))
    return len(years) > 1 and in_a_row and years[0] in _YEARS and len(years) < len(names)
