"""DDL of a lake's tables for Athena, Trino and DuckDB. Pure.

Parquet columns are found by their names, so files of older versions of a dataset need not have all of them. Columns
that `"*"` lets through are known to files alone: DuckDB finds them, in Athena and Trino they are added by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from ingestcore.datasets.engines import Engine
from ingestcore.datasets.spec import DatasetSpec
from ingestcore.messages.lake import (
    LETTERS_SCHEMA,
    LETTERS_TABLE,
    PARTITION_COLUMNS,
    PLATFORM_FIELDS,
    place_of,
    table_folder,
)
from ingestcore.tabular.texts import arrow_type


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a lake.

    name     of the dataset, or `dlq`
    columns  that every file of the newest version has, in order; the partition columns are not among them
    rest     type of further columns that files may have; None: there are none
    location  `s3://bucket/prefix/table/`; tenants: whose rows it may hold
    """

    name: str
    columns: pa.Schema
    rest: pa.DataType | None
    location: str
    tenants: tuple[str, ...] = ("default",)


def dataset_table(name: str, spec: DatasetSpec, uri: str, tenants: Iterable[str] = ()) -> Table:
    """`uri`: of the sink."""
    own = [pa.field(column, arrow_type(field)) for column, field in spec.named.items()]
    rest = arrow_type(spec.rest) if spec.rest else None
    return Table(name, pa.schema([*own, *PLATFORM_FIELDS]), rest, _location(uri, name), _tenants(tenants))


def letters_table(uri: str, tenants: Iterable[str] = ()) -> Table:
    """-> the dead letters of a sink with `from: dlq`. Their `tenant` is a folder's name, as of rows."""
    columns = pa.schema([field for field in LETTERS_SCHEMA if field.name not in PARTITION_COLUMNS])
    return Table(LETTERS_TABLE, columns, None, _location(uri, LETTERS_TABLE), _tenants(tenants))


def statement(engine: Engine, table: Table) -> str:
    """-> one statement that makes the table (of DuckDB: a view), with `;` and notes as comments."""
    return _WRITERS[engine](table)


def notes(table: Table, sql_type: str | None) -> list[str]:
    """-> what the statement can't say. `sql_type`: of further columns."""
    found = []
    if sql_type is not None:
        found.append(f"columns that only the files name are not listed: add them, each {sql_type}")
    clash = [name for name in table.columns.names if name in PARTITION_COLUMNS]
    if clash:
        found.append(f"column {', '.join(clash)} has the name of a folder column: rename the field with `from:`")
    return found


def _location(uri: str, table: str) -> str:
    bucket, prefix = place_of(uri)
    return f"s3://{bucket}/{table_folder(prefix, table)}"


def _tenants(tenants: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(tenants))) or ("default",)


def _athena(table: Table) -> str:
    columns = [f"  {_ticked(field.name)} {_hive(field.type)}" for field in _listed(table)]
    folders = ", ".join(f"{_ticked(name)} string" for name in PARTITION_COLUMNS)
    properties = {
        # Partitions are computed, not stored: new days need no MSCK REPAIR TABLE.
        "projection.enabled": "true",
        "projection.tenant.type": "enum",
        "projection.tenant.values": ",".join(table.tenants),
        "projection.ingest_date.type": "date",
        "projection.ingest_date.format": "yyyy-MM-dd",
        "projection.ingest_date.range": "2020-01-01,NOW+1DAYS",
        "storage.location.template": f"{table.location}tenant=${{tenant}}/ingest_date=${{ingest_date}}/",
    }
    told = ",\n".join(f"  {_hive_text(name)} = {_hive_text(value)}" for name, value in properties.items())
    return (
        f"{_comments(notes(table, _rest(table, _hive)))}"
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {_ticked(_plain(table.name))} (\n" + ",\n".join(columns) + "\n)\n"
        f"PARTITIONED BY ({folders})\nSTORED AS PARQUET\nLOCATION {_hive_text(table.location)}\n"
        f"TBLPROPERTIES (\n{told}\n);\n"
    )


def _trino(table: Table) -> str:
    columns = [f"  {_quoted(field.name)} {_trino_type(field.type)}" for field in _listed(table)]
    columns += [f"  {_quoted(name)} varchar" for name in PARTITION_COLUMNS]
    folders = ", ".join(_text(name) for name in PARTITION_COLUMNS)
    name = _plain(table.name)
    call = f"new folders are seen after CALL system.sync_partition_metadata('SCHEMA', {_text(name)}, 'ADD')"
    return (
        f"{_comments([*notes(table, _rest(table, _trino_type)), call])}"
        f"CREATE TABLE IF NOT EXISTS {_quoted(name)} (\n" + ",\n".join(columns) + "\n)\n"
        f"WITH (\n  external_location = {_text(table.location)},\n  format = 'PARQUET',\n"
        f"  partitioned_by = ARRAY[{folders}]\n);\n"
    )


def _duckdb(table: Table) -> str:
    """A view: it finds the columns by itself, those of older files too."""
    types = "tenant: VARCHAR, ingest_date: DATE"
    files = _text(f"{table.location}**/*.parquet")
    return (
        f"{_comments(notes(table, None))}"
        f"CREATE OR REPLACE VIEW {_quoted(table.name)} AS\nSELECT * FROM read_parquet(\n"
        f"  {files}, union_by_name = true,\n  hive_partitioning = true, hive_types = {{{types}}}\n);\n"
    )


_WRITERS: Final[dict[Engine, Callable[[Table], str]]] = {
    Engine.ATHENA: _athena,
    Engine.TRINO: _trino,
    Engine.DUCKDB: _duckdb,
}


def _listed(table: Table) -> Sequence[pa.Field]:
    return [field for field in table.columns if field.name not in PARTITION_COLUMNS]


def _rest(table: Table, type_of: Callable[[pa.DataType], str]) -> str | None:
    return None if table.rest is None else type_of(table.rest)


def _comments(lines: Iterable[str]) -> str:
    return "".join(f"-- {line}\n" for line in lines)


def _scalar(type: pa.DataType, names: dict[str, str]) -> str:
    """Raises ValueError: no table of the platform has such a column."""
    if pa.types.is_decimal(type):
        return f"decimal({type.precision},{type.scale})"
    kind = "timestamp" if pa.types.is_timestamp(type) else str(type)
    if kind not in names:
        raise ValueError(f"no SQL type for {type}")
    return names[kind]


_HIVE: Final = {
    "string": "string",
    "int64": "bigint",
    "double": "double",
    "bool": "boolean",
    "date32[day]": "date",
    "timestamp": "timestamp",
    "binary": "binary",
}
_TRINO: Final = _HIVE | {"string": "varchar", "timestamp": "timestamp(6)", "binary": "varbinary"}


def _hive(type: pa.DataType) -> str:
    if pa.types.is_struct(type):
        return f"struct<{','.join(f'{field.name}:{_hive(field.type)}' for field in type)}>"
    if pa.types.is_list(type):
        return f"array<{_hive(type.value_type)}>"
    return _scalar(type, _HIVE)


def _trino_type(type: pa.DataType) -> str:
    if pa.types.is_struct(type):
        return f"ROW({', '.join(f'{_quoted(field.name)} {_trino_type(field.type)}' for field in type)})"
    if pa.types.is_list(type):
        return f"ARRAY({_trino_type(type.value_type)})"
    return _scalar(type, _TRINO)


def _plain(name: str) -> str:
    """Athena's and Hive's table names know no dash."""
    return name.replace("-", "_")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _ticked(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _hive_text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
