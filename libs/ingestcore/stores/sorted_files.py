"""External sort: more rows than fit into memory, in order, by way of temporary files."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import orjson

from ingestcore.stage import Retriable

Row = tuple[Any, ...]
"""JSON scalars. Rows are ordered as tuples."""

ROWS_IN_MEMORY: Final = 50_000
FILES_MERGED: Final = 64
"""Open at once; more are merged into one first."""


class SortedFiles:
    """Takes rows in any order, gives them back ascending. Use as a context manager: its end removes the files.

    At most `rows_in_memory` rows are held; a smaller set never touches the disk. Text is ordered by code point, which
    is the order of its UTF-8 bytes. Raises Retriable when the folder cannot be written (a full disk).
    """

    def __init__(self, folder: Path, *, rows_in_memory: int = ROWS_IN_MEMORY, files_merged: int = FILES_MERGED) -> None:
        self._folder, self._rows_in_memory, self._files_merged = folder, rows_in_memory, files_merged
        self._name = f"sort-{os.getpid()}-{uuid4().hex[:8]}"
        self._rows: list[Row] = []
        self._files: list[Path] = []
        self._made = 0

    def __enter__(self) -> SortedFiles:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.unlink(missing_ok=True)
        self._rows, self._files = [], []

    def add(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) < self._rows_in_memory:
            return
        self._rows.sort()
        self._files.append(self._write(self._rows))
        self._rows = []
        if len(self._files) >= self._files_merged:
            self._merge_files()

    def rows(self) -> Iterator[Row]:
        """All rows added so far, ascending."""
        self._rows.sort()
        if not self._files:
            return iter(self._rows)
        return heapq.merge(*map(_read, self._files), self._rows)

    def _merge_files(self) -> None:
        files = self._files
        merged = self._write(heapq.merge(*map(_read, files)))
        self._files = [merged]
        for file in files:
            file.unlink(missing_ok=True)

    def _write(self, rows: Iterable[Row]) -> Path:
        self._made += 1
        path = self._folder / f"{self._name}-{self._made:06}.tmp"
        try:
            with path.open("wb", buffering=1 << 20) as file:
                file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise Retriable(f"cannot write temporary files to {self._folder}: {error.strerror}") from error
        return path


def _read(path: Path) -> Iterator[Row]:
    with path.open("rb", buffering=1 << 18) as file:
        for line in file:
            yield tuple(orjson.loads(line))
