"""The records of one block: where each starts and ends, which carry data and which are blank lines or comments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ingestcore.datasets.spec import Dialect
from ingestcore.tabular.row_ends import CR, LF, LongRecord, Mask, Offsets, record_ends
from ingestcore.tabular.transcode import to_utf8


@dataclass(frozen=True)
class Records:
    """Records of a block.

    data        the block's bytes: whole records; the last may lack its line end
    encoding    of the bytes; what is handed out to be read is UTF-8
    starts, ends  byte range of each record, line end included
    ordinals    numbers (from 0) of the records that carry data; a `place` is an index into them
    open_quote  the last record ends inside quotes
    """

    data: bytes
    encoding: str
    starts: Offsets
    ends: Offsets
    ordinals: NDArray[np.int64]
    open_quote: bool

    @classmethod
    def of(cls, data: bytes, dialect: Dialect) -> Records:
        ends = record_ends(data, dialect)
        complete = int(ends[-1]) if len(ends) else 0
        open_quote = False
        if complete < len(data):
            tail = data[complete:]
            ends = np.append(ends, len(data))
            if dialect.quote is not None and dialect.quote.encode() in tail:
                open_quote = LongRecord(dialect, tail).inside_quotes
        starts = np.empty_like(ends)
        starts[:1], starts[1:] = 0, ends[:-1]
        empty = _without_data(np.frombuffer(data, np.uint8), starts, ends, dialect)
        if open_quote:
            empty[-1] = True
        ordinals = np.flatnonzero(~empty) if empty.any() else np.arange(len(ends))
        return cls(data, dialect.encoding, starts, ends, ordinals, open_quote)

    @property
    def count(self) -> int:
        return len(self.ends)

    @property
    def blank(self) -> int:
        """Blank lines and comments."""
        return self.count - len(self.ordinals) - self.open_quote

    @cached_property
    def body(self) -> bytes:
        """The records that carry data, without those between them that carry none. UTF-8."""
        return self._joined(self.ordinals)

    def pick(self, places: NDArray[np.int64]) -> bytes:
        """-> some of the records that carry data, in UTF-8. `places` ascending, each once."""
        return self.body if len(places) == len(self.ordinals) else self._joined(self.ordinals[places])

    def raw(self, ordinal: int) -> bytes:
        """-> one record's original bytes, line end included."""
        return self.data[self.starts[ordinal] : self.ends[ordinal]]

    def _joined(self, ordinals: NDArray[np.int64]) -> bytes:
        return to_utf8(self.data if len(ordinals) == self.count else self._raw(ordinals), self.encoding)

    def _raw(self, ordinals: NDArray[np.int64]) -> bytes:
        if not len(ordinals):
            return b""
        gaps = np.flatnonzero(np.diff(ordinals) > 1)
        first = ordinals[np.concatenate(([0], gaps + 1))]
        last = ordinals[np.concatenate((gaps, [len(ordinals) - 1]))]
        view = memoryview(self.data)
        spans = zip(self.starts[first].tolist(), self.ends[last].tolist(), strict=True)
        return b"".join([view[start:end] for start, end in spans])


def _without_data(text: NDArray[np.uint8], starts: Offsets, ends: Offsets, dialect: Dialect) -> Mask:
    size = ends - starts
    empty: Mask = np.zeros(len(ends), np.bool_)
    short = np.flatnonzero(size <= 2)
    if len(short):
        begin = text[starts[short]]
        line_end = (begin == LF) | (begin == CR)
        # Two bytes are a blank line only as CR LF: `\n` ends a record by itself, as does a lone CR.
        empty[short] = line_end
    if dialect.comment is not None:
        empty |= text[starts] == ord(dialect.comment)
    return empty
