"""The dedupe protocol on a simulated broker, with the real state code and real files: of rows with one key exactly one
is published within the key's window, whatever crashes, moves, wakes, is reset or stays unknown; and whoever restores
the state knows what its predecessor knew. Leaving out any part of the protocol breaks it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ingestcore.testing.changelog import Outcome, Transaction, TransactionalLog
from services.normalizer import partitions
from services.normalizer.changelog import CHANGELOG
from services.normalizer.keys import Keys
from services.normalizer.partitions import OwnedPartitions
from services.normalizer.restore import restore
from services.normalizer.slices import slice_ms
from services.normalizer.state import FilterPlan, PartitionKeys

REPLICAS = 2
INPUTS, DIFFERENT_KEYS, LARGEST_BATCH = 60, 20, 6
RUNS = 30
PLAN = FilterPlan(100, 0.01)
LONGEST_LAG_MS = 300
"""Rows wait at most so long to be read: the retention of their topic."""


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes die here, not machines: what is written is there. Small runs are written as large ones would be."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(partitions, "FINAL_KEYS", 1)


@dataclass(frozen=True)
class Protocol:
    """What the runtime and the stage do. The defaults are what they do; each test of a naive one changes a field."""

    rolls_back: bool = True
    persists_committed_only: bool = True
    restores_to_the_end: bool = True
    rebuilds_after_unknown: bool = True
    clock_of_the_rows: bool = True
    times_of_the_broker: bool = True


@dataclass(frozen=True)
class Row:
    """One row as it was typed: its key, and the broker's time then."""

    key: int
    time_ms: int


@dataclass(frozen=True)
class Verdict:
    """What a committed transaction made of a row. at_ms: broker time of its changelog record, if it was published;
    oldest_ms: time of the oldest row judged with it."""

    row: Row
    at_ms: int | None
    oldest_ms: int


@dataclass
class Replica:
    """One process and its disk. `keys` lives as long as the process, the folder longer."""

    folder: Path
    log: TransactionalLog
    keys: OwnedPartitions = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.log.acknowledge(0, [])
        self.keys = OwnedPartitions(self.log, self.folder, lambda: PLAN, memtable_keys=4)


