"""Rows that came late, remembered from Postgres' commit to Kafka's.

That a row came late is told by what stood in the table before. Once that is overwritten and the letter is not in Kafka
yet, nothing else would tell it to whoever reads the row again. All here runs within the transaction of the rows.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import sql

from services.postgres_sink.chunk import Chunk
from services.postgres_sink.outcome import Outcome
from services.postgres_sink.table import INDEX, OFFSET, PARTITION, TOPIC_ID, Table

_SINK, _NOTED_AT = "_sink", "_noted_at"
_KEPT: Final = "30 days"
"""A sink that ends after Kafka's commit leaves its last notes behind: true for ever, and of no use."""

_KNOWN: Final = f"""
    SELECT t.{PARTITION}, t.{OFFSET}, t.{INDEX}
    FROM {{}} t JOIN unnest(%s::integer[], %s::bigint[], %s::bigint[]) AS w (partition, first, last)
    ON t.{PARTITION} = w.partition AND t.{OFFSET} BETWEEN w.first AND w.last
    WHERE t.{_SINK} = %s AND t.{TOPIC_ID} = %s"""
_NOTE: Final = f"""
    INSERT INTO {{}} ({_SINK}, {TOPIC_ID}, {PARTITION}, {OFFSET}, {INDEX}, {_NOTED_AT})
    SELECT %s, %s, w.*, now() FROM unnest(%s::integer[], %s::bigint[], %s::integer[]) AS w ON CONFLICT DO NOTHING"""
_FORGET: Final = f"""
    DELETE FROM {{}} t USING unnest(%s::text[], %s::integer[], %s::bigint[]) AS w (topic_id, partition, at)
    WHERE t.{_SINK} = %s AND t.{TOPIC_ID} = w.topic_id AND t.{PARTITION} = w.partition AND t.{OFFSET} = w.at"""
_SWEEP: Final = f"DELETE FROM {{}} WHERE {_SINK} = %s AND {_NOTED_AT} < now() - interval '{_KEPT}'"

Message = tuple[str, int, int]
"""Topic id, partition, offset."""


class LateRows:
    """The notes of one sink, in a table of its schema.

    A note is taken in the transaction that writes its row's chunk, and is of no use once Kafka has the letter: the next
    transaction deletes it.
    """

    def __init__(self, sink: str, schema: str) -> None:
        self._sink = sink
        key = {_SINK: "text", TOPIC_ID: "text", PARTITION: "integer", OFFSET: "bigint", INDEX: "integer"}
        columns = {**key, _NOTED_AT: "timestamp with time zone"}
        self.table = Table(schema, "_ingest_late", tuple(columns.items()), tuple(key), None)
        self._noted: set[Message] = set()
        self._in_kafka: set[Message] = set()

    def sweep(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(self._of(_SWEEP), (self._sink,))

    def recall(self, connection: psycopg.Connection[Any], chunk: Chunk, found: Outcome) -> Outcome:
        """-> the same, with the rows that were late when they were written before; all late ones are noted."""
        late = {row for row, was in found.stale.items() if was}
        places = {chunk.place(row)[1:4]: row for row in found.stale if row not in late}
        if places:
            late |= {places[place] for place in self._known(connection, chunk, places) if place in places}
        if late:
            self._note(connection, chunk, sorted(late))
        if self._in_kafka:
            topic_ids, partitions, offsets = zip(*self._in_kafka, strict=True)
            values = [*map(list, (topic_ids, partitions, offsets)), self._sink]
            connection.execute(self._of(_FORGET), values)
        return Outcome({row: row in late for row in found.stale}, found.refused)

    def _known(self, connection: psycopg.Connection[Any], chunk: Chunk, places: Any) -> list[Any]:
        offsets: dict[int, list[int]] = {}
        for partition, offset, _ in places:
            offsets.setdefault(partition, []).append(offset)
        values = [[*offsets], [min(some) for some in offsets.values()], [max(some) for some in offsets.values()]]
        return connection.execute(self._of(_KNOWN), (*values, self._sink, chunk.topic_id)).fetchall()

    def _note(self, connection: psycopg.Connection[Any], chunk: Chunk, rows: list[int]) -> None:
        places = [chunk.place(row) for row in rows]
        columns = [[place[part] for place in places] for part in (1, 2, 3)]
        connection.execute(self._of(_NOTE), (self._sink, chunk.topic_id, *columns))
        self._noted |= {(chunk.topic_id, place.partition or 0, place.offset or 0) for place in places}

    def _of(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(sql.SQL(self.table.sql))

    # -- the two commits
    def written(self) -> None:
        """Postgres has it."""
        self._in_kafka.clear()

    def committed(self) -> None:
        """Kafka has it."""
        self._in_kafka |= self._noted
        self._noted.clear()

    def aborted(self) -> None:
        """Whoever reads the rows again finds the notes."""
        self._noted.clear()
