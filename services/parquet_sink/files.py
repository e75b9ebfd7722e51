"""Rows streamed into local Parquet files: one file per folder of a table, memory bounded over all of them."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ingestcore.messages.lake import Span, footer
from ingestcore.messages.rows import PROVENANCE, ROW
from services.parquet_sink.lake import Finished, Folder

_GATHER: Final = 16
"""Small pieces put together at once: an Arrow batch of 500 columns costs 250 KB however few rows it has."""

_DICTIONARY_PAGE_BYTES: Final = 256 << 10
"""A column with more distinct text than this is written plain: a tenth less CPU than Parquet's 1 MiB, and smaller."""
_SOURCE_URI: Final = f"{PROVENANCE}.sourceUri"
"""The one field of the provenance worth statistics: all of them cost as much as a quarter of the writing."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one input for one file.

    shape   equal for pieces that fit into one file
    item    what the `Encoder` takes; nbytes: memory it holds
    """

    folder: Folder
    shape: Any
    item: Any
    rows: int
    nbytes: int


class Encoder(Protocol):
    """Knows the items of one kind of sink."""

    def table(self, items: Sequence[Any]) -> pa.Table:
        """-> the rows as they are written, in order."""

    def gather(self, items: Sequence[Any]) -> list[Any]:
        """-> the same rows in fewer items, or the items as they are."""


@dataclass(frozen=True, slots=True)
class FileOptions:
    """folder: for temporary files; row_group_bytes: Arrow bytes of one row group at most."""

    folder: Path
    row_group_bytes: int
    zstd_level: int


class Buffers:
    """Memory of rows not written yet, over all open files of the process. Beyond the limit the largest are written
    out, as a row group smaller than it might be."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._files: dict[OpenFile, None] = {}
        self.nbytes = 0

    def changed(self, file: OpenFile, by_bytes: int) -> None:
        self.nbytes += by_bytes
        if file.buffered_bytes:
            self._files[file] = None
        else:
            self._files.pop(file, None)

    def shrink(self) -> None:
        while self.nbytes > self._limit_bytes and self._files:
            max(self._files, key=lambda file: file.buffered_bytes).write_out()


class OpenFile:
    """One Parquet file being written. It exists on disk from its first row group on."""

    def __init__(self, encoder: Encoder, batch_size: int, options: FileOptions, buffers: Buffers) -> None:
        self._encoder, self._batch_size, self._options, self._buffers = encoder, batch_size, options, buffers
        self._path = options.folder / f"{uuid.uuid4().hex}.tmp"
        self._writer: Any = None
        self._items: list[Any] = []
        self._buffered_rows, self._gathered = 0, 0
        self.buffered_bytes = 0
        self.rows = 0

    def add(self, piece: Piece) -> None:
        if self._items and (
            self._buffered_rows + piece.rows > self._batch_size
            or self.buffered_bytes + piece.nbytes > self._options.row_group_bytes
        ):
            self.write_out()
        self._items.append(piece.item)
        if len(self._items) - self._gathered >= _GATHER:
            self._items[self._gathered :] = self._encoder.gather(self._items[self._gathered :])
            self._gathered = len(self._items)
        self._buffered_rows += piece.rows
        self.rows += piece.rows
        self._account(self.buffered_bytes + piece.nbytes)

    def write_out(self) -> None:
        """Make a row group (or several, of at most `batch_size` rows) of what is buffered."""
        table = self._encoder.table(self._items)
        if self._writer is None:
            self._writer = _writer(self._path, table.schema, self._options.zstd_level)
        self._writer.write_table(table, row_group_size=self._batch_size)
        self._forget_items()

    def finish(self, footer: dict[str, str]) -> tuple[Path, str]:
        """-> the complete file, and 8 hex digits of its columns' names and types."""
        if self._items:
            self.write_out()
        columns = hashlib.sha256(str(self._writer.schema).encode()).hexdigest()[:8]
        self._writer.add_key_value_metadata(footer)
        self._writer.close()
        self._writer = None
        return self._path, columns

    def discard(self) -> None:
        self._forget_items()
        writer, self._writer = self._writer, None
        if writer is not None:
            # Closing writes the footer, for which a full disk has no room: the file must go nevertheless.
            with contextlib.suppress(OSError):
                writer.close()
        self._path.unlink(missing_ok=True)

    def _forget_items(self) -> None:
        self._items, self._buffered_rows, self._gathered = [], 0, 0
        self._account(0)

    def _account(self, buffered_bytes: int) -> None:
        by_bytes, self.buffered_bytes = buffered_bytes - self.buffered_bytes, buffered_bytes
        self._buffers.changed(self, by_bytes)


class OpenFiles:
    """All files of one range of one partition."""

    def __init__(self, encoder: Encoder, batch_size: int, options: FileOptions, buffers: Buffers) -> None:
        self._encoder, self._batch_size, self._options, self._buffers = encoder, batch_size, options, buffers
        self._files: dict[Folder, list[tuple[Any, OpenFile]]] = {}

    def add(self, piece: Piece) -> None:
        files = self._files.setdefault(piece.folder, [])
        file = next((file for shape, file in files if shape == piece.shape), None)
        if file is None:
            file = OpenFile(self._encoder, self._batch_size, self._options, self._buffers)
            files.append((piece.shape, file))
        file.add(piece)
        self._buffers.shrink()

    def finish(self, span: Span) -> list[Finished]:
        """Close all files; their footers say where the rows come from.

        Where objects of one dataset version differ in columns (its spec names none, or has `"*"`), each set of columns
        gets a file of its own, told apart by a suffix.
        """
        finished = []
        for folder, files in self._files.items():
            for _, file in files:
                path, columns = file.finish(footer(folder.dataset, span))
                finished.append(Finished(path, folder, f"-{columns}" if len(files) > 1 else "", file.rows))
        self._files = {}
        return finished

    def discard(self) -> None:
        for files in self._files.values():
            for _, file in files:
                file.discard()
        self._files = {}


def _writer(path: Path, schema: pa.Schema, zstd_level: int) -> Any:
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=zstd_level,
        use_dictionary=_string_columns(schema),
        # Row numbers ascend: a tenth of the size and a third of the CPU of the plain encoding.
        column_encoding={ROW: "DELTA_BINARY_PACKED"} if ROW in schema.names else None,
        dictionary_pagesize_limit=_DICTIONARY_PAGE_BYTES,
        write_statistics=[name for name in schema.names if name != PROVENANCE] + [_SOURCE_URI],
        # Dictionaries are how rows are handed over, not what readers should get back.
        store_schema=False,
    )


def _string_columns(schema: pa.Schema) -> list[str]:
    """-> paths of the columns that are dictionary-encoded, also within structs."""
    found = []
    pending = [(field.name, field.type) for field in schema]
    for name, kind in pending:
        if pa.types.is_struct(kind):
            pending.extend((f"{name}.{child.name}", child.type) for child in kind)
        elif pa.types.is_list(kind):
            pending.append((f"{name}.list.element", kind.value_type))
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
            found.append(name)
    return found
