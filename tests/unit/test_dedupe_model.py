"""The dedupe protocol on a simulated broker, with the real state code and real files: of rows with one key exactly one
is published, whatever crashes, moves, wakes or stays unknown. Leaving out any part of the protocol breaks it.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ingestcore.testing.changelog import Outcome, Transaction, TransactionalLog
from services.normalizer import partitions
from services.normalizer.keys import Keys
from services.normalizer.partitions import OwnedPartitions
from services.normalizer.restore import CHANGELOG
from services.normalizer.state import FilterPlan, PartitionKeys

REPLICAS = 2
INPUTS, DIFFERENT_KEYS, LARGEST_BATCH = 60, 20, 6
RUNS = 80


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


@dataclass
class Replica:
    """One process and its disk. `keys` lives as long as the process, the folder longer."""

    folder: Path
    log: TransactionalLog
    keys: OwnedPartitions = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.log.acknowledge(0, None)
        self.keys = OwnedPartitions(self.log, self.folder, lambda: FilterPlan(100, 0.01), memtable_keys=4)


class World:
    """One partition, its owner, the others, and what the sinks can see."""

    def __init__(self, seed: int, protocol: Protocol, folder: Path) -> None:
        self.random = random.Random(seed)
        self.protocol = protocol
        self.inputs = [self.random.randrange(DIFFERENT_KEYS) for _ in range(INPUTS)]
        self.log = TransactionalLog(1, waits=protocol.restores_to_the_end)
        self.replicas = [Replica(folder / str(number), self.log) for number in range(REPLICAS)]
        self.position = 0
        self.published: list[int] = []
        self.on_their_way: Transaction | None = None
        self.owner = self.replicas[0]
        self.owner.keys.restore([0])

    def run(self) -> None:
        for _ in range(4000):
            if self.position == len(self.inputs):
                return
            if self.random.random() < 0.5:
                self.markers_arrive()
            self.turn()
        raise AssertionError("no progress")

    def turn(self) -> None:
        """One transaction of the owner, and what may befall it."""
        end, keys, transaction = self.work(self.owner)
        event = self.random.random()
        if event < 0.12:
            self.log.decide(transaction, Outcome.ABORTED)
            if self.protocol.rolls_back:
                self.owner.keys[0].aborted()
        elif event < 0.24:
            self.crash()
            self.log.decide(transaction, Outcome.ABORTED, marked=self.random.random() < 0.5)
            self.owner = self.random.choice(self.replicas)
            self.owner.keys.restore([0])
        elif event < 0.34:
            self.decided(end, keys, transaction)
            self.outcome_unknown()
        elif event < 0.44:
            self.frozen(transaction)
        else:
            self.decided(end, keys, transaction)
            self.log.acknowledge(0, self.log.end(CHANGELOG, 0) - 1 if keys else self.log.produced(CHANGELOG, 0))
            self.owner.keys[0].committed(_behind(self.log.produced(CHANGELOG, 0)))
            self.owner.keys.tidy(final=self.random.random() < 0.2)
            if self.random.random() < 0.25:
                self.moves()

    def work(self, replica: Replica) -> tuple[int, list[int], Transaction]:
        """Compute a batch and write it into an open transaction. -> (next position, new keys, transaction)"""
        end = min(self.position + self.random.randint(1, LARGEST_BATCH), len(self.inputs))
        batch = self.inputs[self.position : end]
        known = replica.keys[0]
        new = [key for key, passed in zip(batch, known.admit(_keys(batch)), strict=True) if passed]
        # The broker ends a producer's last transaction before it takes the next.
        self.markers_arrive()
        transaction = Transaction()
        data = known.unlogged()
        if data:
            self.log.append(transaction, 0, data)
        if not self.protocol.persists_committed_only and self.random.random() < 0.5:
            _persist_pending(known)
        return end, new, transaction

    def decided(self, end: int, new: list[int], transaction: Transaction) -> None:
        """Committed: offsets and rows are visible, the changelog's markers may be late."""
        self.log.decide(transaction, Outcome.COMMITTED, marked=False)
        self.on_their_way = transaction
        self.published += new
        self.position = end

    def outcome_unknown(self) -> None:
        """The commit's answer was lost; the broker had committed."""
        if self.protocol.rebuilds_after_unknown:
            self.owner.keys[0].aborted()
            self.owner.keys.restore([0])
        else:
            self.owner.keys[0].aborted()

    def frozen(self, transaction: Transaction) -> None:
        """The owner sleeps in its transaction, another takes over and works, the sleeper wakes and is fenced."""
        sleeper = self.owner
        self.owner = next(replica for replica in self.replicas if replica is not sleeper)
        self.log.acknowledge(0, None)
        self.owner.keys.restore([0])
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
        self.owner.keys.drop([0])
        self.log.acknowledge(0, None)
        self.owner = self.random.choice(self.replicas)
        self.owner.keys.restore([0])

    def markers_arrive(self) -> None:
        if self.on_their_way is not None:
            self.log.mark(self.on_their_way)
            self.on_their_way = None

    def doubled(self) -> bool:
        return max(Counter(self.published).values()) > 1

    def lost(self) -> bool:
        return set(self.published) != set(self.inputs)


def _keys(numbers: list[int]) -> Keys:
    return Keys.of_bytes(b"".join(number.to_bytes(16, "big") for number in numbers))


def _behind(offset: int | None) -> int | None:
    return None if offset is None else offset + 1


def _persist_pending(known: PartitionKeys) -> None:
    """What must not be done: pending keys written as if they were committed."""
    known.committed(None)
    known.flush()


def _wrong_runs(protocol: Protocol, folder: Path, runs: int) -> tuple[int, int]:
    """-> (runs with doubled keys, runs with lost keys)"""
    doubled = lost = 0
    for seed in range(runs):
        world = World(seed, protocol, folder / str(seed))
        world.run()
        doubled += world.doubled()
        lost += world.lost()
    return doubled, lost


def test_every_key_is_published_exactly_once(tmp_path: Path) -> None:
    assert _wrong_runs(Protocol(), tmp_path, RUNS) == (0, 0)


@pytest.mark.long
def test_every_key_is_published_exactly_once_in_thousands_of_runs(tmp_path: Path) -> None:
    assert _wrong_runs(Protocol(), tmp_path, 3000) == (0, 0)


@pytest.mark.parametrize(
    ("left_out", "loses"),
    [
        pytest.param({"rolls_back": False}, True, id="no rollback after an abort loses rows"),
        pytest.param({"persists_committed_only": False}, True, id="persisting before the commit loses rows"),
        pytest.param({"restores_to_the_end": False}, False, id="restoring to the last stable offset doubles rows"),
        pytest.param(
            {"rebuilds_after_unknown": False}, False, id="taking an unknown outcome for an abort doubles rows"
        ),
    ],
)
def test_each_part_of_the_protocol_is_needed(left_out: dict[str, bool], loses: bool, tmp_path: Path) -> None:
    doubled, lost = _wrong_runs(replace(Protocol(), **left_out), tmp_path, 20)
    assert (lost if loses else doubled) > 0
