"""What one partition knows: every key published so far, exactly, with bounded memory.

Three layers, from young to old: `pending` keys belong to the open transaction, `recent` ones are committed and still in
memory, the rest lies in sorted runs on disk. A Bloom filter over all of them answers for most new keys; what it calls
possibly known is looked up exactly. Disk holds committed keys only, so a crash at any moment leaves a state that the
changelog completes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.normalizer.bloom import Bloom
from services.normalizer.keys import KEY_BYTES, Keys, Mask, SortedKeys, due_for_merge, first_occurrences, merge
from services.normalizer.merging import RunMerge
from services.normalizer.run_folder import RunFolder
from services.normalizer.runs import Times, Unfit

FAN_IN: Final = 8
"""Sets of one size class that are merged into one, in memory and on disk."""
MOST_SLICES: Final = 4
"""With more, every lookup asks too many: the filter is then built anew as one slice."""
SPARE: Final = 1.5
"""A filter built from known keys has room for this many times as many."""
MAPPED_BYTES: Final = 8 << 20
"""Larger runs are unmapped again after lookups, or all their pages would count as this process's memory."""


@dataclass(frozen=True, slots=True)
class FilterPlan:
    """Size of a partition's filter: keys it is made for at first, and its error rate."""

    capacity: int
    error_rate: float


class PartitionKeys:
    """The keys of one partition. One thread; `admit` belongs to the transaction that `committed` or `aborted` ends."""

    def __init__(self, folder: RunFolder, plan: FilterPlan) -> None:
        """Raises Unfit: a run is damaged."""
        self._folder, self._plan = folder, plan
        self._complete_to = folder.complete_to
        self._unlogged: list[SortedKeys] = []
        self._logged: list[SortedKeys] = []
        self._recent: list[SortedKeys] = []
        self._pending_times = self._recent_times = Times()
        self._merge: RunMerge | None = None
        self._bloom = self._new_bloom()

    def __len__(self) -> int:
        """Committed keys."""
        return len(self._folder) + self.recent

    @property
    def recent(self) -> int:
        """Committed keys held in memory."""
        return sum(map(len, self._recent))

    @property
    def complete_to(self) -> int | None:
        """Every key committed to the changelog below this offset is known; None: nothing was restored yet."""
        return self._complete_to

    @property
    def filter_bytes(self) -> int:
        return self._bloom.nbytes

    @property
    def runs(self) -> int:
        return len(self._folder.runs)

    # -- the transaction
    def admit(self, keys: Keys, time_ms: int = 0) -> Mask:
        """-> True for each row whose key is met for the first time ever; such keys are pending from now on."""
        order = np.argsort(keys.high)
        fresh = first_occurrences(keys, order)
        suspect = self._bloom.add(keys) & fresh
        if suspect.any():
            asked = order[suspect[order]]
            fresh[asked[self._known(keys.take(asked))]] = False
        new = order if fresh.all() else order[fresh[order]]
        if len(new):
            self._unlogged.append(SortedKeys(keys.high[new], keys.low[new]))
            self._pending_times = self._pending_times.with_(Times(time_ms, time_ms))
        return fresh

    def unlogged(self) -> bytes:
        """-> pending keys not handed out before, 16 bytes each: what the changelog of this transaction lacks."""
        data = b"".join(Keys(part.high, part.low).to_bytes() for part in self._unlogged)
        self._logged += self._unlogged
        self._unlogged = []
        return data

    def committed(self, complete_to: int | None) -> int:
        """The transaction is in: pending keys are known. -> how many.

        complete_to: offset behind this process's last changelog record, where that is known.
        """
        new = [*self._logged, *self._unlogged]
        self._logged, self._unlogged = [], []
        if complete_to is not None:
            self._complete_to = max(self._complete_to or 0, complete_to)
        if new:
            self._remember(merge(new), self._pending_times)
        self._pending_times = Times()
        return sum(map(len, new))

    def aborted(self) -> None:
        """Pending keys were never published. Their bits stay in the filter, which only costs lookups."""
        self._logged, self._unlogged, self._pending_times = [], [], Times()

    # -- restoring
    def learn(self, keys: Keys, time_ms: int, complete_to: int) -> None:
        """Take committed keys read from the changelog, up to (not including) that offset."""
        if len(keys):
            order = np.argsort(keys.high)
            self._bloom.add(keys)
            self._remember(SortedKeys(keys.high[order], keys.low[order]), Times(time_ms, time_ms))
        self._complete_to = max(self._complete_to or 0, complete_to)

    # -- disk
    def flush(self) -> None:
        """Write the recent keys as a run and move the stamp. Raises OSError, and then nothing has changed."""
        self._folder.add(merge(self._recent) if self._recent else _NONE, self._recent_times, self._complete_to)
        self._recent, self._recent_times = [], Times()

    def tidy(self, keys: int) -> bool:
        """Merge about this many keys of runs, if there are too many runs. -> is there more to do?

        Raises OSError; Unfit: a run is damaged.
        """
        if self._bloom.slices > MOST_SLICES:
            self._bloom = self._new_bloom()
        merge_ = self._merge or self._due_merge()
        if merge_ is None:
            return False
        self._merge = None
        try:
            if not merge_.advance(keys):
                self._merge = merge_
        except (OSError, Unfit):
            merge_.abandon()
            raise
        return True

    def close(self) -> None:
        """Drop everything in memory; the folder stays as it is."""
        if self._merge is not None:
            self._merge.abandon()
            self._merge = None
        self._recent = []
        self.aborted()

    # -- inside
    def _remember(self, keys: SortedKeys, times: Times) -> None:
        self._recent.append(keys)
        self._recent_times = self._recent_times.with_(times)
        due = due_for_merge([len(part) for part in self._recent], FAN_IN)
        while due:
            merged = merge([self._recent[number] for number in due])
            self._recent = [part for number, part in enumerate(self._recent) if number not in due] + [merged]
            due = due_for_merge([len(part) for part in self._recent], FAN_IN)

    def _known(self, asked: Keys) -> Mask:
        """-> exactly which keys (sorted by their high word) are known or pending. Largest sets first: they answer
        for most."""
        found = np.zeros(len(asked), bool)
        left = np.arange(len(asked))
        for part in sorted(self._parts(), key=len, reverse=True):
            hit = part.contains(asked.take(left))
            found[left[hit]] = True
            left = left[~hit]
            if not len(left):
                break
        if len(self._folder) * KEY_BYTES > MAPPED_BYTES:
            for run in self._folder.runs:
                run.release()
        return found

    def _parts(self) -> list[SortedKeys]:
        runs = [run.keys for run in self._folder.runs]
        return [*runs, *self._recent, *self._logged, *self._unlogged]

    def _due_merge(self) -> RunMerge | None:
        runs = self._folder.runs
        due = due_for_merge([len(run.keys) for run in runs], FAN_IN)
        return RunMerge(self._folder, [runs[number] for number in due]) if due else None

    def _new_bloom(self) -> Bloom:
        in_memory = [*self._recent, *self._logged, *self._unlogged]
        known = len(self._folder) + sum(map(len, in_memory))
        bloom = Bloom(max(self._plan.capacity, int(known * SPARE)), self._plan.error_rate)
        for run in self._folder.runs:
            for piece in run.read():
                bloom.add(piece)
        for part in in_memory:
            bloom.add(Keys(part.high, part.low))
        return bloom


_NONE: Final = SortedKeys(np.empty(0, np.uint64), np.empty(0, np.uint64))
