"""Bad rows -> dead letters: one a row up to the storm limit, one for all further rows of a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestcore.messages.blocks import Block
from ingestcore.reasons import Reason
from ingestcore.stage import At, Origin, Reject
from ingestcore.tabular.block import BadRow, Parsed

RAW_BYTES: Final = 900_000
"""Original bytes a letter carries that stands for many rows, cut at a row's end."""

LIST_CHARACTERS: Final = 64 << 10
"""Longest list of row numbers, and of byte ranges, in a letter's headers."""


def letters_of(parsed: Parsed, block: Block, at: At, origin: Origin, storm_limit: int) -> tuple[Reject, ...]:
    """-> rejects that stand for every bad row of a block."""
    single = tuple(_letter(row, parsed, block, at, origin) for row in parsed.bad[:storm_limit])
    storm = parsed.bad[storm_limit:]
    return (*single, _quarantine(storm, parsed, block, at, origin, storm_limit)) if storm else single


def _letter(row: BadRow, parsed: Parsed, block: Block, at: At, origin: Origin) -> Reject:
    number = block.first_row + row.ordinal
    facts = {"row": str(number)} | _range(parsed, block, row.ordinal, row.ordinal)
    if row.column:
        facts |= {"column": row.column, "value": row.value}
    return Reject(
        at=at,
        origin=origin,
        raw=parsed.records.raw(row.ordinal),
        reason=Reason.VALIDATION_FAIL,
        message=f"row {number}: {row.message}",
        object=block.object,
        facts=facts,
        reentry="blocks",
    )


def _range(parsed: Parsed, block: Block, first: int, last: int) -> dict[str, str]:
    return {
        "byte_first": str(block.first_byte + int(parsed.records.starts[first])),
        "byte_last": str(block.first_byte + int(parsed.records.ends[last])),
    }


def _quarantine(
    storm: Sequence[BadRow], parsed: Parsed, block: Block, at: At, origin: Origin, storm_limit: int
) -> Reject:
    """Facts: `row`, `row_last`, `byte_first`, `byte_last` of the whole; `count`; `rows` and `bytes`: runs of row
    numbers (inclusive) and of byte offsets (exclusive end); `rows_unlisted`: rows behind the last run listed, where
    the list was cut; `raw_rows`: rows whose bytes the letter carries; `example`: what was wrong with the first."""
    ordinals = np.array([row.ordinal for row in storm], np.int64)
    breaks = np.flatnonzero(np.diff(ordinals) > 1)
    first = ordinals[np.concatenate(([0], breaks + 1))]
    last = ordinals[np.concatenate((breaks, [len(ordinals) - 1]))]
    records = parsed.records
    rows = _runs(block.first_row + first, block.first_row + last)
    spans = _runs(block.first_byte + records.starts[first], block.first_byte + records.ends[last])
    listed = min(_fitting(rows), _fitting(spans))
    raw_rows, raw = _raw(ordinals, parsed)
    facts = {
        "row": str(block.first_row + int(ordinals[0])),
        "row_last": str(block.first_row + int(ordinals[-1])),
        "count": str(len(storm)),
        "rows": ",".join(rows[:listed]),
        "bytes": ",".join(spans[:listed]),
        "raw_rows": str(raw_rows),
        "example": storm[0].message,
    } | _range(parsed, block, int(ordinals[0]), int(ordinals[-1]))
    if listed < len(first):
        facts["rows_unlisted"] = str(int((last[listed:] - first[listed:] + 1).sum()))
    message = (
        f"rows {facts['row']} to {facts['row_last']}: {len(storm)} more bad rows after {storm_limit} in this block; "
        f"the first of them: {storm[0].message}"
    )
    return Reject(
        at=at,
        origin=origin,
        raw=raw,
        reason=Reason.QUARANTINED,
        message=message,
        rows=len(storm),
        object=block.object,
        facts=facts,
        reentry="blocks",
    )


def _runs(first: NDArray[np.int64], last: NDArray[np.int64]) -> list[str]:
    """-> `5-9`, `12` …"""
    pairs = zip(first.tolist(), last.tolist(), strict=True)
    return [str(start) if start == end else f"{start}-{end}" for start, end in pairs]


def _fitting(parts: Sequence[str]) -> int:
    """-> how many of the runs fit into a list."""
    sizes = np.cumsum([len(part) + 1 for part in parts])
    return int(np.searchsorted(sizes, LIST_CHARACTERS, "right"))


def _raw(ordinals: NDArray[np.int64], parsed: Parsed) -> tuple[int, bytes]:
    """-> how many of the rows, and their original bytes one after the other."""
    sizes = np.cumsum(parsed.records.ends[ordinals] - parsed.records.starts[ordinals])
    count = int(np.searchsorted(sizes, RAW_BYTES, "right"))
    if not count:
        return 0, parsed.records.raw(int(ordinals[0]))[:RAW_BYTES]
    return count, b"".join(parsed.records.raw(ordinal) for ordinal in ordinals[:count].tolist())
