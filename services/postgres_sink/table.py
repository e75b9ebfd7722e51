"""A table as the sink wants it: columns and types from a dataset's spec, its key, and how a found one differs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from ingestcore.datasets.spec import DatasetSpec, Type
from ingestcore.messages.rows import KEY, OBJECT, PROVENANCE, ROW

TENANT: Final = "_tenant"
INGESTED_AT: Final = "_ingested_at"
TOPIC_ID, PARTITION, OFFSET, INDEX = "_topic_id", "_partition", "_offset", "_index"

PLATFORM: Final[Mapping[str, str]] = {
    TENANT: "text",
    KEY: "bytea",
    ROW: "bigint",
    PROVENANCE: "jsonb",
    INGESTED_AT: "timestamp with time zone",
    TOPIC_ID: "text",
    PARTITION: "integer",
    OFFSET: "bigint",
    INDEX: "integer",
}
"""Columns of every table, after the dataset's own: whose row it is, its key, its place in the object, where it came
from, when it was published, and its place in `ingest.normalized`."""

_NOT_OWN: Final = (KEY, OBJECT, ROW, PROVENANCE)
_IDENTIFIER_BYTES: Final = 63
_TEXTS: Final = ("text", "character varying", "citext")
_ALSO: Final[Mapping[str, Sequence[str]]] = {
    "text": _TEXTS,
    "bigint": ("bigint", "integer", "smallint", "numeric"),
    "double precision": ("double precision", "real", "numeric"),
    "boolean": ("boolean",),
    "date": ("date",),
    "timestamp with time zone": ("timestamp with time zone",),
    "jsonb": ("jsonb", "json", "text"),
    "numeric": ("numeric",),
    "bytea": ("bytea",),
    "integer": ("integer", "bigint"),
}
"""By type wanted: types of a table that somebody else made which take the values. A value too large or too long for one
of them is that row's dead letter."""


@dataclass(frozen=True, slots=True)
class Table:
    """What a dataset's rows need.

    typed     all columns with their types, in order
    key       columns that make two rows the same entity; they have a unique index
    revision  column that says which row of an entity is newer; None: the later one is
    """

    schema: str
    name: str
    typed: tuple[tuple[str, str], ...]
    key: tuple[str, ...]
    revision: str | None

    @property
    def columns(self) -> dict[str, str]:
        """-> types by name."""
        return dict(self.typed)

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class FoundColumn:
    """A column of a table as the database describes it. `demands`: not nullable and without a default."""

    type: str
    nullable: bool
    demands: bool


@dataclass(frozen=True, slots=True)
class FoundTable:
    """`unique`: column sets of its unique indexes."""

    columns: Mapping[str, FoundColumn]
    unique: Sequence[frozenset[str]]


def table_of(schema: str, name: str, spec: DatasetSpec, batch: pa.Schema) -> Table:
    """-> the table for rows of one version of a dataset. `batch`: of its normalized messages."""
    own = {field.name: _own_type(field, spec) for field in batch if field.name not in _NOT_OWN}
    # Rows of two tenants may have the same primary key. Keys of the platform hold the tenant already.
    key = (*spec.primary_key, TENANT) if spec.primary_key else (KEY,)
    return Table(schema, name, (*own.items(), *PLATFORM.items()), key, spec.revision)


def own_columns(table: Table) -> list[str]:
    return [name for name in table.columns if name not in PLATFORM]


def _own_type(field: pa.Field, spec: DatasetSpec) -> str:
    declared = spec.named.get(field.name, spec.rest)
    return "jsonb" if declared is not None and declared.type is Type.JSON else _sql_type(field.type)


def _sql_type(type: pa.DataType) -> str:
    """Raises ValueError: no dataset has such a column."""
    if pa.types.is_decimal(type):
        return f"numeric({type.precision},{type.scale})"
    if pa.types.is_timestamp(type):
        return "timestamp with time zone"
    names = {
        "string": "text",
        "int64": "bigint",
        "double": "double precision",
        "bool": "boolean",
        "date32[day]": "date",
    }
    if str(type) not in names:
        raise ValueError(f"no SQL type for {type}")
    return names[str(type)]


def create_statement(table: Table) -> str:
    columns = [f"{quoted(name)} {type}" for name, type in table.columns.items()]
    return f"CREATE TABLE IF NOT EXISTS {table.sql} ({', '.join((*columns, f'PRIMARY KEY ({_listed(table.key)})'))})"


def add_statement(table: Table, names: Sequence[str]) -> str:
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {quoted(name)} {table.columns[name]}" for name in names)
    return f"ALTER TABLE {table.sql} {added}"


def lacking(table: Table, found: FoundTable) -> list[str]:
    """-> columns the found table does not have."""
    return [name for name in table.columns if name not in found.columns]


def refusals(table: Table, found: FoundTable) -> Iterator[str]:
    """-> why rows can't go into a found table, each with what to do."""
    for name in table.columns:
        if len(name.encode()) > _IDENTIFIER_BYTES:
            yield f"column {name!r} has more than {_IDENTIFIER_BYTES} bytes: give the field a shorter name with `from:`"
    for name, type in table.columns.items():
        there = found.columns.get(name)
        if there is not None and not _takes(type, there.type):
            yield (
                f"column {name} is {there.type}, the dataset's is {type}: change it by hand "
                f"(ALTER TABLE {table.sql} ALTER COLUMN {quoted(name)} TYPE {type}), or write to another table"
            )
    for name, column in found.columns.items():
        if name not in table.columns and column.demands:
            yield f"column {name} may not be null and no row has it: give it a default, or allow nulls"
    for name in table.key:
        if name in found.columns and found.columns[name].nullable:
            yield (
                f"column {name} of the key may be null: ALTER TABLE {table.sql} ALTER COLUMN {quoted(name)} "
                "SET NOT NULL"
            )
    if frozenset(table.key) not in found.unique:
        yield (
            f"it has no unique index on ({', '.join(table.key)}): CREATE UNIQUE INDEX ON {table.sql} "
            f"({_listed(table.key)})"
        )


def _takes(wanted: str, there: str) -> bool:
    """Digits of a decimal must be enough; lengths of texts are the operator's own rule."""
    if wanted.startswith("numeric") and there.startswith("numeric("):
        (precision, scale), (has, has_scale) = _digits(wanted), _digits(there)
        return has_scale >= scale and has - has_scale >= precision - scale
    return any(there.partition("(")[0] == kind for kind in _ALSO[wanted.partition("(")[0]])


def _digits(type: str) -> tuple[int, int]:
    first, _, second = type.partition("(")[2].rstrip(")").partition(",")
    return int(first), int(second or 0)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))
