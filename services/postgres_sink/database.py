"""One connection to Postgres, one transaction per chunk."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, Final

import psycopg
import structlog
from psycopg import sql

from ingestcore.datasets.postgres_sink import PostgresSink
from ingestcore.stage import OperatorNeeded
from services.postgres_sink.chunk import Chunk, Place
from services.postgres_sink.failures import Away, Fault, Outage, TimedOut, fault, refusal
from services.postgres_sink.late import LateRows
from services.postgres_sink.newest import Ints
from services.postgres_sink.outcome import Outcome, There, Written, left, outcome
from services.postgres_sink.silence import Silence
from services.postgres_sink.statements import Statements, statements
from services.postgres_sink.table import (
    FoundColumn,
    FoundTable,
    Table,
    add_statement,
    create_statement,
    lacking,
    refusals,
)

log = structlog.get_logger(__name__)

_COLUMNS: Final = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
        a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = ''
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped"""
_UNIQUE: Final = """
    SELECT array_agg(a.attname::text)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])
    WHERE n.nspname = %s AND c.relname = %s AND i.indisunique AND i.indimmediate AND i.indisvalid
        AND i.indpred IS NULL AND i.indexprs IS NULL
    GROUP BY i.indexrelid"""


class Database:
    """Tables of one sink. Connects when it is first needed, and again after a failure.

    Every method raises Away, TimedOut: worth another try; OperatorNeeded: not before somebody has acted.
    """

    def __init__(self, sink: str, spec: PostgresSink, silence_seconds: float) -> None:
        self.spec = spec
        self._sink, self._patience = sink, spec.statement_timeout + silence_seconds
        self._silence = Silence(self._patience, self._line)
        self._late = LateRows(sink, spec.schema_)
        self._connection: psycopg.Connection[Any] | None = None
        self._ready: dict[Table, Statements] = {}
        self._numbers = itertools.count()

    def check(self) -> None:
        """Can it be reached, and used?"""
        with self._told():
            self._connected().execute("SELECT 1")

    def write(self, chunk: Chunk) -> Outcome:
        """Write the rows of a chunk that are newer than what is there, in one transaction. -> what became of them."""
        with self._told(chunk.table.label):
            connection = self._connected()
            work = self._ready.get(chunk.table) or self._prepare(connection, chunk.table)
            with connection.transaction():
                found = outcome(chunk, self._write_rows(connection, work, chunk))
                if chunk.table.revision is not None:
                    found = self._late.recall(connection, chunk, found)
            if chunk.table.revision is not None:
                self._late.written()
            return found

    def committed(self) -> None:
        """Kafka has what was written, and its letters."""
        self._late.committed()

    def aborted(self) -> None:
        """Kafka has nothing of what was written since `committed`: the rows come again."""
        self._late.aborted()

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
        self._connection = None
        self._ready.clear()

    # -- rows
    def _write_rows(self, connection: psycopg.Connection[Any], work: Statements, chunk: Chunk) -> Written:
        written, done = Written(), set[int]()
        while True:
            # A refused row no longer counts: an older one of the same entity may take its place.
            newest = chunk.entities.newest(left(chunk, written.refused))
            todo = newest if not done else newest[[row not in done for row in newest.tolist()]]
            if not len(todo):
                return written
            refused = len(written.refused)
            self._land(connection, work, chunk, todo, written)
            if len(written.refused) == refused:
                return written
            done.update(todo.tolist())

    def _land(
        self, connection: psycopg.Connection[Any], work: Statements, chunk: Chunk, rows: Ints, written: Written
    ) -> None:
        """Write these rows; where the database refuses one, halve until it stands alone."""
        try:
            with connection.transaction():
                before, blocked = self._attempt(connection, work, chunk, rows)
        except psycopg.Error as error:
            if fault(error.sqlstate) is not Fault.ROW:
                raise
            if len(rows) == 1:
                written.refused[int(rows[0])] = _said(error)
                return
            half = len(rows) // 2
            for part in (rows[:half], rows[half:]):
                self._land(connection, work, chunk, part, written)
        else:
            written.before += before
            written.blocked += blocked

    def _attempt(
        self, connection: psycopg.Connection[Any], work: Statements, chunk: Chunk, rows: Ints
    ) -> tuple[list[There], list[There]]:
        self._silence.heard()
        with connection.cursor() as cursor:
            cursor.execute(_sql(work.clear))
            with cursor.copy(_sql(work.copy)) as copy:
                copy.write(chunk.lines.data(rows))
            before = []
            if chunk.entities.crowded:
                before = _rows(cursor.execute(_sql(work.there), (rows.tolist(),)))
            cursor.execute(_sql(work.upsert))
            blocked = _rows(cursor.execute(_sql(work.blocked))) if cursor.rowcount < len(rows) else []
        return before, blocked

    # -- tables
    def _prepare(self, connection: psycopg.Connection[Any], table: Table) -> Statements:
        """Make or check the table, and one to stage its rows in. Raises OperatorNeeded."""
        with connection.transaction():
            self._fit(connection, table)
            if table.revision is not None:
                self._fit(connection, self._late.table)
                self._late.sweep(connection)
        work = statements(table, f"ingest_{next(self._numbers)}")
        connection.execute(_sql(work.stage))
        self._ready[table] = work
        return work

    def _fit(self, connection: psycopg.Connection[Any], table: Table) -> None:
        """Make a table, or check it and add what it lacks. Raises OperatorNeeded."""
        # Two replicas must not make it at once.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"ingest {table.sql}",))
        found = self._found(connection, table)
        if found is None:
            self._create(connection, table)
            found = self._found(connection, table)
            assert found is not None
        trouble = list(refusals(table, found))
        if missing := lacking(table, found):
            if self.spec.alter == "none":
                columns = ", ".join(missing)
                trouble.append(f"it lacks {columns}: {add_statement(table, missing)}, or `alter: additive`")
            elif not trouble:
                connection.execute(_sql(add_statement(table, missing)))
                log.info("columns added", table=table.label, columns=missing)
        if trouble:
            raise OperatorNeeded(f"table {table.label} can't take these rows: " + "; ".join(trouble))

    def _create(self, connection: psycopg.Connection[Any], table: Table) -> None:
        if not self.spec.create:
            raise OperatorNeeded(f"there is no table {table.label}: {create_statement(table)}, or `create: true`")
        connection.execute(_sql(create_statement(table)))
        log.info("table created", table=table.label)

    def _found(self, connection: psycopg.Connection[Any], table: Table) -> FoundTable | None:
        place = (table.schema, table.name)
        columns = connection.execute(_COLUMNS, place).fetchall()
        if not columns:
            return None
        unique = connection.execute(_UNIQUE, place).fetchall()
        return FoundTable(
            {name: FoundColumn(*facts) for name, *facts in columns},
            [frozenset(names) for (names,) in unique],
        )

    # -- the connection
    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self.close()
            milliseconds = int(self.spec.statement_timeout * 1000)
            self._connection = psycopg.connect(
                self.spec.dsn,
                autocommit=True,
                application_name=f"ingest-{self._sink}",
                connect_timeout=int(self.spec.connect_timeout),
                options=f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
            )
        return self._connection

    def _line(self) -> int | None:
        connection = self._connection
        return None if connection is None or connection.closed else connection.fileno()

    @contextlib.contextmanager
    def _told(self, table: str = "") -> Iterator[None]:
        """Errors in an operator's words. After any of them the connection is made anew and tables are looked at
        again."""
        try:
            with self._silence:
                yield
        except psycopg.Error as error:
            self.close()
            raise self._meaning(error, table) from error
        except OperatorNeeded:
            self._ready.clear()
            raise

    def _meaning(self, error: psycopg.Error, table: str) -> Outage | OperatorNeeded:
        where = f"Postgres of sink {self._sink}" + (f", table {table}" if table else "")
        if self._silence.broken:
            return TimedOut(f"{where}: no answer for {self._patience:g} s")
        blame = fault(error.sqlstate)
        if blame is Fault.TIME:
            return TimedOut(f"{where}: {_said(error)} (statement_timeout {self.spec.statement_timeout:g} s)")
        if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
            # Its own words would repeat the address, and a password with it.
            return OperatorNeeded(f"{where}: `dsn` is no address: postgresql://user:password@host:5432/database")
        if blame is Fault.OPERATOR:
            return OperatorNeeded(f"{where}: {_said(error)}: mend it there, or the sink's `dsn`")
        advice = refusal(str(error)) if error.sqlstate is None else ""
        if advice:
            return OperatorNeeded(f"{where}: {_said(error)}: {advice}")
        return Away(f"{where}: {_said(error)}")


def _said(error: psycopg.Error) -> str:
    """-> the database's message and detail, in one line."""
    parts = [error.diag.message_primary or str(error).strip(), error.diag.message_detail]
    return " ".join(". ".join(part for part in parts if part).split())


def _rows(cursor: psycopg.Cursor[Any]) -> list[There]:
    return [There(ordinal, revision, Place(*place)) for ordinal, revision, *place in cursor.fetchall()]


def _sql(text: str) -> sql.SQL:
    """Made of quoted names by `statements` and `table`."""
    return sql.SQL(text)
