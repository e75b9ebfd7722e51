"""SQL of one chunk. Pure. `t` is the row that is there, `s` (or EXCLUDED) the one that comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.postgres_sink.chunk import ORDINAL
from services.postgres_sink.table import INDEX, INGESTED_AT, OFFSET, PARTITION, TOPIC_ID, Table, quoted

_PLACE: Final = (TOPIC_ID, PARTITION, OFFSET, INDEX)


@dataclass(frozen=True, slots=True)
class Statements:
    """stage   makes the table rows are copied into; it lives as long as the connection
    clear      empties it
    copy       COPY … FROM STDIN
    upsert     writes what is staged where it is newer; tells how many rows it wrote
    there      ordinal, revision and place of the rows that are there for these staged ones (parameter: ordinals)
    blocked    the same, for staged rows that are not what is there now
    """

    stage: str
    clear: str
    copy: str
    upsert: str
    there: str
    blocked: str


def statements(table: Table, stage: str) -> Statements:
    """stage: name for the staging table."""
    staging, columns = f"pg_temp.{quoted(stage)}", list(table.columns)
    types = ", ".join(f"{quoted(name)} {type}" for name, type in table.columns.items())
    listed = ", ".join(map(quoted, columns))
    key = ", ".join(map(quoted, table.key))
    updated = ", ".join(f"{quoted(name)} = EXCLUDED.{quoted(name)}" for name in columns if name not in table.key)
    found = (
        f"SELECT s.{ORDINAL}, {f't.{quoted(table.revision)}' if table.revision else 'NULL'}, "
        f"{', '.join(f't.{name}' for name in _PLACE)}, (extract(epoch FROM t.{INGESTED_AT}) * 1000)::bigint "
        f"FROM {staging} s JOIN {table.sql} t ON {_all(table.key, 's')}"
    )
    return Statements(
        stage=f"CREATE TEMP TABLE {quoted(stage)} ({ORDINAL} integer, {types}) ON COMMIT DELETE ROWS",
        clear=f"DELETE FROM {staging}",
        copy=f"COPY {staging} ({ORDINAL}, {listed}) FROM STDIN",
        # In the order of the key: two writers take their locks in the same order.
        upsert=(
            f"INSERT INTO {table.sql} AS t ({listed}) SELECT {listed} FROM {staging} ORDER BY {key} "
            f"ON CONFLICT ({key}) DO UPDATE SET {updated} WHERE NOT ({_blocked(table, 'EXCLUDED')})"
        ),
        there=f"{found} WHERE s.{ORDINAL} = ANY(%s)",
        blocked=f"{found} WHERE {_places('t')} IS DISTINCT FROM {_places('s')}",
    )


def _blocked(table: Table, comes: str) -> str:
    """-> whether the row that is there stays."""
    # In one partition the offset decides; a topic made anew counts its offsets from 0, so there the time does.
    not_earlier = (
        f"CASE WHEN (t.{TOPIC_ID}, t.{PARTITION}) = ({comes}.{TOPIC_ID}, {comes}.{PARTITION}) "
        f"THEN (t.{OFFSET}, t.{INDEX}) >= ({comes}.{OFFSET}, {comes}.{INDEX}) "
        f"ELSE coalesce(t.{INGESTED_AT} > {comes}.{INGESTED_AT}, false) END"
    )
    if table.revision is None:
        return not_earlier
    collate = ' COLLATE "C"' if table.columns[table.revision] == "text" else ""
    there, new = f"t.{quoted(table.revision)}", f"{comes}.{quoted(table.revision)}"
    return (
        f"CASE WHEN {there} IS NULL AND {new} IS NULL THEN {not_earlier} "
        f"WHEN {there} IS NULL THEN false WHEN {new} IS NULL THEN true ELSE {there} >= {new}{collate} END"
    )


def _all(names: Iterable[str], comes: str) -> str:
    return " AND ".join(f"t.{quoted(name)} = {comes}.{quoted(name)}" for name in names)


def _places(alias: str) -> str:
    return f"({', '.join(f'{alias}.{name}' for name in _PLACE)})"
