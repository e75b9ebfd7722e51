"""Whether a row stands in the tables of Postgres sinks. Reads only."""

from __future__ import annotations

from typing import Any, Final

from ingestcore.datasets.postgres_sink import PostgresSink
from ingestcore.messages.rows import KEY
from ingestcore.stage import OperatorNeeded
from ingestcore.trace.forward import progress
from ingestcore.trace.reads import Reads, Subject
from ingestcore.trace.story import InTable

_TENANT: Final = "_tenant"


def find_tables(reads: Reads, at: Subject) -> None:
    """A database that can't be asked is a note: what is left is told all the same. Raises Retriable: Kafka is away."""
    dataset = at.story.dataset.rpartition("@")[0]
    if not at.key or at.story.first or not dataset:
        return
    try:
        for sink, spec in reads.databases(dataset):
            _look(reads, at, sink, spec, dataset)
    except OperatorNeeded as error:
        at.story.note(f"Postgres was not asked: {error}")


def _look(reads: Reads, at: Subject, sink: str, spec: PostgresSink, dataset: str) -> None:
    primary_key = at.spec.primary_key if at.spec else ()
    if len(at.entity) < len(primary_key):
        at.story.note(f"not looked for in Postgres of sink {sink}: its typed message, with its primary key, is gone")
        return
    where: dict[str, Any] = {**at.entity, _TENANT: at.story.tenant} if primary_key else {KEY: at.key}
    name = spec.table or dataset
    try:
        found = _key_of(spec, name, where)
    except _NotAsked as error:
        at.story.note(f"Postgres of sink {sink} was not asked: {error}")
        return
    if found is None and at.published is not None:
        at.story.note(f"not in Postgres of sink {sink}: {progress(reads, sink, at.published[0])}")
    if found is not None and (found == at.key or at.published is not None):
        shown = {column: value.hex() if isinstance(value, bytes) else value for column, value in where.items()}
        at.story.tables.append(InTable(sink, f"{spec.schema_}.{name}", shown, newer=found != at.key))


class _NotAsked(Exception):
    """The message says why."""


def _key_of(spec: PostgresSink, table: str, where: dict[str, Any]) -> bytes | None:
    """-> `_key` of the row that stands there; None: there is none, or no table yet. Raises _NotAsked."""
    try:
        import psycopg
        from psycopg import sql
    except ImportError:
        raise _NotAsked("its client is not installed here, see the extra postgres-sink") from None
    query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
        sql.Identifier(KEY),
        sql.Identifier(spec.schema_, table),
        sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in where),
    )
    try:
        with psycopg.connect(spec.dsn, connect_timeout=int(spec.connect_timeout), autocommit=True) as connection:
            row = connection.execute(query, list(where.values())).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    except psycopg.Error as error:
        raise _NotAsked(" ".join(str(error).split())) from error
    return bytes(row[0]) if row else None
