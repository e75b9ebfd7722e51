"""A partition's keys from local runs and the changelog behind them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from ingestcore.runtime.service import TopicAccess
from ingestcore.stage import Gap
from services.normalizer.changelog import CHANGELOG, KeysRecord
from services.normalizer.keys import Keys
from services.normalizer.run_folder import RunFolder, Stamp
from services.normalizer.runs import Unfit
from services.normalizer.slices import Slice
from services.normalizer.state import FilterPlan, PartitionKeys

TAKE_BYTES: Final = 4 << 20
"""Changelog records are taken together up to this size: sorting and hashing go by the batch."""

log = structlog.get_logger(__name__)


def restore(topics: TopicAccess, root: Path, partition: int, plan: FilterPlan, memtable_keys: int) -> PartitionKeys:
    """-> everything committed for the partition, once the transactions open now have ended.

    root         folder of all partitions' runs, this process's own
    memtable_keys  so many restored keys are written as a run
    Raises Retriable: the changelog can't be read now. OSError: the folder can't be written.
    """
    stamp = Stamp(topics.topic_id(CHANGELOG), partition, topics.partitions(CHANGELOG))
    # Taken before the replay, which ends at or behind it: all that is committed below is then known.
    end = topics.end(CHANGELOG, partition)
    state = _local(root / str(partition), stamp, plan, end)
    if state is not None:
        try:
            return _replay(topics, partition, state, end, memtable_keys)
        except Gap as gap:
            # What the local runs lack has left the log: they are worth no more than the log alone.
            log.warning("local dedupe state is older than its changelog", partition=partition, error=gap)
            state.close()
    return _replay(topics, partition, _empty(root / str(partition), stamp, plan), end, memtable_keys)


def _local(path: Path, stamp: Stamp, plan: FilterPlan, end: int) -> PartitionKeys | None:
    """-> the state the folder holds, if it can be trusted."""
    try:
        folder = RunFolder.load(path, stamp)
        if folder is None:
            return None
        if folder.complete_to is not None and folder.complete_to > end:
            raise Unfit(f"{path} is complete to offset {folder.complete_to}, the changelog ends at {end}")
        return PartitionKeys(folder, plan)
    except Unfit as problem:
        log.warning("local dedupe state is restored from the changelog", partition=stamp.partition, error=problem)
        return None


def _empty(path: Path, stamp: Stamp, plan: FilterPlan) -> PartitionKeys:
    return PartitionKeys(RunFolder(path, stamp), plan)


def _replay(topics: TopicAccess, partition: int, state: PartitionKeys, end: int, memtable_keys: int) -> PartitionKeys:
    taken, size, clock_ms, reached = dict[Slice, list[bytes]](), 0, 0, state.complete_to or 0
    for input in topics.replay(CHANGELOG, partition, state.complete_to):
        record = KeysRecord.decode(input)
        taken.setdefault(record.slice(input.timestamp_ms), []).append(record.keys)
        size += len(record.keys)
        clock_ms, reached = max(clock_ms, record.clock_ms), input.at.offset + 1
        if size >= TAKE_BYTES:
            state.learn(_joined(taken), clock_ms, reached)
            taken, size = {}, 0
            if state.recent >= memtable_keys:
                state.flush()
    state.learn(_joined(taken), clock_ms, max(reached, end))
    return state


def _joined(taken: Mapping[Slice, list[bytes]]) -> dict[Slice, Keys]:
    return {slice: Keys.of_bytes(b"".join(parts)) for slice, parts in taken.items()}
