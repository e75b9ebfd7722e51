"""Rows of one dataset version, as many as go into one transaction, made ready to be written. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from ingestcore.messages.objects import ObjectFacts
from ingestcore.messages.rows import KEY, OBJECT, PROVENANCE, ROW
from ingestcore.stage import Input
from services.postgres_sink.lines import Lines, hexadecimal
from services.postgres_sink.newest import Entities, entities
from services.postgres_sink.table import INDEX, INGESTED_AT, OFFSET, PARTITION, TENANT, TOPIC_ID, Table, own_columns

ORDINAL: Final = "_n"
"""Number of a row in its chunk."""


class Place(NamedTuple):
    """Where a row stands in `ingest.normalized`. None: of a row that somebody else wrote."""

    topic_id: str | None
    partition: int | None
    offset: int | None
    number: int | None
    ingested_ms: int | None

    def is_after(self, other: Place) -> bool:
        """Within a partition by offset; between topics (one was made anew) by time."""
        if None in self or None in other:
            return False
        if self[:2] == other[:2]:
            return self[2:4] > other[2:4]
        return self.ingested_ms > other.ingested_ms  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows first..first + len(batch) - 1 of one message."""

    input: Input
    batch: pa.RecordBatch
    first: int


@dataclass(frozen=True)
class Chunk:
    """dataset: `name@version`; topic_id: of `normalized`; rows are numbered from 0 over all slices."""

    dataset: str
    table: Table
    slices: Sequence[Slice]
    topic_id: str

    @cached_property
    def rows(self) -> int:
        return sum(part.batch.num_rows for part in self.slices)

    @cached_property
    def lines(self) -> Lines:
        """-> for COPY: the ordinal, then the table's columns."""
        own = own_columns(self.table)
        columns = {name: self._column(name) for name in own}
        columns |= {
            TENANT: _joined(_tenants(part.batch) for part in self.slices),
            KEY: _joined(hexadecimal(part.batch.column(KEY)) for part in self.slices),
            ROW: self._column(ROW),
            PROVENANCE: _joined(_provenance(part.batch) for part in self.slices),
            INGESTED_AT: self._same(lambda part: _moment(part.input.timestamp_ms)),
            TOPIC_ID: pa.array([self.topic_id]).take(pa.array(np.zeros(self.rows, np.int32))),
            PARTITION: self._same(lambda part: str(part.input.at.partition)),
            OFFSET: self._same(lambda part: str(part.input.at.offset)),
            INDEX: _joined(pa.array(np.arange(s.first, s.first + s.batch.num_rows)) for s in self.slices),
        }
        return Lines({ORDINAL: pa.array(np.arange(self.rows)), **columns})

    @cached_property
    def entities(self) -> Entities:
        key = [self._column(name) for name in self.table.key if name != TENANT]
        if TENANT in self.table.key:
            key.append(_joined(_tenants(part.batch) for part in self.slices))
        return entities(key, self._column(self.table.revision) if self.table.revision else None)

    def locate(self, row: int) -> tuple[Slice, int]:
        """-> the slice of a row, and its number in the slice's batch."""
        for part in self.slices:
            if row < part.batch.num_rows:
                return part, row
            row -= part.batch.num_rows
        raise IndexError(row)

    def place(self, row: int) -> Place:
        part, within = self.locate(row)
        at = part.input.at
        return Place(self.topic_id, at.partition, at.offset, part.first + within, part.input.timestamp_ms)

    def revision(self, row: int) -> Any:
        """-> of a row; None: it has none."""
        if self.table.revision is None:
            return None
        part, within = self.locate(row)
        return part.batch.column(self.table.revision)[within].as_py()

    def _column(self, name: str) -> pa.Array:
        return _joined(part.batch.column(name) for part in self.slices)

    def _same(self, text: Any) -> pa.Array:
        """-> one text per slice, for each of its rows."""
        texts = pa.array([text(part) for part in self.slices], pa.string())
        return texts.take(pa.array(np.repeat(np.arange(len(self.slices)), [s.batch.num_rows for s in self.slices])))


def slices_of(input: Input, batch: pa.RecordBatch, rows: int) -> Iterator[Slice]:
    """-> the message in parts of at most so many rows."""
    for first in range(0, batch.num_rows, rows):
        yield Slice(input, batch.slice(first, rows), first)


@lru_cache(maxsize=4096)
def facts_of(text: str) -> ObjectFacts:
    return ObjectFacts.decode(text)


def _tenants(batch: pa.RecordBatch) -> pa.Array:
    objects = batch.column(OBJECT)
    tenants = pa.array([facts_of(text).tenant for text in objects.dictionary.to_pylist()], pa.string())
    return tenants.take(objects.indices)


def _provenance(batch: pa.RecordBatch) -> pa.Array:
    coded = batch.column(PROVENANCE)
    # Of a part of a message most entries may be other rows'.
    shared = len(coded.dictionary) <= batch.num_rows
    entries = (coded.dictionary if shared else coded.dictionary.take(coded.indices)).to_pylist()
    texts = [orjson.dumps({k: v for k, v in entry.items() if v is not None}).decode() for entry in entries]
    found = pa.array(texts, pa.string())
    return found.take(coded.indices) if shared else found


def _moment(milliseconds: int) -> str:
    return str(np.datetime64(milliseconds, "ms")) + "Z"


def _joined(parts: Iterable[pa.Array]) -> pa.Array:
    found = list(parts)
    return found[0] if len(found) == 1 else pa.concat_arrays(found)
