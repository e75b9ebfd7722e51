"""What it costs to bring rows into Postgres, by way: python -m ingestcore.bench.postgres_load. Prints JSON.

Rows have 8 columns of all types and the platform's nine. `cpu_us` is this process's CPU per row, `seconds` the time by
the clock of all rounds; of the sink's own way also with every row new, newer, and read again.
"""

from __future__ import annotations

import datetime
import json
import resource
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg
import pyarrow as pa
from psycopg.types.json import Jsonb

import devstack
from ingestcore.datasets.postgres_sink import PostgresSink
from ingestcore.testing.database_world import DatabaseWorld

ROWS: Final = 10_000
ROUNDS: Final = 10
_TYPES: Final = ("bigint", "bigint", "float8", "bool", "date", "timestamptz", "numeric", "text")
_PLATFORM: Final = ("text", "bytea", "bigint", "jsonb", "timestamptz", "text", "integer", "bigint", "integer")


def main() -> None:
    """Needs the dev stack's Postgres, or POSTGRES_URL."""
    with (
        tempfile.TemporaryDirectory() as folder,
        devstack.start(Path(folder), servers=["postgres"]) as stack,
    ):
        world = DatabaseWorld(stack.endpoints.postgres)
        found = {**_ways(world), **_upserts(world)}
    print(json.dumps({"rows": ROWS * ROUNDS, **found}, indent=2))


def _ways(world: DatabaseWorld) -> dict[str, Any]:
    """COPY into an empty staging table: text made by Arrow, and psycopg's own rows, as text and as binary."""
    from services.postgres_sink.chunk import Chunk, Slice
    from services.postgres_sink.table import create_statement, quoted

    chunk_of = _chunks(world)
    chunk: Chunk = chunk_of(0)
    table = chunk.table
    columns = ", ".join(map(quoted, table.columns))
    rows = _python_rows(chunk)
    with psycopg.connect(world.url, autocommit=True) as connection:
        connection.execute(create_statement(table).encode())
        connection.execute(f"CREATE TEMP TABLE staged (LIKE {table.sql})".encode())
        cursor = connection.cursor()

        def arrow(number: int) -> None:
            fresh = Chunk(
                chunk.dataset, table, [Slice(s.input, s.batch, s.first) for s in chunk.slices], chunk.topic_id
            )
            with cursor.copy(f"COPY staged_n (_n, {columns}) FROM STDIN".encode()) as copy:
                copy.write(fresh.lines.data(range(ROWS)))

        def by_row(binary: bool) -> Callable[[int], None]:
            def write(number: int) -> None:
                how = " (FORMAT BINARY)" if binary else ""
                with cursor.copy(f"COPY staged ({columns}) FROM STDIN{how}".encode()) as copy:
                    if binary:
                        copy.set_types([*_TYPES, *_PLATFORM])
                    for row in rows:
                        copy.write_row(row)

            return write

        connection.execute(f"CREATE TEMP TABLE staged_n (_n integer, LIKE {table.sql})".encode())
        return {
            "copy: text by Arrow": _timed(arrow),
            "copy: psycopg rows, text": _timed(by_row(False)),
            "copy: psycopg rows, binary": _timed(by_row(True)),
        }


def _upserts(world: DatabaseWorld) -> dict[str, Any]:
    from services.postgres_sink.database import Database

    database = Database("bench", PostgresSink.model_validate(world.spec), 5.0)
    chunk_of = _chunks(world)
    found = {
        "sink: new rows": _timed(lambda n: database.write(chunk_of(n))),
        "sink: read again": _timed(lambda n: database.write(chunk_of(n))),
        "sink: higher revisions": _timed(lambda n: database.write(chunk_of(n, revision=2))),
    }
    database.close()
    return found


def _timed(call: Callable[[int], object]) -> dict[str, float]:
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    for number in range(ROUNDS):
        call(number)
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - begun
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    count = ROWS * ROUNDS
    return {
        "cpu_us": round(cpu / count * 1e6, 2),
        "seconds": round(seconds, 3),
        "rows_per_second": round(count / seconds),
    }


def _spec(world: DatabaseWorld) -> Any:
    return world.dataset("orders@1")


def _batch(number: int, revision: int = 1) -> pa.Table:
    first = number * ROWS
    noon = datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC)
    return pa.table(
        {
            "id": pa.array(range(first, first + ROWS), pa.int64()),
            "revision": pa.array([revision] * ROWS, pa.int64()),
            "x": [i / 7 for i in range(ROWS)],
            "yes": [i % 2 == 0 for i in range(ROWS)],
            "day": [noon.date()] * ROWS,
            "at": pa.array([noon] * ROWS, pa.timestamp("us", "UTC")),
            "price": pa.array([Decimal(i) / 100 for i in range(ROWS)], pa.decimal128(12, 2)),
            "text": [f"a text of some length, number {i}" for i in range(ROWS)],
        }
    )


def _chunks(world: DatabaseWorld) -> Callable[..., Any]:
    from ingestcore.messages.rows import read
    from services.postgres_sink.chunk import Chunk, Slice
    from services.postgres_sink.table import table_of

    def make(number: int, revision: int = 1) -> Chunk:
        input = world.rows(_batch(number, revision), offset=number + 1000 * revision)
        batch = read(input.value)
        table = table_of(world.schema, "orders", _spec(world), batch.schema)
        return Chunk("orders@1", table, [Slice(input, batch, 0)], "topic-1")

    return make


def _python_rows(chunk: Any) -> list[tuple[Any, ...]]:
    """-> the chunk's rows as psycopg takes them; making them is not counted."""
    (part,) = chunk.slices
    own = part.batch.select([name for name in part.batch.schema.names if not name.startswith("_")]).to_pylist()
    provenance = json.dumps(part.batch.column("_provenance").dictionary[0].as_py())
    noon = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    return [
        (
            *row.values(),
            "default",
            b"k" * 16,
            n,
            Jsonb(json.loads(provenance)),
            noon,
            "topic-1",
            0,
            0,
            n,
        )
        for n, row in enumerate(own)
    ]


if __name__ == "__main__":
    main()
