"""What became of the rows of one chunk. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from services.postgres_sink.chunk import Chunk, Place
from services.postgres_sink.newest import Ints


class There(NamedTuple):
    """A row of the table that has the key of a row of the chunk: its revision and place."""

    ordinal: int
    revision: Any
    place: Place


@dataclass
class Written:
    """What a database did with a chunk.

    before   rows that were there before the write, for rows of the chunk that share their entity with others
    blocked  rows that are there after it, of which the chunk's own was not taken
    refused  the database's message for rows it refuses; constraint: as it names it
    """

    before: list[There] = field(default_factory=list)
    blocked: list[There] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """stale: per row of the chunk that is not in the table because a newer one is: whether it came late, that is after
    a higher revision. A row that was overtaken by a later one is stale and no dead letter."""

    stale: Mapping[int, bool]
    refused: Mapping[int, str]


def outcome(chunk: Chunk, written: Written) -> Outcome:
    late = chunk.entities.late(left(chunk, written.refused))
    stale = {int(row): bool(late[row]) for row in _overtaken(chunk, written.refused)}
    for there in written.blocked:
        if there.ordinal not in written.refused:
            stale[there.ordinal] = bool(late[there.ordinal]) or _came_late(chunk, there.ordinal, there)
    if written.before:
        entity = chunk.entities.entity
        by_entity = {int(entity[there.ordinal]): there for there in written.before}
        for row in stale:
            before = by_entity.get(int(entity[row]))
            if before is not None and not stale[row]:
                stale[row] = _came_late(chunk, row, before)
    return Outcome(stale, written.refused)


def left(chunk: Chunk, refused: Iterable[int]) -> Ints:
    """-> rows that are not refused, in order."""
    rows = np.arange(chunk.rows)
    out = np.fromiter(refused, np.int64)
    return np.setdiff1d(rows, out) if len(out) else rows


def _overtaken(chunk: Chunk, refused: Mapping[int, str]) -> Ints:
    rows = left(chunk, refused)
    return np.setdiff1d(rows, chunk.entities.newest(rows)) if chunk.entities.crowded else rows[:0]


def _came_late(chunk: Chunk, row: int, there: There) -> bool:
    """A row read again, which a later one has overtaken since, is old but did not come late."""
    if there.revision is None or there.place.is_after(chunk.place(row)):
        return False
    mine = chunk.revision(row)
    return mine is None or bool(there.revision > mine)