class World:
    """One partition, its owner, the others, and what the sinks can see.

    windows  by key (modulo), in ms; 0: for ever
    """

    def __init__(self, seed: int, protocol: Protocol, windows: Sequence[int], folder: Path) -> None:
        self.random = random.Random(seed)
        self.protocol, self.windows, self.folder = protocol, windows, folder
        self.log = TransactionalLog(1, waits=protocol.restores_to_the_end)
        self.rows = self.typed_rows()
        self.replicas = [Replica(folder / str(number), self.log) for number in range(REPLICAS)]
        self.position = 0
        self.was_reset = False
        self.verdicts: list[Verdict] = []
        self.differences = 0
        self.on_their_way: Transaction | None = None
        self.owner = self.replicas[0]
        self.owner.keys.restore([0])

    def typed_rows(self) -> list[Row]:
        rows, now = [], self.log.now_ms
        for _ in range(INPUTS):
            now += self.random.choice([0, 1, 5, 20, 60])
            rows.append(Row(self.random.randrange(DIFFERENT_KEYS), now))
        return rows

    def window(self, key: int) -> int:
        return self.windows[key % len(self.windows)]

    def run(self) -> None:
        for _ in range(4000):
            if self.position == len(self.rows):
                return
            if self.random.random() < 0.5:
                self.markers_arrive()
            self.time_passes()
            self.turn()
        raise AssertionError("no progress")

    def time_passes(self) -> None:
        """Rows are read after they were typed, and before their topic has lost them."""
        next_ms = self.rows[self.position].time_ms
        self.log.now_ms = max(self.log.now_ms, next_ms)
        late = next_ms + LONGEST_LAG_MS - self.log.now_ms - 20
        self.log.now_ms += self.random.randint(0, max(late, 0)) if self.random.random() < 0.2 else 0
        if 0 not in self.windows:
            longest = max(window + slice_ms(window) for window in self.windows)
            self.log.expire(0, self.log.now_ms - longest - LONGEST_LAG_MS)

    def turn(self) -> None:
        """One transaction of the owner, and what may befall it."""
        end, verdicts, offsets, transaction = self.work(self.owner)
        event = self.random.random()
        if event < 0.12:
            self.log.decide(transaction, Outcome.ABORTED)
            if self.protocol.rolls_back:
                self.owner.keys[0].aborted()
        elif event < 0.24:
            self.crash()
            self.log.decide(transaction, Outcome.ABORTED, marked=self.random.random() < 0.5)
            self.owner = self.random.choice(self.replicas)
            self.restore()
        elif event < 0.34:
            self.decided(end, verdicts, transaction)
            self.outcome_unknown()
        elif event < 0.44:
            self.frozen(transaction)
        else:
            self.decided(end, verdicts, transaction)
            if offsets:
                self.log.acknowledge(0, offsets)
            self.owner.keys[0].committed(self.written())
            self.owner.keys.tidy(final=self.random.random() < 0.2)
            chance = self.random.random()
            if chance < 0.2:
                self.moves()
            elif chance < 0.25 and 0 < self.position < len(self.rows):
                self.reset()

    def written(self) -> Sequence[tuple[int, int]]:
        written = self.log.produced(CHANGELOG, 0)
        if self.protocol.times_of_the_broker:
            return written
        return [(offset, time_ms + self.random.randint(-80, 80)) for offset, time_ms in written]

    def work(self, replica: Replica) -> tuple[int, list[Verdict], list[int], Transaction]:
        """Compute a batch and write it into an open transaction. -> (next position, verdicts, changelog offsets,
        transaction)"""
        end = min(self.position + self.random.randint(1, LARGEST_BATCH), len(self.rows))
        batch = self.rows[self.position : end]
        oldest = min(row.time_ms for row in batch)
        known = replica.keys[0]
        judged = []
        for window in sorted({self.window(row.key) for row in batch}):
            rows = [row for row in batch if self.window(row.key) == window]
            now = oldest if self.protocol.clock_of_the_rows else self.log.now_ms
            passed = known.admit(_keys([row.key for row in rows]), window, now)
            judged += [(row, bool(new)) for row, new in zip(rows, passed, strict=True)]
        # The broker ends a producer's last transaction before it takes the next.
        self.markers_arrive()
        transaction = Transaction()
        offsets, times = [], {}
        for record in known.unlogged():
            offsets.append(self.log.append(transaction, 0, record.keys, record.headers()))
            times[record.window_ms] = self.log.now_ms
        if not self.protocol.persists_committed_only and self.random.random() < 0.5:
            _persist_pending(known)
        verdicts = [Verdict(row, times[self.window(row.key)] if new else None, oldest) for row, new in judged]
        return end, verdicts, offsets, transaction

    def decided(self, end: int, verdicts: list[Verdict], transaction: Transaction) -> None:
        """Committed: offsets and rows are visible, the changelog's markers may be late."""
        self.log.decide(transaction, Outcome.COMMITTED, marked=False)
        self.on_their_way = transaction
        self.verdicts += verdicts
        self.position = end

    def outcome_unknown(self) -> None:
        """The commit's answer was lost; the broker had committed."""
        self.owner.keys[0].aborted()
        if self.protocol.rebuilds_after_unknown:
            self.restore()

    def frozen(self, transaction: Transaction) -> None:
        """The owner sleeps in its transaction, another takes over and works, the sleeper wakes and is fenced."""
        sleeper = self.owner
        self.owner = next(replica for replica in self.replicas if replica is not sleeper)
        self.log.acknowledge(0, [])
        self.restore()
        if self.log.end(CHANGELOG, 0) and transaction.outcome is Outcome.OPEN:
            self.log.decide(transaction, Outcome.ABORTED)
        if self.protocol.rolls_back:
            sleeper.keys[0].aborted()
        sleeper.keys.tidy(final=True)
        sleeper.keys.drop([0])

    def crash(self) -> None:
        """kill -9: memory is gone, the disk stays. A write may have been under way."""
        if self.random.random() < 0.3:
            stray = self.owner.folder / "0" / "run-00000099.keys.tmp"
            stray.parent.mkdir(parents=True, exist_ok=True)
            stray.write_bytes(b"half")
        self.owner.start()

    def moves(self) -> None:
        """A rebalance; perhaps back to where it was, onto the runs left there."""
        before = self.known_to(self.owner.keys[0])
        self.owner.keys.drop([0])
        self.log.acknowledge(0, [])
        self.owner = self.random.choice(self.replicas)
        self.restore()
        self.differences += before != self.known_to(self.owner.keys[0])

    def reset(self) -> None:
        """An operator stops the group and sends it back, as far as rows still are."""
        there = [n for n in range(self.position) if self.rows[n].time_ms >= self.log.now_ms - LONGEST_LAG_MS]
        self.position = self.random.choice(there) if there else self.position
        self.was_reset = True
        for replica in self.replicas:
            replica.start()
        self.owner = self.random.choice(self.replicas)
        self.restore()

    def restore(self) -> None:
        """Runs and changelog must give what the changelog alone gives."""
        self.owner.keys.restore([0])
        if self.protocol == Protocol() and self.random.random() < 0.3:
            anew = restore(self.log, self.folder / "anew", 0, PLAN, memtable_keys=4)
            self.differences += self.known_to(self.owner.keys[0]) != self.known_to(anew)
            anew.close()

    def known_to(self, known: PartitionKeys) -> Any:
        """-> what a state will know when the next row comes: keys by slice, and which."""
        now = self.rows[min(self.position, len(self.rows) - 1)].time_ms
        slices = {slice: keys for slice, keys in known.slices().items() if not slice.expired(now)}
        which = known.admit(_keys(list(range(DIFFERENT_KEYS))), 0, now).tolist()
        known.aborted()
        return slices, which, 0 not in self.windows or known.clock_ms

    def markers_arrive(self) -> None:
        if self.on_their_way is not None:
            self.log.mark(self.on_their_way)
            self.on_their_way = None

    def doubled(self) -> bool:
        """Published twice within the window: by the time of publication; by the time of typing too, unless an operator
        had rows read again."""
        for key in range(DIFFERENT_KEYS):
            window = self.window(key)
            published = sorted((v.at_ms, v.row.time_ms) for v in self.verdicts if v.row.key == key and v.at_ms)
            for (first_ms, _), (again_ms, typed_ms) in pairwise(published):
                if not window or again_ms <= first_ms + window:
                    return True
                if not self.was_reset and typed_ms <= first_ms + window:
                    return True
        return False

    def lost(self) -> bool:
        """Taken for the repeat of a row that nobody published, or so long ago that its key is forgotten."""
        for verdict in self.verdicts:
            window = self.window(verdict.row.key)
            oldest = verdict.oldest_ms - window - slice_ms(window) if window else 0
            same = [v.at_ms for v in self.verdicts if v.row.key == verdict.row.key and v.at_ms]
            if not any(at_ms >= oldest for at_ms in same):
                return True
        return {row.key for row in self.rows} != {verdict.row.key for verdict in self.verdicts}


