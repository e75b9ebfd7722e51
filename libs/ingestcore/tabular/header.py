"""The header record: read once per object, judged against the dataset before the first block."""

from __future__ import annotations

import codecs
from collections import Counter

import pyarrow as pa
import pyarrow.csv

from ingestcore.datasets.encodings import UTF_8, spelled
from ingestcore.datasets.spec import DatasetSpec, Dialect, FieldSpec, OnExtra
from ingestcore.tabular.dialect import parse_options
from ingestcore.tabular.transcode import to_utf8

_SHOWN = 12
"""Names listed in a message at most."""


def read_header(record: bytes, dialect: Dialect) -> tuple[str, ...]:
    """-> column names in file order, read as the reader reads fields; a UTF-8 byte order mark is dropped.

    A column without a name (a trailing delimiter, a pandas index) is called `column_N`, N from 1.
    Raises ValueError with advice: empty, not in its encoding, a name twice.
    """
    found = fields_of(record, dialect)
    names = tuple(name or f"column_{place}" for place, name in enumerate(found, 1))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"the header names a column twice: {_listed(twice)}; rename one of them in the file")
    return names


def fields_of(record: bytes, dialect: Dialect) -> tuple[str, ...]:
    """-> texts of the fields of a record at the start of an object; a UTF-8 byte order mark is dropped.

    Raises ValueError with advice: empty, not in its encoding.
    """
    if dialect.encoding == UTF_8:
        record = record.removeprefix(codecs.BOM_UTF8)
    try:
        record.decode(dialect.encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the header is not {spelled(dialect.encoding)} (byte {error.start} of it): say what it is, "
            "e.g. `csv: {encoding: windows-1252}`, or convert the file"
        ) from error
    record = to_utf8(record, dialect.encoding)
    record = record if record.endswith((b"\n", b"\r")) else record + b"\n"
    if not record.strip(b"\r\n"):
        raise ValueError("the header is empty: set `csv: {skip_rows: …}` if it comes later, or `csv: {header: false}`")
    # The line feed keeps a second byte order mark, which would be part of the first name, from being dropped.
    options = pa.csv.ReadOptions(skip_rows=1, use_threads=False, block_size=len(record) + 2)
    table = pa.csv.read_csv(pa.BufferReader(b"\n" + record), read_options=options, parse_options=parse_options(dialect))
    return tuple(table.schema.names)


def source_columns(columns: tuple[str, ...], spec: DatasetSpec) -> tuple[str, ...]:
    """-> names of the file's columns in order; without a header they are the dataset's fields."""
    return columns if spec.csv.header else tuple(_source(name, field) for name, field in spec.named.items())


def rest_columns(columns: tuple[str, ...], spec: DatasetSpec) -> tuple[str, ...]:
    """-> columns of the file that no field names, in file order."""
    taken = {_source(name, field) for name, field in spec.named.items()}
    return tuple(name for name in source_columns(columns, spec) if name not in taken)


def judge_header(columns: tuple[str, ...], spec: DatasetSpec) -> str | None:
    """-> None: a file with this header fits the dataset. Else one sentence to an operator (SCHEMA_DRIFT).

    `columns`: as from `read_header`; empty where the dialect has no header.
    """
    if not spec.csv.header:
        return None if spec.named else "`csv: {header: false}` needs `fields`, in the order of the columns"
    named = {name: _source(name, field) for name, field in spec.named.items()}
    twice = [source for source, count in Counter(named.values()).items() if count > 1]
    if twice:
        return f"two fields are read from one column: {_listed(twice)}; correct their `from:`"
    missing = [named[name] for name, field in spec.named.items() if _needed(field) and named[name] not in columns]
    if missing:
        return (
            f"required column missing: {_listed(missing)}; the header has {_listed(columns)}. "
            "Add the column, name its new title with `from:`, or set `required: false`"
        )
    extra = rest_columns(columns, spec)
    if spec.rest is None:
        if extra and spec.on_extra is OnExtra.FREEZE:
            return (
                f"columns the dataset does not name: {_listed(extra)}. "
                'Add them to `fields`, allow them with `"*"`, or set `on_extra: discard_value`'
            )
        return None
    return _judge_rest(extra, named) or _judge_keys(columns, spec)


def _judge_rest(extra: tuple[str, ...], named: dict[str, str]) -> str | None:
    """Columns that go out under their own names."""
    ours = [name for name in extra if name.startswith("_")]
    if ours:
        return (
            f"column names that start with _ are the platform's: {_listed(ours)}. "
            "Rename them with a field that has `from:`, e.g. `key: {from: _key}`"
        )
    clash = [name for name in extra if name in named]
    if clash:
        return (
            f"column {_listed(clash)} would go out under the name of a field that is read from {named[clash[0]]!r}. "
            "Give the column a field of its own with `from:`, or rename the field"
        )
    return None


def _judge_keys(columns: tuple[str, ...], spec: DatasetSpec) -> str | None:
    """Key columns that only the header can provide."""
    keys = spec.key_columns()
    wanted = [
        *spec.primary_key,
        *(keys if isinstance(keys, tuple) else ()),
        *([spec.revision] if spec.revision else []),
    ]
    missing = [name for name in dict.fromkeys(wanted) if name not in spec.named and name not in columns]
    if missing:
        return f"key column missing: {_listed(missing)}; the header has {_listed(columns)}"
    return None


def _needed(field: FieldSpec) -> bool:
    # A column that may be missing but not null would refuse every row of the file.
    return field.required or not field.nullable


def _source(name: str, field: FieldSpec) -> str:
    return field.from_ or name


def _listed(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
