"""A partition's keys against a plain set: exact under commits, aborts, flushes, restarts, moves and damage."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from ingestcore.stage import Gap, Retriable
from ingestcore.testing.changelog import Outcome, Transaction, TransactionalLog
from services.normalizer import state as state_module
from services.normalizer.changelog import CHANGELOG
from services.normalizer.keys import KEY_BYTES, Keys
from services.normalizer.partitions import OwnedPartitions
from services.normalizer.restore import restore
from services.normalizer.run_folder import MANIFEST
from services.normalizer.state import FilterPlan, PartitionKeys

PLAN = FilterPlan(50, 0.01)
KEYS = 1500


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def _keys(numbers: list[int]) -> Keys:
    """Half of the keys share their first eight bytes with another, as only forged keys would."""
    return Keys.of_bytes(b"".join((n // 2).to_bytes(8, "big") + n.to_bytes(8, "big") for n in numbers))


def _log_and_commit(log: TransactionalLog, known: PartitionKeys, partition: int = 0) -> None:
    """What the runtime does with the changelog of one transaction."""
    transaction = Transaction()
    offsets = [log.append(transaction, partition, record.keys, record.headers()) for record in known.unlogged()]
    if offsets:
        log.decide(transaction, Outcome.COMMITTED)
        log.acknowledge(partition, offsets)
    known.committed(log.produced(CHANGELOG, partition))


def _log_of(numbers: list[int], per_record: int = 100) -> TransactionalLog:
    log = TransactionalLog(1)
    for start in range(0, len(numbers), per_record):
        transaction = Transaction()
        log.append(transaction, 0, _keys(numbers[start : start + per_record]).to_bytes())
        log.decide(transaction, Outcome.COMMITTED)
    return log


def _knows(known: PartitionKeys, numbers: list[int]) -> list[bool]:
    return [not new for new in known.admit(_keys(numbers)).tolist()]


@pytest.mark.parametrize("seed", range(25))
def test_exactly_the_committed_keys_are_known(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    log = TransactionalLog(1)
    memtable_keys = rng.choice([1, 30, 400])
    committed: set[int] = set()
    pending: set[int] = set()

    def open_state() -> PartitionKeys:
        return restore(log, tmp_path, 0, PLAN, memtable_keys)

    known = open_state()
    for _ in range(120):
        action = rng.random()
        if action < 0.55:
            batch = [rng.randrange(KEYS) for _ in range(rng.randrange(60))]
            expected = []
            for number in batch:
                expected.append(number not in committed and number not in pending)
                pending.add(number)
            assert known.admit(_keys(batch)).tolist() == expected
        elif action < 0.75:
            _log_and_commit(log, known)
            committed |= pending
            pending.clear()
        elif action < 0.83:
            known.aborted()
            pending.clear()
        elif action < 0.9:
            known.flush()
        elif action < 0.95:
            known.tidy(rng.choice([10, 1000]))
        else:
            # Killed, with the disk, without it, or with a damaged one.
            known.close()
            log.acknowledge(0, [])
            if rng.random() < 0.3:
                shutil.rmtree(tmp_path / "0")
            elif rng.random() < 0.3:
                manifest = tmp_path / "0" / MANIFEST
                if manifest.exists():
                    manifest.write_bytes(manifest.read_bytes()[: rng.randrange(40)])
            known = open_state()
            pending.clear()
    known.aborted()
    assert _knows(known, list(range(KEYS))) == [number in committed for number in range(KEYS)]


def test_a_false_positive_of_the_filter_drops_no_row(tmp_path: Path) -> None:
    known = restore(TransactionalLog(1), tmp_path, 0, FilterPlan(1, 0.1), 10**6)
    numbers = list(range(20_000))
    for start in range(0, len(numbers), 500):
        assert known.admit(_keys(numbers[start : start + 500])).all()


def test_keys_committed_elsewhere_are_restored_from_where_the_runs_end(tmp_path: Path) -> None:
    log = _log_of(list(range(1000)))
    known = restore(log, tmp_path, 0, PLAN, 100)
    known.flush()
    known.close()
    for start in (1000, 2000):
        transaction = Transaction()
        log.append(transaction, 0, _keys(list(range(start, start + 1000))).to_bytes())
        log.decide(transaction, Outcome.COMMITTED if start == 1000 else Outcome.ABORTED)
    again = restore(log, tmp_path, 0, PLAN, 100)
    assert len(again) == 2000 and again.complete_to == log.end(CHANGELOG, 0)
    assert _knows(again, list(range(3000))) == [True] * 2000 + [False] * 1000


def test_restoring_waits_for_transactions_that_are_open(tmp_path: Path) -> None:
    log = TransactionalLog(1)
    late = Transaction()
    log.append(late, 0, _keys([1]).to_bytes())
    log.decide(late, Outcome.COMMITTED, marked=False)
    known = restore(log, tmp_path, 0, PLAN, 100)
    assert _knows(known, [1, 2]) == [True, False]


def test_runs_of_a_recreated_changelog_are_not_believed(tmp_path: Path) -> None:
    restore(_log_of([1, 2, 3]), tmp_path, 0, PLAN, 1).flush()
    recreated = TransactionalLog(1, "another id")
    assert _knows(restore(recreated, tmp_path, 0, PLAN, 1), [1, 2, 3]) == [False] * 3


def test_runs_that_claim_more_than_the_changelog_holds_are_not_believed(tmp_path: Path) -> None:
    restore(_log_of(list(range(1000))), tmp_path, 0, PLAN, 1).flush()
    shorter = _log_of([5])
    assert _knows(restore(shorter, tmp_path, 0, PLAN, 1), [4, 5]) == [False, True]


def test_runs_older_than_the_changelogs_retention_are_replaced_by_it(tmp_path: Path) -> None:
    log = _log_of(list(range(100)), per_record=10)
    restore(log, tmp_path, 0, PLAN, 1).flush()
    for start in (100, 200):
        transaction = Transaction()
        log.append(transaction, 0, _keys(list(range(start, start + 100))).to_bytes())
        log.decide(transaction, Outcome.COMMITTED)
    log.truncate(0, 22)
    known = restore(log, tmp_path, 0, PLAN, 1)
    assert _knows(known, [5, 150, 250]) == [False, False, True]


def test_a_changelog_record_of_half_keys_stops_the_restore(tmp_path: Path) -> None:
    log = TransactionalLog(1)
    transaction = Transaction()
    log.append(transaction, 0, b"x" * (KEY_BYTES + 1))
    log.decide(transaction, Outcome.COMMITTED)
    with pytest.raises(Gap, match=r"dedupe-changelog\[0\]@0"):
        restore(log, tmp_path, 0, PLAN, 1)


def test_each_pending_key_is_logged_once(tmp_path: Path) -> None:
    known = restore(TransactionalLog(1), tmp_path, 0, PLAN, 100)
    known.admit(_keys([1, 2]))
    first = known.unlogged()
    known.admit(_keys([2, 3]))
    assert [len(record.keys) for record in first] == [2 * KEY_BYTES]
    assert [record.keys for record in known.unlogged()] == [_keys([3]).to_bytes()]
    assert known.unlogged() == []


def test_large_commits_are_logged_in_several_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "RECORD_BYTES", 4 * KEY_BYTES)
    log = TransactionalLog(1)
    known = restore(log, tmp_path, 0, PLAN, 100)
    known.admit(_keys(list(range(10))))
    _log_and_commit(log, known)
    assert log.end(CHANGELOG, 0) == 4, "three records and a marker"
    assert all(_knows(restore(log, tmp_path / "other", 0, PLAN, 100), list(range(10))))


def test_the_filter_is_made_anew_before_it_has_many_slices(tmp_path: Path) -> None:
    known = restore(TransactionalLog(1), tmp_path, 0, FilterPlan(10, 0.01), 10**6)
    for start in range(0, 30_000, 1000):
        known.admit(_keys(list(range(start, start + 1000))))
        known.unlogged()
        known.committed([])
        known.tidy(10**6)
    assert known.filter_bytes * 8 < 30_000 * 40
    assert all(_knows(known, list(range(30_000))))


def test_large_runs_do_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = []
    monkeypatch.setattr(state_module, "MAPPED_BYTES", 1000)
    known = restore(_log_of(list(range(1000))), tmp_path, 0, PLAN, 1)
    known.flush()
    monkeypatch.setattr("services.normalizer.runs.Run.release", lambda run: released.append(run))
    assert all(_knows(known, list(range(1000)))) and released


class _Owned:
    """Two partitions and their log."""

    def __init__(self, folder: Path, memtable_keys: int = 100) -> None:
        self.log = TransactionalLog(2)
        self.folder = folder
        self.owned = OwnedPartitions(self.log, folder, lambda: PLAN, memtable_keys)
        self.owned.restore([0, 1])

    def commit(self, partition: int, numbers: list[int]) -> None:
        self.owned[partition].admit(_keys(numbers))
        _log_and_commit(self.log, self.owned[partition], partition)
        self.owned.tidy(final=False)


def test_keys_in_memory_are_bounded_over_all_partitions(tmp_path: Path) -> None:
    world = _Owned(tmp_path)
    for start in range(0, 3000, 30):
        world.commit(start % 4 // 2, list(range(start, start + 30)))
        assert sum(known.recent for _, known in world.owned.items()) <= 100
    assert sum(len(known) for _, known in world.owned.items()) == 3000


def test_the_number_of_runs_stays_small(tmp_path: Path) -> None:
    world = _Owned(tmp_path, memtable_keys=10)
    for start in range(0, 6000, 20):
        world.commit(0, list(range(start, start + 20)))
    assert world.owned[0].runs <= 24
    assert all(_knows(world.owned[0], list(range(6000))))


def test_a_dropped_partition_frees_its_memory_and_comes_back(tmp_path: Path) -> None:
    world = _Owned(tmp_path)
    world.commit(0, [1, 2])
    world.owned.drop([0])
    assert [partition for partition, _ in world.owned.items()] == [1]
    world.owned.restore([0])
    assert _knows(world.owned[0], [1, 2, 3]) == [True, True, False]


def test_restoring_an_owned_partition_forgets_what_is_pending(tmp_path: Path) -> None:
    world = _Owned(tmp_path)
    world.owned[0].admit(_keys([1]))
    world.owned.restore([0])
    assert _knows(world.owned[0], [1]) == [False]


def test_a_full_disk_stops_the_intake_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = _Owned(tmp_path, memtable_keys=10)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _no_space)
        world.commit(0, list(range(50)))
        with pytest.raises(Retriable, match=r"No space left.*free space"):
            world.owned.ready()
        assert _knows(world.owned[0], list(range(50))) == [True] * 50
        world.owned[0].aborted()
    world.owned.ready()
    assert world.owned[0].recent == 0 and all(_knows(world.owned[0], list(range(50))))


def test_a_run_found_damaged_while_working_is_restored_from_the_changelog(tmp_path: Path) -> None:
    world = _Owned(tmp_path, memtable_keys=10)
    world.commit(0, list(range(50)))
    run = next((tmp_path / "0").glob("run-*"))
    run.write_bytes(bytes(run.stat().st_size))
    # Growing, the filter is made anew from the runs.
    for start in range(50, 3000, 50):
        world.commit(0, list(range(start, start + 50)))
        world.owned.ready()
    assert all(_knows(world.owned[0], list(range(3000))))


def test_a_folder_that_cannot_be_written_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "dedupe").write_text("a file where the folder should be")
    owned = OwnedPartitions(TransactionalLog(1), tmp_path / "dedupe", lambda: PLAN, 10)
    with pytest.raises(Retriable, match="dedupe state"):
        owned.restore([0])


def test_status_tells_each_partition(tmp_path: Path) -> None:
    world = _Owned(tmp_path)
    world.commit(1, [1, 2, 3])
    status = world.owned.status()
    assert status["1"]["keys"] == 3 and status["0"]["keys"] == 0 and status["1"]["complete_to"] == 1


def _no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_numpy_keeps_the_words_order_of_the_bytes() -> None:
    """The file format is little endian whatever the machine."""
    keys = Keys.of_bytes(bytes(range(16)))
    assert (int(keys.high[0]), int(keys.low[0])) == tuple(int(x) for x in np.frombuffer(bytes(range(16)), "<u8"))
