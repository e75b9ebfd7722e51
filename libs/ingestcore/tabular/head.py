"""The head of an object: byte order mark, skipped lines, header record. Judged once, before the first block."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ingestcore.datasets.encodings import UTF_8
from ingestcore.datasets.spec import DatasetSpec, Dialect
from ingestcore.tabular.header import judge_header, read_header
from ingestcore.tabular.row_ends import record_ends

FIRST_BYTES: Final = 64 << 10
"""Bytes looked at first; four times as many each time they are not enough."""

LIMIT_BYTES: Final = 16 << 20
"""A head longer than this (and than a record may be) is no head."""

# UTF-32 first: its little-endian mark starts with that of UTF-16.
_OTHER_MARKS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32LE",
    codecs.BOM_UTF32_BE: "UTF-32BE",
    codecs.BOM_UTF16_LE: "UTF-16LE",
    codecs.BOM_UTF16_BE: "UTF-16BE",
}
_LINE_END: Final = re.compile(rb"\n|\r\n?")


@dataclass(frozen=True, slots=True)
class Head:
    """columns: names in file order, empty without a header; size: bytes before the first record."""

    columns: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Drift:
    """The object cannot be read by this dataset. raw: the header record, or what stands in its place."""

    message: str
    columns: tuple[str, ...]
    raw: bytes


def find_head(data: bytes, spec: DatasetSpec, *, whole: bool, max_row_bytes: int) -> Head | Drift | None:
    """-> what the head of an object is; None: more bytes are needed.

    data   the object's first bytes; whole: these are all there are
    Blank and comment records before the header are skipped. An object without a header record is empty, not wrong.
    """
    if not whole and len(data) < len(codecs.BOM_UTF32_LE):
        return None
    for mark, encoding in _OTHER_MARKS.items():
        if data.startswith(mark):
            return Drift(_not_read(encoding), (), data[:FIRST_BYTES])
    if data.startswith(codecs.BOM_UTF8) and spec.csv.encoding != UTF_8:
        message = f"the object begins with the mark of UTF-8, and `encoding: {spec.csv.encoding}` is set for it"
        return Drift(f"{message}: give these files a dataset without `encoding`", (), data[:FIRST_BYTES])
    start: int | None = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    start = _skip_lines(data, start or 0, spec.csv.skip_rows, whole=whole)
    if start is None:
        return _too_far(data, max_row_bytes)
    if not spec.csv.header:
        problem = judge_header((), spec)
        return Drift(problem, (), b"") if problem else Head((), start)
    found = _header_record(data, start, spec.csv, whole=whole)
    if found is None:
        return _too_far(data, max_row_bytes)
    if isinstance(found, Drift):
        return found
    return _judge(data[found[0] : found[1]], found[1], spec, max_row_bytes)


def _judge(record: bytes, end: int, spec: DatasetSpec, max_row_bytes: int) -> Head | Drift:
    if not record:
        return Head((), end)
    if len(record) > max_row_bytes:
        return Drift(f"the header is longer than max_row_bytes ({max_row_bytes})", (), record[:FIRST_BYTES])
    if b"\0" in record:
        return Drift(_not_read("UTF-16LE"), (), record)
    try:
        columns = _columns(record, spec.csv)
    except ValueError as error:
        return Drift(str(error), (), record)
    problem = judge_header(columns, spec)
    return Drift(problem, columns, record) if problem else Head(columns, end)


@lru_cache(maxsize=64)
def _columns(record: bytes, dialect: Dialect) -> tuple[str, ...]:
    """As `read_header`, which takes longer than all else about a small object; most headers come again and again."""
    return read_header(record, dialect)


def _skip_lines(data: bytes, start: int, lines: int, *, whole: bool) -> int | None:
    """-> offset after `lines` lines, quotes meaning nothing; None: more bytes are needed."""
    for _ in range(lines):
        found = _LINE_END.search(data, start)
        # A CR at the end may be half of a CR LF.
        if not whole and (found is None or (found.end() == len(data) and data.endswith(b"\r"))):
            return None
        start = found.end() if found else len(data)
    return start


def _header_record(data: bytes, start: int, dialect: Dialect, *, whole: bool) -> tuple[int, int] | Drift | None:
    """-> (first byte, exclusive end) of the first record that is neither blank nor a comment; empty at the end of the
    object: there is none. None: more bytes are needed."""
    window = memoryview(data)[start:]
    for end in (record_ends(window, dialect) + start).tolist():
        if not _is_skipped(data[start:end], dialect):
            return start, end
        start = end
    if not whole:
        return None
    tail = data[start:]
    if _is_skipped(tail, dialect):
        return len(data), len(data)
    if not len(record_ends(tail + b"\n", dialect)):
        return Drift("a quote in the header is never closed", (), tail[:FIRST_BYTES])
    return start, len(data)


def _is_skipped(record: bytes, dialect: Dialect) -> bool:
    return not record.strip(b"\r\n") or (dialect.comment is not None and record.startswith(dialect.comment.encode()))


def _too_far(data: bytes, max_row_bytes: int) -> Drift | None:
    if len(data) < max(LIMIT_BYTES, max_row_bytes):
        return None
    return Drift(f"no header within the first {len(data)} bytes: look for a quote never closed", (), data[:FIRST_BYTES])


def _not_read(encoding: str) -> str:
    return f"the object is {encoding}, which is not read: convert it, e.g. `iconv -f {encoding} -t UTF-8`"
