"""Sets of 16-byte keys as NumPy columns: sorted lookup, first occurrences, merging. Pure.

A key is two unsigned 64-bit words, `high` (its first eight bytes, little endian) and `low` (the rest). Sets are sorted
by `high` alone; `low` decides among equal ones, so every answer is exact whatever the keys look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

KEY_BYTES: Final = 16
WORD: Final = np.dtype("<u8")

Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys in any order. Both columns have the same length."""

    high: Words
    low: Words

    def __len__(self) -> int:
        return len(self.high)

    @classmethod
    def of_bytes(cls, data: bytes | memoryview) -> Keys:
        """Concatenated keys -> Keys. Raises ValueError: not a whole number of keys."""
        if len(data) % KEY_BYTES:
            raise ValueError(f"{len(data)} bytes are not a whole number of {KEY_BYTES}-byte keys")
        words = np.frombuffer(data, WORD).reshape(-1, 2)
        return cls(np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1]))

    def to_bytes(self) -> bytes:
        """-> the keys one after another, 16 bytes each."""
        words = np.empty((len(self), 2), WORD)
        words[:, 0], words[:, 1] = self.high, self.low
        return words.tobytes()

    def take(self, chosen: Indices | slice) -> Keys:
        return Keys(self.high[chosen], self.low[chosen])


@dataclass(frozen=True, slots=True)
class SortedKeys:
    """Keys in ascending order of `high`. The columns may be memory-mapped."""

    high: Words
    low: Words

    def __len__(self) -> int:
        return len(self.high)

    def contains(self, queries: Keys) -> Mask:
        """-> for each query, is it in the set? Quickest when the queries are sorted by `high`."""
        if not len(self):
            return np.zeros(len(queries), bool)
        last = len(self) - 1
        at = np.searchsorted(self.high, queries.high)
        np.minimum(at, last, out=at)
        same = self.high[at] == queries.high
        found: Mask = same & (self.low[at] == queries.low)
        # Different keys with equal high words: walk on. Chance never gets here, a forged key may.
        open_ = np.flatnonzero(same & ~found)
        while len(open_):
            at[open_] += 1
            open_ = open_[at[open_] <= last]
            open_ = open_[self.high[at[open_]] == queries.high[open_]]
            hit = self.low[at[open_]] == queries.low[open_]
            found[open_[hit]] = True
            open_ = open_[~hit]
        return found


def merge(parts: Sequence[SortedKeys]) -> SortedKeys:
    """-> one sorted set of all keys; keys in two parts stay twice, which no lookup minds."""
    if len(parts) == 1:
        return parts[0]
    high = np.concatenate([part.high for part in parts])
    low = np.concatenate([part.low for part in parts])
    # Stable: the sort then recognises the sorted stretches and merges them.
    order = np.argsort(high, kind="stable")
    return SortedKeys(high[order], low[order])


def first_occurrences(keys: Keys, order: Indices) -> Mask:
    """-> True for the first row of each key. `order` sorts `keys.high`."""
    first = np.ones(len(keys), bool)
    high = keys.high[order]
    equal = high[1:] == high[:-1]
    if equal.any():
        shared = np.zeros(len(keys), bool)
        shared[1:] |= equal
        shared[:-1] |= equal
        rows = order[shared]
        rows = rows[np.lexsort((rows, keys.low[rows], keys.high[rows]))]
        repeat = (keys.high[rows[1:]] == keys.high[rows[:-1]]) & (keys.low[rows[1:]] == keys.low[rows[:-1]])
        first[rows[1:][repeat]] = False
    return first


def due_for_merge(sizes: Sequence[int], fan_in: int) -> list[int]:
    """-> indices of the sets to merge now, or none: `fan_in` sets of one size class (powers of `fan_in`), smallest
    class first. Keeps the number of sets logarithmic and rewrites a key once per class."""
    classes: dict[int, list[int]] = {}
    for index, size in enumerate(sizes):
        level = 0
        while size >= fan_in:
            size //= fan_in
            level += 1
        classes.setdefault(level, []).append(index)
    for level in sorted(classes):
        if len(classes[level]) >= fan_in:
            return classes[level]
    return []
