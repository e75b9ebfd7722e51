"""One object as the platform would take it, without the platform: head, inflating, cutting, parsing, keys.

The same code the chunk-downloader and the csv-parser run, in one pass over bytes at hand. Everything that is read stays
in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingestcore.datasets.spec import DatasetSpec
from ingestcore.messages.dead_letters import RAW_LIMIT_BYTES
from ingestcore.reasons import Reason
from ingestcore.tabular.block import Parsed, parse_block
from ingestcore.tabular.cut import Cut, Cutter, Rest, TooLong
from ingestcore.tabular.head import FIRST_BYTES, Drift, Head, find_head
from ingestcore.tabular.inflate import MAGIC, Damaged, Inflater
from ingestcore.tabular.keys import Owner, keys
from ingestcore.tabular.plan import Plan
from ingestcore.tabular.reader import Reader

BLOCK_BYTES: Final = 2 << 20
"""Any size gives the same rows."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A dead letter that would be. `row`: 1-based, None: the whole object; `raw`: cut to 64 KiB."""

    reason: Reason
    message: str
    row: int | None
    raw: bytes
    column: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """A parsed block. `first_row`: number of its first record, from 1."""

    first_row: int
    parsed: Parsed


@dataclass
class Rehearsal:
    """What became of an object.

    columns  of the header, in file order; empty: none was found, or the dialect has none
    plan     None: the object holds no row, or is refused as a whole
    nbytes   inflated bytes that were read
    whole    they are all the object has
    """

    columns: tuple[str, ...] = ()
    plan: Plan | None = None
    blocks: list[Taken] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    nbytes: int = 0
    whole: bool = True

    @property
    def records(self) -> int:
        """Rows and refused records, without blank lines and comments."""
        return self.good + sum(refusal.row is not None for refusal in self.refused)

    @property
    def good(self) -> int:
        return sum(taken.parsed.rows.num_rows for taken in self.blocks)

    @property
    def blank(self) -> int:
        return sum(taken.parsed.records.blank for taken in self.blocks)

    @property
    def whole_refused(self) -> bool:
        """Not one row could be read, for a reason that lies in the object as a whole."""
        return not self.good and any(refusal.row is None for refusal in self.refused)

    def rows(self) -> pa.Table:
        """-> all good rows, one chunk a column; without columns where there is no plan."""
        if self.plan is None:
            return pa.table({})
        parts = [taken.parsed.rows for taken in self.blocks]
        return pa.concat_tables([self.plan.schema.empty_table(), *parts]).combine_chunks()

    def numbers(self) -> NDArray[np.int64]:
        """-> row number of each good row."""
        parts = [taken.parsed.ordinals + taken.first_row for taken in self.blocks]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def raw(self, number: int) -> bytes:
        """-> original bytes of a row that was parsed. Raises KeyError: there is none of that number."""
        for taken in self.blocks:
            if 0 <= number - taken.first_row < taken.parsed.records.count:
                return taken.parsed.records.raw(number - taken.first_row)
        raise KeyError(number)


def is_gzip(name: str, first: bytes) -> bool:
    """Whether an object is read as gzip: by its name or its first bytes."""
    return name.lower().endswith((".gz", ".gzip")) or first.startswith(MAGIC)


def inflate(stored: Iterable[bytes]) -> Iterator[bytes]:
    """gzip pieces -> inflated ones. Each piece but the last a multiple of 4 KiB. Raises Damaged."""
    inflater = Inflater()
    for piece in stored:
        yield from inflater.inflate(piece)
    inflater.end()


def rehearse(
    pieces: Iterable[bytes], spec: DatasetSpec, *, max_row_bytes: int, whole: bool = True, most: int | None = None
) -> Rehearsal:
    """-> what the platform makes of the bytes. `pieces`: inflated, in order; may raise Damaged.

    whole  these are all the object has; else its last, cut record is left out
    most   bytes to read at most; what lies behind them is left out the same way
    """
    return _Rehearsing(spec, max_row_bytes, most).run(iter(pieces), whole=whole)


