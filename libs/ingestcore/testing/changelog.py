"""A transactional log in memory: `TopicAccess` for tests of stages that keep a changelog.

Like a broker's: records of a transaction lie in the log at once, become visible by a marker that takes an offset of its
own, and a decided transaction's marker may come late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from ingestcore.stage import At, Gap, Input


class Outcome(Enum):
    """Of a transaction: undecided, or what its marker says or will say."""

    OPEN = auto()
    COMMITTED = auto()
    ABORTED = auto()


@dataclass
class Transaction:
    """One producer's transaction. `marked`: its markers are in the log."""

    outcome: Outcome = Outcome.OPEN
    marked: bool = False
    touched: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Record:
    value: bytes | None  # None: a marker
    transaction: Transaction
    time_ms: int
    headers: Mapping[str, str] = field(default_factory=dict)


class TransactionalLog:
    """One topic. `waits` False makes replays stop at the last stable offset, as a careless reader would."""

    def __init__(self, partitions: int, topic_id: str = "id", *, waits: bool = True) -> None:
        self._logs: list[list[_Record]] = [[] for _ in range(partitions)]
        self._starts = [0] * partitions
        self._id, self._waits = topic_id, waits
        self._last_produced: dict[int, list[tuple[int, int]]] = {}
        self.now_ms = 1_700_000_000_000
        """The broker's time; every record takes a millisecond."""

    # -- writing
    def append(
        self, transaction: Transaction, partition: int, value: bytes, headers: Mapping[str, str] | None = None
    ) -> int:
        """-> offset."""
        assert transaction.outcome is Outcome.OPEN
        self.now_ms += 1
        self._logs[partition].append(_Record(value, transaction, self.now_ms, headers or {}))
        transaction.touched.add(partition)
        return len(self._logs[partition]) - 1

    def decide(self, transaction: Transaction, outcome: Outcome, *, marked: bool = True) -> None:
        """Commit or abort. `marked` False: the markers are still on their way."""
        transaction.outcome = outcome
        if marked:
            self.mark(transaction)

    def mark(self, transaction: Transaction) -> None:
        """The markers of a decided transaction arrive. Idempotent."""
        if not transaction.marked:
            transaction.marked = True
            for partition in sorted(transaction.touched):
                self._logs[partition].append(_Record(None, transaction, self.now_ms))

    def truncate(self, partition: int, start: int) -> None:
        """Retention deletes everything before `start`."""
        self._starts[partition] = start

    def expire(self, partition: int, before_ms: int) -> None:
        """Retention deletes the records older than this; never any behind the newest, as a broker's segments do."""
        log = self._logs[partition]
        kept = next((offset for offset, record in enumerate(log) if record.time_ms >= before_ms), len(log))
        self._starts[partition] = max(self._starts[partition], min(kept, self._stable(partition)))

    def acknowledge(self, partition: int, offsets: Sequence[int]) -> None:
        """What `produced` answers; no offsets: it is forgotten."""
        log = self._logs[partition]
        self._last_produced[partition] = [(offset, log[offset].time_ms) for offset in offsets]

    # -- TopicAccess
    def topic_id(self, topic: str) -> str:
        return self._id

    def partitions(self, topic: str) -> int:
        return len(self._logs)

    def start(self, topic: str, partition: int) -> int:
        return self._starts[partition]

    def end(self, topic: str, partition: int) -> int:
        return len(self._logs[partition])

    def produced(self, topic: str, partition: int) -> Sequence[tuple[int, int]]:
        return self._last_produced.get(partition, [])

    def replay(self, topic: str, partition: int, first: int | None = None, last: int | None = None) -> Iterator[Input]:
        if first is not None and first < self._starts[partition]:
            raise Gap(f"{topic}[{partition}]: offset {first} is wanted, the log starts at {self._starts[partition]}")
        log = self._logs[partition]
        end = len(log) if self._waits else self._stable(partition)
        for offset in range(max(first or 0, self._starts[partition]), end if last is None else min(end, last + 1)):
            record = log[offset]
            if record.transaction.outcome is Outcome.OPEN:
                # What a waiting reader sees in the end: the broker's time-out.
                self.decide(record.transaction, Outcome.ABORTED)
            self.mark(record.transaction)
            if record.value is not None and record.transaction.outcome is Outcome.COMMITTED:
                yield Input(At(topic, partition, offset), record.value, record.headers, timestamp_ms=record.time_ms)

    def _stable(self, partition: int) -> int:
        log = self._logs[partition]
        return next((offset for offset, record in enumerate(log) if not record.transaction.marked), len(log))
