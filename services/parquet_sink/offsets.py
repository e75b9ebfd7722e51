"""Sets of offsets of one partition, kept as runs. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Offsets:
    """A set of offsets as ascending, disjoint, non-adjacent runs (first, last), both inclusive."""

    runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, offsets: Iterable[int]) -> Offsets:
        """From any order; repeats are fine."""
        runs: list[tuple[int, int]] = []
        for offset in sorted(offsets):
            if runs and offset <= runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], offset)
            else:
                runs.append((offset, offset))
        return cls(tuple(runs))

    @classmethod
    def stored(cls, runs: Sequence[Sequence[int]]) -> Offsets:
        """From JSON. Raises ValueError: not ascending disjoint runs."""
        read = tuple((int(first), int(last)) for first, last in runs)
        edges = [edge for run in read for edge in run]
        if edges != sorted(edges) or any(a[1] >= b[0] for a, b in pairwise(read)):
            raise ValueError(f"not ascending runs of offsets: {runs}")
        return cls(read)

    def __bool__(self) -> bool:
        return bool(self.runs)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.runs)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.runs:
            yield from range(first, last + 1)

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self.runs, offset, key=lambda run: run[0]) - 1
        return at >= 0 and offset <= self.runs[at][1]

    @property
    def first(self) -> int:
        return self.runs[0][0]

    @property
    def last(self) -> int:
        return self.runs[-1][1]


class OffsetOwners:
    """Which claim an offset belongs to. Runs of different owners never overlap."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._owners: list[int] = []

    def add(self, owner: int, offsets: Offsets) -> int | None:
        """Enter the offsets of one more owner. -> an owner they overlap with (nothing is entered then), or None."""
        for first, last in offsets.runs:
            at = bisect_right(self._firsts, last) - 1
            if at >= 0 and self._lasts[at] >= first:
                return self._owners[at]
        for first, last in offsets.runs:
            at = bisect_right(self._firsts, first)
            self._firsts.insert(at, first)
            self._lasts.insert(at, last)
            self._owners.insert(at, owner)
        return None

    def of(self, offset: int) -> int | None:
        """-> owner of an offset; None: it is free."""
        at = bisect_right(self._firsts, offset) - 1
        return self._owners[at] if at >= 0 and self._lasts[at] >= offset else None
