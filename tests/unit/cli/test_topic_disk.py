"""Disk estimates: how large topics are, and how large they become."""

from __future__ import annotations

import pytest

from ingestcore.cli.looking.topic_disk import Disk, disk, readable
from ingestcore.kafka.sizes import RECORD_BYTES, Size, both_ends, size_of, stored_bytes
from ingestcore.kafka.sweep import Bounds
from ingestcore.stage import At, Input
from ingestcore.topics import TOPICS, min_insync, replication

DAY_MS = 86_400_000
NOW_MS = 100 * DAY_MS
GIB = 1 << 30


@pytest.mark.parametrize(
    ("age_days", "copies", "retention_days", "expected"),
    [
        (1.0, 1, 7.0, Disk(GIB, GIB, 7 * GIB)),
        (1.0, 3, 7.0, Disk(3 * GIB, 3 * GIB, 21 * GIB)),
        (7.0, 1, 7.0, Disk(GIB, round(GIB / 7), GIB)),
        (8.0, 1, 7.0, Disk(GIB, GIB // 8, GIB)),
        (2.0, 1, None, Disk(GIB, GIB // 2, None)),
        (2.0, 1, -1.0, Disk(GIB, GIB // 2, None)),
        (0.0001, 2, 7.0, Disk(2 * GIB, None, None)),
    ],
)
def test_what_a_topic_takes_when_retention_is_reached(
    age_days: float, copies: int, retention_days: float | None, expected: Disk
) -> None:
    retention_ms = None if retention_days is None else int(retention_days * DAY_MS)
    assert disk(GIB, NOW_MS - int(age_days * DAY_MS), NOW_MS, copies, retention_ms) == expected


def test_an_empty_topic_takes_nothing() -> None:
    assert disk(0, 0, NOW_MS, 3, 7 * DAY_MS) == Disk(0, 0, 0)


def record(offset: int, nbytes: int, timestamp_ms: int = 1000) -> Input:
    return Input(At("typed", 0, offset), b"x" * (nbytes - RECORD_BYTES), {}, timestamp_ms=timestamp_ms)


def looked_at(within: Bounds, records: dict[int, Input]) -> list[Input]:
    return [records[o] for end in both_ends(within) for o in range(end.start, end.end) if o in records]


def test_a_topic_of_equal_records_is_measured_exactly() -> None:
    within = Bounds(100, 1100)
    records = {offset: record(offset, 500, offset) for offset in range(100, 1100)}
    assert size_of({("typed", 0): (within, looked_at(within, records))}) == Size(500_000, 100)


def test_transaction_markers_between_records_are_not_counted_as_records() -> None:
    within = Bounds(0, 1000)
    records = {offset: record(offset, 500) for offset in range(0, 1000, 2)}
    assert size_of({("typed", 0): (within, looked_at(within, records))}).nbytes == 250_000


def test_a_short_partition_is_looked_at_as_a_whole() -> None:
    for end in range(30):
        first, last = both_ends(Bounds(0, end))
        offsets = [*range(first.start, first.end), *range(last.start, last.end)]
        assert offsets == sorted(set(offsets))
        assert end > 16 or offsets == list(range(end))


def test_partitions_add_up_and_empty_ones_are_no_trouble() -> None:
    within = Bounds(0, 10)
    records = {offset: record(offset, 100, 7000 - offset) for offset in range(10)}
    filled = (within, looked_at(within, records))
    found = size_of({("typed", 0): filled, ("typed", 1): filled, ("typed", 2): (Bounds(5, 5), [])})
    assert found == Size(2000, 6991)


def test_a_record_is_its_key_value_and_headers() -> None:
    whole = Input(At("dlq", 0, 0), b"v" * 10, {"ab": "cde"}, b"k" * 16)
    assert stored_bytes(whole) == RECORD_BYTES + 10 + 16 + 2 + 3 + 2


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (200 << 20, "200 MiB"), (5 * GIB, "5 GiB"), (None, "-")],
)
def test_sizes_are_short(nbytes: int | None, text: str) -> None:
    assert readable(nbytes) == text


@pytest.mark.parametrize(("brokers", "copies", "insync"), [(0, 1, 1), (1, 1, 1), (2, 2, 1), (3, 3, 2), (9, 3, 2)])
def test_copies_follow_the_number_of_brokers(brokers: int, copies: int, insync: int) -> None:
    assert replication(brokers) == copies
    assert min_insync(copies) == insync
    assert {spec.broker_config(copies)["min.insync.replicas"] for spec in TOPICS.values()} == {str(insync)}