class _Rehearsing:
    def __init__(self, spec: DatasetSpec, max_row_bytes: int, most: int | None) -> None:
        self._spec, self._max_row_bytes, self._most = spec, max_row_bytes, most
        self._done = Rehearsal()
        self._reader: Reader | None = None

    def run(self, pieces: Iterator[bytes], *, whole: bool) -> Rehearsal:
        done, self._done.whole = self._done, whole
        seen, head, broke = self._head(pieces)
        done.nbytes = len(seen)
        if isinstance(head, Drift):
            done.columns = head.columns
            self._refuse_whole(Reason.SCHEMA_DRIFT, head.message, head.raw)
        elif head is not None:
            done.columns = head.columns
            rest = _raising(broke) if broke else pieces
            self._rows(chain([seen[head.size :]], rest), head)
        elif broke:
            self._refuse_whole(Reason.OBJECT_CORRUPT, str(broke), seen)
        return done

    def _head(self, pieces: Iterator[bytes]) -> tuple[bytes, Head | Drift | None, Damaged | None]:
        """-> the bytes looked at, what they say (None: they are not enough, and there are no more), and what broke."""
        seen, wanted, ended = b"", FIRST_BYTES, False
        broke: Damaged | None = None
        while True:
            while len(seen) < wanted and not ended:
                try:
                    piece = next(pieces, b"")
                except Damaged as error:
                    piece, broke = b"", error
                seen, ended = seen + piece, not piece
            all_seen = ended and len(seen) <= wanted
            head = find_head(seen[:wanted], self._spec, whole=all_seen and not broke, max_row_bytes=self._max_row_bytes)
            if head is not None or all_seen:
                return seen, head, broke
            wanted *= 4

    def _rows(self, pieces: Iterable[bytes], head: Head) -> None:
        cutter = Cutter(self._spec.csv, BLOCK_BYTES, self._max_row_bytes, head.size, 1)
        done, read = self._done, head.size
        try:
            for piece in pieces:
                if self._most is not None and read + len(piece) > self._most:
                    piece, done.whole = piece[: max(0, self._most - read)], False
                read += len(piece)
                for cut in cutter.feed(memoryview(piece)):
                    self._keep(cut, head)
                if not done.whole and self._most is not None and read >= self._most:
                    break
        except Damaged as error:
            for left in cutter.broken():
                if isinstance(left, Rest):
                    self._refuse_whole(Reason.OBJECT_CORRUPT, str(error), left.raw)
                else:
                    self._keep(left, head)
        else:
            for left in cutter.end() if done.whole else cutter.broken():
                if not isinstance(left, Rest):
                    self._keep(left, head)
        done.nbytes = read

    def _keep(self, cut: Cut, head: Head) -> None:
        done = self._done
        if isinstance(cut, TooLong):
            done.refused.append(Refusal(Reason.RECORD_TOO_LARGE, cut.why(self._max_row_bytes), cut.row, cut.raw))
            return
        if done.plan is None or self._reader is None:
            done.plan = Plan.of(self._spec, head.columns)
            self._reader = Reader(done.plan)
        parsed = parse_block(cut.data, self._reader, done.plan)
        done.blocks.append(Taken(cut.first_row, parsed))
        for bad in parsed.bad:
            raw = parsed.records.raw(bad.ordinal)[:RAW_LIMIT_BYTES]
            row = cut.first_row + bad.ordinal
            done.refused.append(Refusal(Reason.VALIDATION_FAIL, bad.message, row, raw, bad.column, bad.value))

    def _refuse_whole(self, reason: Reason, message: str, raw: bytes) -> None:
        self._done.refused.append(Refusal(reason, message, None, raw[:RAW_LIMIT_BYTES]))


def _raising(error: Exception) -> Iterator[bytes]:
    raise error
    yield


@dataclass(frozen=True, slots=True)
class Repeat:
    """A row that repeats the key of an earlier one."""

    row: int
    of: int


def repeats(rows: pa.Table, numbers: NDArray[np.int64], spec: DatasetSpec, owner: Owner) -> list[Repeat]:
    """-> every row whose key an earlier row has, in order of the rows.

    Where the key is the row's place in its object none repeats.
    """
    if not rows.num_rows or spec.key_columns() is None:
        return []
    made = keys(rows, spec, [(owner, rows.num_rows)], pa.array(numbers)).key
    digests = np.frombuffer(made.buffers()[1], np.dtype("V16"), len(made), made.offset * 16)
    _, first, place = np.unique(digests.view(np.dtype("S16")), return_index=True, return_inverse=True)
    earliest = first[place.reshape(-1)]
    again = np.flatnonzero(earliest != np.arange(len(earliest)))
    return [Repeat(int(numbers[i]), int(numbers[earliest[i]])) for i in again.tolist()]
