"""Sorted key sets and the Bloom filter: exact where they promise it, within the error rate where they do not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybloom_live import BloomFilter

from services.normalizer.bloom import Bloom, false_positive_rate, shape
from services.normalizer.keys import (
    Keys,
    SortedKeys,
    due_for_merge,
    first_occurrences,
    merge,
)

# Few different words, so that high words collide while keys differ, as only forged keys would.
_WORDS = st.integers(0, 3)
_PAIRS = st.lists(st.tuples(_WORDS, _WORDS), max_size=40)


def _keys(pairs: list[tuple[int, int]]) -> Keys:
    words = np.array(pairs, np.uint64).reshape(-1, 2)
    return Keys(words[:, 0].copy(), words[:, 1].copy())


def _sorted(pairs: list[tuple[int, int]]) -> SortedKeys:
    keys = _keys(pairs)
    order = np.argsort(keys.high)
    return SortedKeys(keys.high[order], keys.low[order])


def _random_keys(seed: int, count: int) -> Keys:
    words = np.random.default_rng(seed).integers(0, 2**64, (count, 2), dtype=np.uint64)
    return Keys(words[:, 0].copy(), words[:, 1].copy())


@given(_PAIRS, _PAIRS)
def test_lookup_is_exact_where_high_words_collide(held: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    assert _sorted(held).contains(_keys(asked)).tolist() == [pair in set(held) for pair in asked]


@given(_PAIRS)
def test_the_first_row_of_each_key_is_found(pairs: list[tuple[int, int]]) -> None:
    keys = _keys(pairs)
    first = first_occurrences(keys, np.argsort(keys.high))
    assert first.tolist() == [pairs.index(pair) == number for number, pair in enumerate(pairs)]


@given(st.lists(_PAIRS, min_size=1, max_size=5))
def test_merged_sets_hold_all_keys_in_order(parts: list[list[tuple[int, int]]]) -> None:
    merged = merge([_sorted(part) for part in parts])
    assert sorted(zip(merged.high.tolist(), merged.low.tolist(), strict=True)) == sorted(itertools.chain(*parts))
    assert (np.diff(merged.high.astype(np.int64)) >= 0).all()


def test_bytes_and_back() -> None:
    data = np.random.default_rng(0).bytes(16 * 100)
    assert Keys.of_bytes(data).to_bytes() == data
    with pytest.raises(ValueError, match="whole number"):
        Keys.of_bytes(data[:-1])


@pytest.mark.parametrize(
    ("sizes", "due"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([5, 6, 7], [], id="too few"),
        pytest.param([5, 6, 7, 4], [0, 1, 2, 3], id="four of a class"),
        pytest.param([500, 5, 6, 7, 4], [1, 2, 3, 4], id="a large one is left alone"),
        pytest.param([70, 80, 90, 100, 5, 6, 7], [0, 1, 2, 3], id="the class that is full"),
    ],
)
def test_sets_of_one_size_class_are_merged(sizes: list[int], due: list[int]) -> None:
    assert due_for_merge(sizes, 4) == due


def test_the_number_of_sets_stays_logarithmic() -> None:
    sizes: list[int] = []
    for _ in range(5000):
        sizes.append(3)
        while due := due_for_merge(sizes, 8):
            sizes = [size for number, size in enumerate(sizes) if number not in due] + [sum(sizes[n] for n in due)]
        assert len(sizes) <= 7 * 6


@pytest.mark.parametrize("error_rate", [0.05, 0.01, 0.002])
def test_the_filter_keeps_its_error_rate_at_capacity(error_rate: float) -> None:
    capacity = 200_000
    bloom = Bloom(capacity, error_rate)
    for seed in range(20):
        bloom.add(_random_keys(seed, capacity // 20))
    assert bloom.slices == 1
    assert bloom.nbytes * 8 <= shape(error_rate)[0] * capacity + 64
    # The first batch only: the filter takes what it is asked.
    assert bloom.add(_random_keys(1000, 50_000)).mean() <= error_rate * 1.15


def test_the_filter_is_as_good_as_the_yardstick() -> None:
    capacity, error_rate = 20_000, 0.01
    bloom, yardstick = Bloom(capacity, error_rate), BloomFilter(capacity, error_rate)
    held, asked = _random_keys(1, capacity), _random_keys(2, 20_000)
    bloom.add(held)
    for key in _each(held):
        yardstick.add(key)
    theirs = sum(key in yardstick for key in _each(asked)) / len(asked)
    assert bloom.add(asked).mean() <= max(theirs, error_rate) * 1.2


@given(st.lists(st.integers(1, 4000), max_size=8), st.integers(1, 500))
def test_a_key_once_taken_is_always_possibly_known(batches: list[int], capacity: int) -> None:
    bloom = Bloom(capacity, 0.01)
    taken = [_random_keys(seed, count) for seed, count in enumerate(batches)]
    for keys in taken:
        bloom.add(keys)
    assert all(bloom.add(keys).all() for keys in taken)


def test_keys_that_share_bits_of_their_words_spread_as_well() -> None:
    """All keys of one partition have the same remainder in one of their words."""
    for column in (0, 1):
        for shift in (0, 56):
            words = np.random.default_rng(column).integers(0, 2**64, (120_000, 2), dtype=np.uint64)
            words[:, column] &= ~np.uint64(0xFF << shift)
            bloom = Bloom(100_000, 0.01)
            bloom.add(Keys(words[:100_000, 0].copy(), words[:100_000, 1].copy()))
            asked = Keys(words[100_000:, 0].copy(), words[100_000:, 1].copy())
            assert bloom.add(asked).mean() <= 0.0115


def test_a_filter_that_grows_stays_within_bounds() -> None:
    bloom = Bloom(1000, 0.01)
    known = 0
    for seed in range(200):
        bloom.add(_random_keys(seed, 1000))
        known += 1000
        assert bloom.nbytes * 8 <= 18 * known + 64 * 1024
    assert bloom.add(_random_keys(10_000, 20_000)).mean() <= 0.01 * bloom.slices * 1.1


def test_a_smaller_error_rate_costs_memory_up_to_a_limit() -> None:
    bits = [shape(rate)[0] for rate in (0.1, 0.01, 0.001, 1e-9)]
    assert bits == sorted(bits) and bits[-1] == bits[-2] <= 24
    assert all(false_positive_rate(*shape(rate)) <= rate for rate in (0.1, 0.01, 0.001))


def _each(keys: Keys) -> list[bytes]:
    data = keys.to_bytes()
    return [data[start : start + 16] for start in range(0, len(data), 16)]
