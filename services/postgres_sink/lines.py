r"""Rows as lines of COPY's text format: tabs between columns, `\N` for null, escaped by backslashes. Pure.

Built by Arrow, a column at a time. CSV would end at a line `\.` inside a quoted text before Postgres 18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_NULL: Final = "\\N"
_ESCAPES: Final = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))
_SPECIAL: Final = r"[\\\t\n\r]"


class Lines:
    """One line per row."""

    def __init__(self, columns: Mapping[str, pa.Array]) -> None:
        """Columns in order; a dictionary's texts are escaped once each."""
        self.columns = tuple(columns)
        joined = pc.binary_join_element_wise(
            *map(_texts, columns.values()), pa.scalar("\t"), null_handling="replace", null_replacement=_NULL
        )
        self._lines = pc.binary_join_element_wise(joined, pa.scalar(""), pa.scalar("\n"))

    def __len__(self) -> int:
        return len(self._lines)

    def data(self, which: Sequence[int] | npt.NDArray[np.int64]) -> memoryview:
        """-> the lines of these rows, one after the other."""
        chosen = self._lines if len(which) == len(self) else self._lines.take(pa.array(which, pa.int64()))
        _, offsets, data = chosen.buffers()
        if data is None:
            return memoryview(b"")
        width = np.int64 if pa.types.is_large_string(chosen.type) else np.int32
        ends = np.frombuffer(offsets, width)[chosen.offset : chosen.offset + len(chosen) + 1]
        return memoryview(data)[int(ends[0]) : int(ends[-1])]


def hexadecimal(column: pa.Array) -> pa.Array:
    r"""-> `\x0123…` for a column of 16 bytes each, not null."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    raw = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * 16 : (column.offset + len(column)) * 16]
    raw = raw.reshape(-1, 16)
    text = np.empty((len(raw), 34), np.uint8)
    text[:, 0], text[:, 1] = ord("\\"), ord("x")
    text[:, 2::2], text[:, 3::2] = digits[raw >> 4], digits[raw & 15]
    ends = np.arange(0, 34 * len(raw) + 1, 34, dtype=np.int32)
    return pa.StringArray.from_buffers(len(raw), pa.py_buffer(ends), pa.py_buffer(text.tobytes()))


def _texts(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return _texts(column.dictionary).take(column.indices)
    if not pa.types.is_string(column.type):
        return pc.cast(column, pa.string())
    if not pc.any(pc.match_substring_regex(column, _SPECIAL)).as_py():
        return column
    for plain, escaped in _ESCAPES:
        column = pc.replace_substring(column, plain, escaped)
    return column