def _keys(numbers: list[int]) -> Keys:
    return Keys.of_bytes(b"".join(number.to_bytes(16, "big") for number in numbers))


def _persist_pending(known: PartitionKeys) -> None:
    """What must not be done: pending keys written as if they were committed."""
    known.unlogged()
    known.committed([])
    known.flush()


WINDOWS = {
    "for ever": (0,),
    "two windows and for ever": (0, 70, 200),
    "two windows, and retention": (70, 200),
}


def _wrong_runs(protocol: Protocol, windows: Sequence[int], folder: Path, runs: int) -> tuple[int, int, int]:
    """-> (runs with doubled keys, runs with lost keys, runs in which two knew different things)"""
    doubled = lost = differed = 0
    for seed in range(runs):
        world = World(seed, protocol, windows, folder / str(seed))
        world.run()
        doubled += world.doubled()
        lost += world.lost()
        differed += world.differences > 0
    return doubled, lost, differed


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS.keys())
def test_every_key_is_published_exactly_once_within_its_window(windows: Sequence[int], tmp_path: Path) -> None:
    assert _wrong_runs(Protocol(), windows, tmp_path, RUNS) == (0, 0, 0)


@pytest.mark.long
@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS.keys())
def test_every_key_is_published_exactly_once_in_thousands_of_runs(windows: Sequence[int], tmp_path: Path) -> None:
    assert _wrong_runs(Protocol(), windows, tmp_path, 3000) == (0, 0, 0)


def test_keys_are_published_again_after_their_window(tmp_path: Path) -> None:
    again = 0
    for seed in range(10):
        world = World(seed, Protocol(), (70,), tmp_path / str(seed))
        world.run()
        again += sum(1 for v in world.verdicts if v.at_ms) > DIFFERENT_KEYS
    assert again >= 9


@pytest.mark.parametrize(
    ("left_out", "what"),
    [
        pytest.param({"rolls_back": False}, "lost", id="no rollback after an abort loses rows"),
        pytest.param({"persists_committed_only": False}, "lost", id="persisting before the commit loses rows"),
        pytest.param({"restores_to_the_end": False}, "doubled", id="restoring to the last stable offset doubles rows"),
        pytest.param(
            {"rebuilds_after_unknown": False}, "doubled", id="taking an unknown outcome for an abort doubles rows"
        ),
        pytest.param(
            {"clock_of_the_rows": False}, "doubled", id="forgetting by the time of work doubles rows that waited"
        ),
        pytest.param(
            {"times_of_the_broker": False}, "differed", id="keys dated by the process are not those of a replay"
        ),
    ],
)
def test_each_part_of_the_protocol_is_needed(left_out: dict[str, bool], what: str, tmp_path: Path) -> None:
    wrong = _wrong_runs(replace(Protocol(), **left_out), (0, 70, 200), tmp_path, 20)
    assert wrong[("doubled", "lost", "differed").index(what)] > 0
