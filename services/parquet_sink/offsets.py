"""Sets of offsets of one partition, kept as runs. Pure."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

_EDGE: Final = np.dtype("<i8")


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


@dataclass(frozen=True, slots=True)
class ManyOffsets:
    """A set of offsets too many for Python objects: two ascending columns, first and last of each run (16 bytes)."""

    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]

    @classmethod
    def none(cls) -> ManyOffsets:
        return cls(np.empty(0, _EDGE), np.empty(0, _EDGE))

    def __len__(self) -> int:
        """-> offsets, not runs."""
        return int((self.lasts - self.firsts + 1).sum())

    def __contains__(self, offset: int) -> bool:
        at = int(np.searchsorted(self.firsts, offset, "right")) - 1
        return at >= 0 and offset <= int(self.lasts[at])

    def overlap(self, offsets: Offsets) -> bool:
        for first, last in offsets.runs:
            at = int(np.searchsorted(self.firsts, last, "right")) - 1
            if at >= 0 and first <= int(self.lasts[at]):
                return True
        return False

    def plus(self, parts: Iterable[Offsets]) -> ManyOffsets:
        """-> with more offsets, none of which is in the set."""
        runs = [run for part in parts for run in part.runs]
        if not runs:
            return self
        more = np.array(runs, _EDGE)
        firsts = np.concatenate((self.firsts, more[:, 0]))
        lasts = np.concatenate((self.lasts, more[:, 1]))
        order = np.argsort(firsts, kind="stable")
        firsts, lasts = firsts[order], lasts[order]
        apart = firsts[1:] > lasts[:-1] + 1
        return ManyOffsets(firsts[np.append(True, apart)], lasts[np.append(apart, True)])

    def since(self, offset: int) -> ManyOffsets:
        """-> without the runs that end before this offset."""
        kept = slice(int(np.searchsorted(self.lasts, offset)), None)
        return ManyOffsets(self.firsts[kept], self.lasts[kept])

    def encode(self) -> bytes:
        """-> compressed distances between the edges: records and transaction markers alternate, so they repeat."""
        edges = np.column_stack((self.firsts, self.lasts)).ravel()
        return zlib.compress(np.diff(edges, prepend=0).astype(_EDGE).tobytes(), 6)

    @classmethod
    def decode(cls, data: bytes) -> ManyOffsets:
        """Raises ValueError: this is not what `encode` made."""
        try:
            distances = np.frombuffer(zlib.decompress(data), _EDGE)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if len(distances) % 2 or (distances < 0).any() or (distances[2::2] < 1).any():
            raise ValueError("not ascending runs of offsets")
        edges = np.cumsum(distances).reshape(-1, 2)
        return cls(np.ascontiguousarray(edges[:, 0]), np.ascontiguousarray(edges[:, 1]))
