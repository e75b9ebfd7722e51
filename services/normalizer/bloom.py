"""A Bloom filter that grows: who is certainly new need not be looked for. Pure.

Blocked by 64-bit words: all bits of a key lie in one word, so a lookup is one memory access (Putze, Sanders, Singler,
"Cache-, Hash- and Space-Efficient Bloom Filters", 2007). When a slice has taken the keys it was made for, another is
added ("Scalable Bloom Filters", Almeida et al., 2007). Keys are already hashes; they are only mixed.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import numpy as np

from services.normalizer.keys import Keys, Mask, Words

WORD_BITS: Final = 64
PROBES: Final = (3, 4, 5, 6)
LOWEST_ERROR_RATE: Final = 0.001
"""An exact check follows, so a smaller rate would cost memory and save nothing."""
HIGHEST_ERROR_RATE: Final = 0.1
GROWTH: Final = 0.5
"""A further slice takes this share of what the filter was made for: at most half as much memory again is idle."""

_MIX_WORD: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_BITS: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_HALF: Final = np.uint64(32)
_SIX: Final = np.uint64(6)
_63: Final = np.uint64(63)
_ONE: Final = np.uint64(1)


def false_positive_rate(bits_per_key: float, probes: int) -> float:
    """-> share of unknown keys taken for known in a full filter. The keys of one word are Poisson distributed."""
    load = WORD_BITS / bits_per_key
    weight, rate = math.exp(-load), 0.0
    for keys in range(200):
        rate += weight * (1 - (1 - 1 / WORD_BITS) ** (probes * keys)) ** probes
        weight *= load / (keys + 1)
    return rate


@cache
def shape(error_rate: float) -> tuple[float, int]:
    """-> (bits per key, bits set per key): the smallest filter that keeps the error rate, which is first brought
    between 0.001 and 0.1."""
    wanted = min(max(error_rate, LOWEST_ERROR_RATE), HIGHEST_ERROR_RATE)
    bits = 4.0
    while True:
        rate, probes = min((false_positive_rate(bits, probes), probes) for probes in PROBES)
        if rate <= wanted:
            return bits, probes
        bits += 0.25


class Bloom:
    """May call an unknown key known (at about `error_rate`), never a known one unknown. It can't forget."""

    def __init__(self, capacity: int, error_rate: float) -> None:
        """`capacity`: keys of the first slice."""
        self._bits_per_key, self._probes = shape(error_rate)
        self._slices = [_Slice(max(capacity, 1), self._bits_per_key)]

    @property
    def slices(self) -> int:
        return len(self._slices)

    @property
    def keys(self) -> int:
        """Taken so far; a key that the filter took for known is not taken again."""
        return sum(piece.capacity - piece.room for piece in self._slices)

    @property
    def nbytes(self) -> int:
        return sum(piece.words.nbytes for piece in self._slices)

    def add(self, keys: Keys) -> Mask:
        """Take the keys. -> for each, was it possibly known before this call?"""
        place, bits = self._spread(keys)
        known = np.zeros(len(keys), bool)
        for piece in self._slices:
            known |= piece.has(place, bits)
        new = np.flatnonzero(~known)
        while len(new):
            piece = self._open_slice()
            now, new = new[: piece.room], new[piece.room :]
            piece.take(place[now], bits[now])
        return known

    def _spread(self, keys: Keys) -> tuple[Words, Words]:
        """-> (32-bit place, word with the key's bits). Both words of the key go into both: rows of one partition
        share some bits of their keys."""
        place = (keys.high + (keys.low << _HALF | keys.low >> _HALF)) * _MIX_WORD >> _HALF
        spread = (keys.low ^ keys.high >> _HALF) * _MIX_BITS >> np.uint64(WORD_BITS - 6 * max(PROBES))
        bits = _ONE << (spread & _63)
        for _ in range(self._probes - 1):
            spread >>= _SIX
            bits |= _ONE << (spread & _63)
        return place, bits

    def _open_slice(self) -> _Slice:
        if self._slices[-1].room <= 0:
            total = sum(piece.capacity for piece in self._slices)
            self._slices.append(_Slice(max(int(total * GROWTH), 1024), self._bits_per_key))
        return self._slices[-1]


class _Slice:
    """One array of words, made for `capacity` keys."""

    def __init__(self, capacity: int, bits_per_key: float) -> None:
        self.capacity = self.room = capacity
        self.words = np.zeros(max(math.ceil(capacity * bits_per_key / WORD_BITS), 1), np.uint64)

    def has(self, place: Words, bits: Words) -> Mask:
        found: Mask = self.words[self._index(place)] & bits == bits
        return found

    def take(self, place: Words, bits: Words) -> None:
        # `words[index] |= bits` would lose bits where two keys of the call share a word.
        np.bitwise_or.at(self.words, self._index(place), bits)
        self.room -= len(place)

    def _index(self, place: Words) -> Words:
        """Places spread over the words without a division (Lemire, "Fast Random Integer Generation", 2019)."""
        return place * np.uint64(len(self.words)) >> _HALF
