"""Which Parquet files hold a row, by the records of Kafka they are made of, or, where Kafka has forgotten, by what
their footers say about row numbers and objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import Any, Final
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingestcore.messages.lake import PARTITION_COLUMNS, folder, place_of, span_named, table_folder
from ingestcore.messages.rows import PROVENANCE, ROW
from ingestcore.stores.objects import Listed, ObjectStore
from ingestcore.stores.ranged import RangedFile
from ingestcore.trace.story import InLake, Where

_READERS: Final = 8
MOST_FILES: Final = 5_000
"""Footers read where nothing says which file it is."""

Fitting = Callable[[pa.RecordBatch], Sequence[int]]

_NUMBER, _OBJECT = ROW, f"{PROVENANCE}.sourceUri"
_FACTS: Final = "facts"


@dataclass(frozen=True, slots=True)
class Search:
    """Rows that are meant. equal: values by column (`a.b`: a field of a struct); saying: of letters, what stands in
    their facts; "": anything."""

    equal: Mapping[str, Any]
    saying: str = ""

    @classmethod
    def row(cls, uri: str, row: int) -> Search:
        return cls({_NUMBER: row, _OBJECT: uri})

    @classmethod
    def letter(cls, uri: str, row: int) -> Search:
        """Of a row."""
        return cls({"row": row, "object_uri": uri})


@dataclass(frozen=True, slots=True)
class Found:
    """A row of a file, as Python values. tenant: of its folder."""

    held: InLake
    row: Mapping[str, Any]

    @property
    def tenant(self) -> str:
        return unquote(self.held.file.partition("/tenant=")[2].partition("/")[0])


class SinkFiles:
    """What one sink wrote. Every method may raise Unavailable, Refused."""

    def __init__(self, store: ObjectStore, sink: str, uri: str) -> None:
        self._store, self.sink = store, sink
        self._bucket, self._prefix = place_of(uri)

    def of_record(
        self, table: str, tenant: str, topic_id: str, where: Where, timestamp_ms: int, uri: str, row: int
    ) -> list[Found]:
        """-> the row in files made of a record of `normalized`. timestamp_ms: the broker's, it says the folder."""
        day = datetime.fromtimestamp(timestamp_ms / 1000, UTC).date().isoformat()
        listed = self._store.list(self._bucket, folder(self._prefix, table, tenant, day))
        named = ((entry, span_named(entry.key, where.topic)) for entry in listed)
        files = [entry for entry, span in named if span and span.holds(topic_id, where.partition, where.offset)]
        return [found for entry in files for found in self._rows(entry, Search.row(uri, row))]

    def anywhere(self, table: str, tenant: str, uri: str, row: int) -> tuple[list[Found], bool]:
        """-> the row in any file of a table, and whether all files were looked at. tenant: "" of any."""
        return self._search(table, tenant, Search.row(uri, row))

    def having(self, table: str, columns: Collection[str], fitting: Fitting) -> Iterator[tuple[str, int]]:
        """-> (object URI, row) of the rows of a table with certain values. fitting: places of those rows in a batch of
        these columns; a file that lacks one of them has no such row."""
        for entry in self._store.list(self._bucket, table_folder(self._prefix, table)):
            with self._open(entry) as file:
                if not set(columns) <= set(file.schema_arrow.names):
                    continue
                for group in range(file.metadata.num_row_groups):
                    rows = file.read_row_group(
                        group, columns=[*columns, _NUMBER, _OBJECT], use_threads=False
                    ).combine_chunks()
                    for batch in rows.to_batches():
                        for place in fitting(batch):
                            yield _column(batch, _OBJECT)[place].as_py(), batch.column(_NUMBER)[place].as_py()

    def letters(self, table: str, tenant: str, wanted: Search) -> tuple[list[Found], bool]:
        """-> dead letters, the same way."""
        return self._search(table, tenant, wanted)

    def _search(self, table: str, tenant: str, wanted: Search) -> tuple[list[Found], bool]:
        below = table_folder(self._prefix, table)
        if tenant:
            below += f"{PARTITION_COLUMNS[0]}={quote(tenant, safe='')}/"
        files: list[Listed] = []
        for entry in self._store.list(self._bucket, below):
            if len(files) == MOST_FILES:
                break
            files.append(entry)
        with ThreadPoolExecutor(_READERS, "lake") as readers:
            many = readers.map(lambda entry: list(self._rows(entry, wanted)), files)
            return [found for some in many for found in some], len(files) < MOST_FILES

    def _rows(self, entry: Listed, wanted: Search) -> Iterator[Found]:
        columns = [*wanted.equal, *([_FACTS] if wanted.saying else ())]
        with self._open(entry) as file:
            for group in range(file.metadata.num_row_groups):
                if not may_hold(file.metadata.row_group(group), wanted.equal):
                    continue
                few = file.read_row_group(group, columns=columns, use_threads=False)
                fits = [pc.equal(_column(few, path), value) for path, value in wanted.equal.items()]
                if wanted.saying:
                    fits.append(pc.match_substring(few[_FACTS], wanted.saying))
                places = pc.indices_nonzero(pc.fill_null(reduce(pc.and_, fits), False))
                if len(places):
                    held = InLake(self.sink, f"s3://{self._bucket}/{entry.key}", group)
                    for whole in file.read_row_group(group, use_threads=False).take(places).to_pylist():
                        yield Found(held, whole)

    def _open(self, entry: Listed) -> pq.ParquetFile:
        """Read it with `use_threads=False`: a thread of Arrow's may hold the Python file longer than the call lasts,
        and aborts the process if the interpreter ends first (apache/arrow#34314)."""
        file = RangedFile(self._store, self._bucket, entry.key, entry.etag, entry.size)
        return pq.ParquetFile(pa.PythonFile(file, "r"), pre_buffer=False)


def _column(rows: pa.Table | pa.RecordBatch, path: str) -> Any:
    name, _, below = path.partition(".")
    column = rows.column(name)
    return pc.struct_field(column, below) if below else column


def may_hold(group: Any, wanted: Mapping[str, Any]) -> bool:
    """Whether a row group may have a row with these values, by its statistics. `group`: RowGroupMetaData."""
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema in wanted and column.statistics is not None and column.statistics.has_min_max:
            value = wanted[column.path_in_schema]
            if not column.statistics.min <= value <= column.statistics.max:
                return False
    return True
