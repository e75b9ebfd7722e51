"""The partitions this process owns: restored, bounded in memory together, dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from ingestcore.runtime.service import TopicAccess
from ingestcore.stage import Retriable
from services.normalizer.restore import restore
from services.normalizer.runs import Unfit
from services.normalizer.state import FilterPlan, PartitionKeys

TIDY_KEYS: Final = 1 << 20
"""Keys merged after one commit at most: some 50 ms."""
TIDY_STEP_KEYS: Final = 1 << 18
FINAL_KEYS: Final = 1 << 14
"""Fewer recent keys are not worth a run before leaving: the changelog brings them back at once."""

log = structlog.get_logger(__name__)


class OwnedPartitions:
    """Keys by partition.

    root         folder of the runs, this process's own (the runtime holds its lock)
    memtable_keys  committed keys of all partitions that are kept in memory; more are written to runs
    """

    def __init__(self, topics: TopicAccess, root: Path, plan: Callable[[], FilterPlan], memtable_keys: int) -> None:
        self._topics, self._root, self._plan, self._memtable_keys = topics, root, plan, memtable_keys
        self._owned: dict[int, PartitionKeys] = {}
        self._trouble: OSError | None = None
        self._damaged: set[int] = set()

    def __getitem__(self, partition: int) -> PartitionKeys:
        return self._owned[partition]

    def items(self) -> Iterator[tuple[int, PartitionKeys]]:
        return iter(self._owned.items())

    def restore(self, partitions: Sequence[int]) -> None:
        """Raises Retriable: the changelog can't be read or the folder not be written now."""
        for partition in partitions:
            self._forget(partition)
            try:
                self._owned[partition] = restore(self._topics, self._root, partition, self._plan(), self._memtable_keys)
                self._flush_largest()
            except OSError as error:
                raise _unwritable(self._root, error) from error
            self._damaged.discard(partition)
            log.info("dedupe state restored", partition=partition, keys=len(self._owned[partition]))

    def drop(self, partitions: Sequence[int]) -> None:
        """What is in memory is written first, so that a partition that comes back is there at once."""
        for partition in partitions:
            known = self._owned.get(partition)
            if known is not None:
                known.aborted()
                self._try_flush(known)
            self._damaged.discard(partition)
            self._forget(partition)

    def ready(self) -> None:
        """Nothing is pending. Raises Retriable: committed keys could not be written, and taking more would need ever
        more memory; or a damaged partition can't be restored now."""
        if self._damaged:
            self.restore(sorted(self._damaged))
        if self._trouble is not None:
            self.tidy(final=False)
        if self._trouble is not None:
            raise _unwritable(self._root, self._trouble) from self._trouble

    def tidy(self, *, final: bool) -> None:
        """After a commit: write what is too much for memory, merge a little. `final`: keep as little as possible."""
        self._trouble = None
        self._damaged |= {partition for partition, known in self._owned.items() if known.doubtful}
        try:
            self._flush_largest()
            if final:
                for known in self._owned.values():
                    if known.recent >= FINAL_KEYS:
                        known.flush()
            self._merge_most_split()
        except OSError as error:
            log.warning("dedupe state could not be written", error=error)
            self._trouble = error

    def status(self) -> dict[str, Any]:
        """-> for the health report, by partition."""
        return {
            str(partition): {
                "keys": len(known),
                "keys_in_memory": known.recent,
                "runs": known.runs,
                "filter_bytes": known.filter_bytes,
                "complete_to": known.complete_to,
                "clock_ms": known.clock_ms,
            }
            for partition, known in list(self._owned.items())
        }

    def _flush_largest(self) -> None:
        while sum(known.recent for known in self._owned.values()) > self._memtable_keys:
            max(self._owned.values(), key=lambda known: known.recent).flush()

    def _merge_most_split(self) -> None:
        """Merge where there are most runs, one partition at a time: what merging needs is needed once."""
        busy = sorted(self._owned.items(), key=lambda item: item[1].runs, reverse=True)
        steps = TIDY_KEYS // TIDY_STEP_KEYS
        while busy and steps:
            partition, known = busy[0]
            try:
                more = known.tidy(TIDY_STEP_KEYS)
            except Unfit as problem:
                log.error("local dedupe state is damaged, it will be restored", partition=partition, error=problem)
                self._damaged.add(partition)
                more = False
            if more:
                steps -= 1
            else:
                busy.pop(0)

    def _try_flush(self, known: PartitionKeys) -> None:
        try:
            if known.recent >= FINAL_KEYS:
                known.flush()
        except OSError as error:
            log.warning("dedupe state could not be written; it will be restored", error=error)

    def _forget(self, partition: int) -> None:
        known = self._owned.pop(partition, None)
        if known is not None:
            known.close()


def _unwritable(root: Path, error: OSError) -> Retriable:
    return Retriable(f"{root}: {error.strerror or error}: dedupe state can't be kept; free space or mend the disk")
