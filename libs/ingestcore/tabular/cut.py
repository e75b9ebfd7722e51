"""Cuts a stream of bytes into blocks at true record ends. Pure; the cuts depend on the bytes alone, not on how they
arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ingestcore.datasets.spec import Dialect
from ingestcore.messages.dead_letters import RAW_LIMIT_BYTES
from ingestcore.tabular.row_ends import LongRecord, Offsets, record_ends


@dataclass(frozen=True, slots=True)
class Rows:
    """Complete records, ready to send.

    first_row   1-based ordinal; first_byte: offset in the decompressed object
    last_start  offset of the last record's first byte
    """

    data: bytes
    rows: int
    first_row: int
    first_byte: int
    last_start: int

    @property
    def end_byte(self) -> int:
        return self.first_byte + len(self.data)


@dataclass(frozen=True, slots=True)
class TooLong:
    """One record longer than max_row_bytes (`closed`), or one whose quote is never closed: it takes the whole rest.

    raw  its first 64 KiB at most
    """

    raw: bytes
    row: int
    first_byte: int
    end_byte: int
    closed: bool

    def why(self, max_row_bytes: int) -> str:
        """-> what is wrong with it and what to do, for an operator."""
        if not self.closed:
            return "a quote is never closed, so the rest of the object is lost: mend the file"
        size = self.end_byte - self.first_byte
        return f"{size} bytes are more than max_row_bytes ({max_row_bytes}): raise it or mend the row"


@dataclass(frozen=True, slots=True)
class Rest:
    """Bytes after the last complete record of a stream that broke off."""

    raw: bytes
    row: int
    first_byte: int
    end_byte: int


Cut = Rows | TooLong


class Cutter:
    """Feed it pieces in order, from the first byte of a record on; then `end` or `broken`."""

    def __init__(
        self, dialect: Dialect, block_bytes: int, max_row_bytes: int, first_byte: int = 0, first_row: int = 1
    ) -> None:
        self._dialect = dialect
        self._block_bytes = block_bytes
        self._max_row_bytes = max_row_bytes
        self._byte = first_byte
        self._row = first_row
        self._held: deque[memoryview] = deque()
        self._held_bytes = 0
        self._wanted_bytes = block_bytes
        self._long: LongRecord | None = None
        self._long_raw = b""
        self._long_bytes = 0

    def feed(self, piece: memoryview) -> Iterator[Cut]:
        """-> what can be cut now. Must be exhausted before the next call."""
        self._hold(piece)
        while self._held_bytes:
            if self._long:
                yield from self._pass_long(self._long)
            elif self._held_bytes >= self._wanted_bytes:
                window = self._window(self._wanted_bytes)
                yield from self._cut(window, record_ends(window, self._dialect))
            else:
                return

    def end(self) -> Iterator[Cut]:
        """The object ends here. -> what remains; a missing final line end is no fault."""
        yield from self._complete_rows(ended=True)
        if self._long:
            closed = self._long.feed(b"\n") is not None
            yield TooLong(self._long_raw, self._row, self._byte, self._byte + self._long_bytes, closed)
        elif self._held_bytes:
            tail = self._window(self._held_bytes)
            yield TooLong(bytes(tail[:RAW_LIMIT_BYTES]), self._row, self._byte, self._byte + len(tail), False)

    def broken(self) -> Iterator[Cut | Rest]:
        """The stream broke off here. -> the complete records, then the rest."""
        yield from self._complete_rows(ended=False)
        size = self._long_bytes if self._long else self._held_bytes
        raw = self._long_raw if self._long else bytes(self._window(self._held_bytes)[:RAW_LIMIT_BYTES])
        yield Rest(raw, self._row, self._byte, self._byte + size)

    def _hold(self, piece: memoryview) -> None:
        if len(piece):
            self._held.append(piece)
            self._held_bytes += len(piece)

    def _window(self, size: int) -> memoryview:
        """-> the next `size` bytes in one piece, taken out; a view where they lie in one piece already."""
        parts: list[memoryview] = []
        missing = size
        while missing:
            piece = self._held.popleft()
            if len(piece) > missing:
                self._held.appendleft(piece[missing:])
                piece = piece[:missing]
            parts.append(piece)
            missing -= len(piece)
        self._held_bytes -= size
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    def _put_back(self, rest: memoryview) -> None:
        if len(rest):
            self._held.appendleft(rest)
            self._held_bytes += len(rest)

    def _cut(self, window: memoryview, ends: Offsets) -> Iterator[Cut]:
        """One block off the front of the window, or one long record, or a larger window asked for."""
        if not len(ends):
            self._without_end(window)
            return
        if self._wanted_bytes > self._block_bytes:
            # A record longer than a block is a block of its own.
            ends = ends[:1]
            self._wanted_bytes = self._block_bytes
        sizes = np.diff(ends, prepend=0)
        too_long = int(np.argmax(sizes > self._max_row_bytes)) if int(sizes.max()) > self._max_row_bytes else len(ends)
        if too_long == 0:
            end = int(ends[0])
            self._put_back(window[end:])
            yield self._too_long(bytes(window[: min(end, RAW_LIMIT_BYTES)]), end)
            return
        end = int(ends[too_long - 1])
        last_start = int(ends[too_long - 2]) if too_long > 1 else 0
        self._put_back(window[end:])
        block = Rows(bytes(window[:end]), too_long, self._row, self._byte, self._byte + last_start)
        self._row += too_long
        self._byte += end
        yield block

    def _without_end(self, window: memoryview) -> None:
        """Ask for more of the record, or start to pass over it."""
        # One byte more than a record may have: then it has at least that many, wherever it ends.
        if len(window) <= self._max_row_bytes:
            self._wanted_bytes = min(2 * len(window), self._max_row_bytes + 1)
            self._put_back(window)
            return
        self._wanted_bytes = self._block_bytes
        self._long = LongRecord(self._dialect, window)
        self._long_raw = bytes(window[:RAW_LIMIT_BYTES])
        self._long_bytes = len(window)

    def _pass_long(self, record: LongRecord) -> Iterator[Cut]:
        piece = self._held.popleft()
        self._held_bytes -= len(piece)
        end = record.feed(piece)
        self._long_raw += bytes(piece[: RAW_LIMIT_BYTES - len(self._long_raw)])
        self._long_bytes += len(piece) if end is None else end
        if end is not None:
            self._put_back(piece[end:])
            self._long = None
            yield self._too_long(self._long_raw[: self._long_bytes], self._long_bytes)

    def _complete_rows(self, *, ended: bool) -> Iterator[Cut]:
        """What is left, window by window. `ended`: a last record may lack its line end."""
        while not self._long and self._held_bytes:
            window = self._window(min(self._held_bytes, self._wanted_bytes))
            ends = record_ends(window, self._dialect)
            if len(window) < self._wanted_bytes:
                if ended and self._ends_there(window, ends):
                    ends = np.append(ends, len(window))
                if not len(ends):
                    self._put_back(window)
                    return
            yield from self._cut(window, ends)

    def _ends_there(self, window: memoryview, ends: Offsets) -> bool:
        """Whether what follows the last end is a whole record, but for its line end."""
        tail = bytes(window[int(ends[-1]) if len(ends) else 0 :])
        return bool(tail) and len(record_ends(tail + b"\n", self._dialect)) > 0

    def _too_long(self, raw: bytes, size: int) -> TooLong:
        found = TooLong(raw, self._row, self._byte, self._byte + size, closed=True)
        self._row += 1
        self._byte += size
        return found
