"""Keys that are remembered for a window: forgotten by slices, the same by everyone, in memory and on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestcore.datasets.registry import Registry
from ingestcore.datasets.windows import changelog_retention_ms
from ingestcore.stage import Input, Step, check
from ingestcore.testing.changelog import Outcome, Transaction, TransactionalLog
from ingestcore.testing.typed_rows import facts_of, typed_batch, typed_input
from services.normalizer.changelog import CHANGELOG
from services.normalizer.keys import Keys
from services.normalizer.partitions import OwnedPartitions
from services.normalizer.restore import restore
from services.normalizer.slices import SLICES_PER_WINDOW, Slice, slice_ms
from services.normalizer.stage import Normalizer
from services.normalizer.state import FilterPlan, PartitionKeys

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@given(st.integers(1, 10**9), st.integers(0, 2**45), st.integers(0, 2**31))
def test_a_key_lives_for_its_window_and_an_eighth_longer_at_most(window_ms: int, born_ms: int, age_ms: int) -> None:
    expired = Slice.of(window_ms, born_ms).expired(born_ms + age_ms)
    if age_ms <= window_ms:
        assert not expired
    if age_ms >= window_ms + slice_ms(window_ms):
        assert expired
    assert not Slice.of(0, born_ms).expired(born_ms + age_ms)


# -- a partition's state


class Partition:
    """One state and its log; days pass."""

    def __init__(self, folder: Path, capacity: int = 1000, memtable_keys: int = 10**6) -> None:
        self.folder, self.plan, self.memtable_keys = folder, FilterPlan(capacity, 0.01), memtable_keys
        self.log = TransactionalLog(1)
        self.log.now_ms = NOW_MS
        self.known = self.restored(folder)

    def restored(self, folder: Path) -> PartitionKeys:
        return restore(self.log, folder, 0, self.plan, self.memtable_keys)

    def publish(self, numbers: Sequence[int], days: float) -> list[bool]:
        """-> which of them passed."""
        passed = self.known.admit(keys(numbers), round(days * DAY_MS), self.log.now_ms).tolist()
        self.commit()
        return passed

    def commit(self) -> None:
        transaction = Transaction()
        offsets = [self.log.append(transaction, 0, r.keys, r.headers()) for r in self.known.unlogged()]
        self.log.decide(transaction, Outcome.COMMITTED)
        if offsets:
            self.log.acknowledge(0, offsets)
        self.known.committed(self.log.produced(CHANGELOG, 0))
        while self.known.tidy(10**6):
            pass

    def pass_days(self, days: float) -> None:
        self.log.now_ms += round(days * DAY_MS)


def keys(numbers: Sequence[int]) -> Keys:
    return Keys.of_bytes(b"".join(n.to_bytes(16, "big") for n in numbers))


def test_a_key_is_a_repeat_within_its_window_and_new_after_it(tmp_path: Path) -> None:
    world = Partition(tmp_path)
    assert world.publish([1, 2], 7) == [True, True]
    world.pass_days(7)
    assert world.publish([1], 7) == [False]
    world.pass_days(1)
    assert world.publish([1, 2], 7) == [True, True]
    assert world.publish([1, 2], 7) == [False, False]


def test_each_key_has_the_window_of_its_dataset(tmp_path: Path) -> None:
    world = Partition(tmp_path)
    for number, days in ((1, 1), (2, 30), (3, 0)):
        world.publish([number], days)
    world.pass_days(2)
    assert world.publish([1, 2, 3], 1) == [True, False, False]
    world.pass_days(40)
    assert world.publish([2, 3], 30) == [True, False]


def test_a_key_keeps_the_window_it_was_published_with(tmp_path: Path) -> None:
    world = Partition(tmp_path)
    world.publish([1], 30)
    world.pass_days(10)
    assert world.publish([1], 1) == [False]


def test_an_aborted_transaction_forgets_nothing(tmp_path: Path) -> None:
    world = Partition(tmp_path)
    world.publish([1], 1)
    before = world.known.slices()
    world.known.admit(keys([1, 2]), DAY_MS, NOW_MS + 10 * DAY_MS)
    world.known.unlogged()
    world.known.aborted()
    assert (world.known.slices(), world.known.clock_ms) == (before, NOW_MS)
    assert world.publish([1], 1) == [False]


def test_memory_and_disk_hold_what_is_within_the_window_however_long_it_goes_on(tmp_path: Path) -> None:
    """Thirty windows of keys, a thousand a day."""
    world = Partition(tmp_path, 2000, memtable_keys=500)
    bounds = []
    for day in range(60):
        world.publish(range(day * 1000, day * 1000 + 1000), 2)
        world.known.flush()
        world.pass_days(1)
        on_disk = sum(file.stat().st_size for file in (tmp_path / "0").glob("run-*"))
        bounds.append((world.known.filter_bytes, on_disk, world.known.runs, len(world.known)))
    assert max(bounds[30:]) <= max(bounds[:30]), "nothing grows any more"
    assert max(filter_bytes for filter_bytes, *_ in bounds) < 12 * 2 * 2 * 4000 / 8
    assert max(on_disk for _, on_disk, *_ in bounds) <= 4000 * 16
    assert max(held for *_, held in bounds) <= 4000
    restored = world.restored(tmp_path / "anew")
    assert restored.slices() == world.known.slices()
    assert restored.filter_bytes <= max(filter_bytes for filter_bytes, *_ in bounds)


def test_restoring_a_long_log_holds_what_is_within_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.normalizer.restore.TAKE_BYTES", 16_000)
    world = Partition(tmp_path)
    for day in range(50):
        world.publish(range(day * 1000, day * 1000 + 1000), 2)
        world.pass_days(1)
    most = 0
    learn = PartitionKeys.learn

    def watched(state: PartitionKeys, taken: Mapping[Slice, Keys], clock_ms: int, complete_to: int) -> None:
        nonlocal most
        learn(state, taken, clock_ms, complete_to)
        most = max(most, state.recent)

    monkeypatch.setattr(PartitionKeys, "learn", watched)
    assert world.restored(tmp_path / "anew").slices() == world.known.slices()
    assert most <= 4000


def test_a_merge_of_runs_that_expire_meanwhile_is_given_up(tmp_path: Path) -> None:
    world = Partition(tmp_path)
    for start in range(0, 800, 100):
        world.known.admit(keys(range(start, start + 100)), DAY_MS, world.log.now_ms)
        transaction = Transaction()
        offsets = [world.log.append(transaction, 0, r.keys, r.headers()) for r in world.known.unlogged()]
        world.log.decide(transaction, Outcome.COMMITTED)
        world.log.acknowledge(0, offsets)
        world.known.committed(world.log.produced(CHANGELOG, 0))
        world.known.flush()
    assert world.known.tidy(50), "a merge is under way"
    world.pass_days(5)
    assert world.publish([1], 1) == [True]
    assert (world.known.runs, len(world.known)) == (0, 1)
    assert [file.name for file in (tmp_path / "0").iterdir()] == ["manifest.json"]


def test_runs_expire_also_while_their_owner_is_down(tmp_path: Path) -> None:
    world = Partition(tmp_path)
    world.publish(range(100), 1)
    world.known.flush()
    world.known.close()
    other = Partition(tmp_path / "other")
    other.log, other.known = world.log, world.restored(tmp_path / "other")
    world.pass_days(5)
    other.publish([1000], 1)
    world.known = world.restored(tmp_path)
    assert world.known.slices() == other.known.slices()
    assert world.publish([1, 1000], 1) == [True, False]


def test_retention_of_the_longest_window_loses_no_key_that_counts(tmp_path: Path) -> None:
    world = Partition(tmp_path)
    for day in range(30):
        world.publish([day], 3)
        world.pass_days(1)
        world.log.expire(0, world.log.now_ms - round(3 * 9 / 8 * DAY_MS))
    assert world.log.start(CHANGELOG, 0) > 0
    for known in (world.known, world.restored(tmp_path / "anew")):
        passed = known.admit(keys(range(30)), 3 * DAY_MS, world.log.now_ms).tolist()
        assert passed == [True] * 27 + [False] * 3


def test_records_of_earlier_builds_are_remembered_for_ever(tmp_path: Path) -> None:
    world = Partition(tmp_path)
    transaction = Transaction()
    world.log.append(transaction, 0, keys([1]).to_bytes())
    world.log.decide(transaction, Outcome.COMMITTED)
    world.known = world.restored(tmp_path)
    world.pass_days(4000)
    assert world.publish([1], 1) == [False]


def test_a_state_that_cant_tell_when_its_keys_were_published_is_restored(tmp_path: Path) -> None:
    log = TransactionalLog(1)
    owned = OwnedPartitions(log, tmp_path, lambda: FilterPlan(100, 0.01), 100)
    owned.restore([0])
    owned[0].admit(keys([1]), DAY_MS, log.now_ms)
    transaction = Transaction()
    (offset,) = (log.append(transaction, 0, r.keys, r.headers()) for r in owned[0].unlogged())
    log.decide(transaction, Outcome.COMMITTED)
    owned[0].committed([])
    assert owned[0].admit(keys([1]), DAY_MS, log.now_ms).tolist() == [False], "never published twice meanwhile"
    owned[0].aborted()
    owned.tidy(final=False)
    owned.ready()
    assert list(owned[0].slices()) == [Slice.of(DAY_MS, log.now_ms)]
    assert owned[0].complete_to is not None and owned[0].complete_to > offset


# -- how long the changelog is kept


@pytest.mark.parametrize(
    ("windows", "unread_ms", "kept_ms"),
    [
        ([], DAY_MS, -1),
        (["1d", None], DAY_MS, -1),
        (["1d", "4d"], DAY_MS, 6 * DAY_MS),
        (["4d"], -1, -1),
    ],
    ids=["no datasets", "one for ever", "the longest window and what may wait to be read", "rows wait for ever"],
)
def test_the_changelog_is_kept_for_the_longest_window(windows: list[str | None], unread_ms: int, kept_ms: int) -> None:
    specs = Registry()
    for number, window in enumerate(windows):
        specs.feed(f"dataset/d{number}@3", orjson.dumps({"dedupe": {"window": window}}))
        specs.feed(f"dataset/d{number}@2", b"{}")
        specs.feed(f"dataset/d{number}", b'{"version": 3}')
    assert changelog_retention_ms(specs, unread_ms) == kept_ms


# -- the stage


def stage(log: TransactionalLog, folder: Path, gather_bytes: int, days: Mapping[str, float | None]) -> Normalizer:
    made = Normalizer(
        OwnedPartitions(log, folder, lambda: FilterPlan(100, 0.01), 1000),
        gather_bytes=gather_bytes,
        window=lambda dataset: None if days[dataset] is None else (days[dataset] or 0) * 86_400,
        produced=lambda partition: log.produced(CHANGELOG, partition),
        report=lambda duplicates, keys: None,
    )
    made.assigned([0])
    return made


def row(offset: int, key: int, dataset: str, at_ms: int) -> Input:
    batch = typed_batch([key.to_bytes(16, "big")], [facts_of("a.csv", dataset)])
    return replace(typed_input(0, offset, batch, dataset), timestamp_ms=at_ms)


def commit(log: TransactionalLog, made: Normalizer, *inputs: Input) -> int:
    """-> rows published."""
    steps: list[Step] = [step for input in inputs for step in made.process(input, None) if step]
    steps += made.settle(final=False)
    transaction, offsets, published = Transaction(), [], 0
    for step in steps:
        check(step)
        for emit in step.emits:
            published += emit.rows
            if emit.topic == CHANGELOG:
                offsets.append(log.append(transaction, 0, bytes(emit.value), emit.headers))
    log.decide(transaction, Outcome.COMMITTED)
    if offsets:
        log.acknowledge(0, offsets)
    made.committed()
    return published


def test_rows_of_datasets_with_and_without_a_window_share_a_partition(tmp_path: Path) -> None:
    log = TransactionalLog(1)
    made = stage(log, tmp_path, 1 << 20, {"week@1": 7, "ever@1": None})
    now = log.now_ms
    assert commit(log, made, row(0, 1, "week@1", now), row(1, 2, "ever@1", now)) == 2
    later = now + 9 * DAY_MS
    log.now_ms = later
    assert commit(log, made, row(2, 1, "week@1", later), row(3, 2, "ever@1", later)) == 1


def test_of_rows_judged_together_the_oldest_decides_what_is_still_known(tmp_path: Path) -> None:
    """The second row came within the window, the third after it, and a slow reader takes both at once."""
    log = TransactionalLog(1)
    made = stage(log, tmp_path, 1 << 20, {"day@1": 1})
    now = log.now_ms
    commit(log, made, row(0, 1, "day@1", now))
    log.now_ms = now + 9 * DAY_MS
    assert commit(log, made, row(1, 1, "day@1", now + DAY_MS // 2), row(2, 7, "day@1", now + 9 * DAY_MS)) == 1


def test_slices_are_an_eighth_of_a_window() -> None:
    assert SLICES_PER_WINDOW == 8
    assert (slice_ms(8), slice_ms(9), slice_ms(1), slice_ms(7 * DAY_MS)) == (1, 2, 1, 7 * DAY_MS // 8)
