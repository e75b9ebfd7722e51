"""What one partition knows: every key published so far, exactly, with bounded memory.

Three layers, from young to old: `pending` keys belong to the open transaction, `recent` ones are committed and still in
memory, the rest lies in sorted runs on disk. A Bloom filter over all of them answers for most new keys; what it calls
possibly known is looked up exactly. Disk holds committed keys only, so a crash at any moment leaves a state that the
changelog completes.

Keys are kept by time slice, and slices are forgotten (`slices`). The filter can't forget: it is built anew from what is
left once half of what it holds may have expired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.normalizer.bloom import Bloom
from services.normalizer.changelog import RECORD_BYTES, KeysRecord
from services.normalizer.keys import KEY_BYTES, Keys, Mask, SortedKeys, due_for_merge, first_occurrences, merge
from services.normalizer.merging import RunMerge
from services.normalizer.run_folder import RunFolder
from services.normalizer.runs import Run, Unfit
from services.normalizer.slices import EVER, Slice

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
        self._complete_to, self._clock_ms = folder.complete_to, folder.clock_ms
        self._pending_clock_ms = self._logged_clock_ms = self._clock_ms
        self._unlogged: dict[int, list[SortedKeys]] = {}
        self._logged: list[tuple[int, SortedKeys]] = []
        self._recent: dict[Slice, list[SortedKeys]] = {}
        self._merge: RunMerge | None = None
        self._bloom = self._new_bloom()
        self.doubtful = False
        """It may differ from what a replay of the changelog gives: to be restored."""

    def __len__(self) -> int:
        """Committed keys, without those that have expired."""
        return sum(self.slices().values())

    def slices(self) -> dict[Slice, int]:
        """-> committed keys by slice, without those that have expired."""
        found: dict[Slice, int] = {}
        for run in self._folder.runs:
            found[run.slice] = found.get(run.slice, 0) + len(run.keys)
        for slice, parts in self._recent.items():
            found[slice] = found.get(slice, 0) + sum(map(len, parts))
        return {slice: keys for slice, keys in found.items() if not slice.expired(self._clock_ms)}

    @property
    def recent(self) -> int:
        """Committed keys held in memory."""
        return sum(len(part) for parts in self._recent.values() for part in parts)

    @property
    def complete_to(self) -> int | None:
        """Every key committed to the changelog below this offset is known; None: nothing was restored yet."""
        return self._complete_to

    @property
    def clock_ms(self) -> int:
        """Broker time up to which rows were read, as far as the changelog tells; 0: unknown."""
        return self._clock_ms

    @property
    def filter_bytes(self) -> int:
        return self._bloom.nbytes

    @property
    def runs(self) -> int:
        return len(self._folder.runs)

    # -- the transaction
    def admit(self, keys: Keys, window_ms: int = 0, time_ms: int = 0) -> Mask:
        """-> True for each row whose key is not known; such keys are pending from now on.

        window_ms  how long they are to be remembered; 0: for ever
        time_ms    the broker's time of the rows
        """
        self._pending_clock_ms = max(self._pending_clock_ms, time_ms)
        order = np.argsort(keys.high)
        fresh = first_occurrences(keys, order)
        suspect = self._bloom.add(keys) & fresh
        if suspect.any():
            asked = order[suspect[order]]
            fresh[asked[self._known(keys.take(asked))]] = False
        new = order if fresh.all() else order[fresh[order]]
        if len(new):
            self._unlogged.setdefault(window_ms, []).append(SortedKeys(keys.high[new], keys.low[new]))
        return fresh

    def unlogged(self) -> list[KeysRecord]:
        """-> what the changelog of this transaction lacks: pending keys not handed out before, and the clock."""
        clock, records = self._pending_clock_ms, list[KeysRecord]()
        for window_ms, parts in self._unlogged.items():
            keys = merge(parts)
            for start in range(0, len(keys), RECORD_BYTES // KEY_BYTES):
                part = slice(start, start + RECORD_BYTES // KEY_BYTES)
                piece = SortedKeys(keys.high[part], keys.low[part])
                self._logged.append((window_ms, piece))
                records.append(KeysRecord(Keys(piece.high, piece.low).to_bytes(), window_ms, clock))
        self._unlogged = {}
        if records:
            self._logged_clock_ms = clock
        return records

    def committed(self, written: Sequence[tuple[int, int]]) -> int:
        """The transaction is in: pending keys are known. -> how many.

        written  (offset, broker time in ms) of this process's changelog records of the last transaction that had any;
                 empty: unknown
        """
        assert not self._unlogged, "keys that the changelog does not hold"
        for (window_ms, keys), time_ms in zip(self._logged, self._times(written), strict=True):
            self._remember(EVER if time_ms is None else Slice.of(window_ms, time_ms), keys)
        new = sum(len(keys) for _, keys in self._logged)
        self._logged = []
        if written:
            self._complete_to = max(self._complete_to or 0, written[-1][0] + 1)
        self._advance(self._logged_clock_ms)
        self._pending_clock_ms = self._clock_ms
        return new

    def _times(self, written: Sequence[tuple[int, int]]) -> list[int | None]:
        """-> time of each record handed out, as a replay will see it. None: it can't be told; a key that may expire is
        kept then, until the state is restored."""
        if len(written) == len(self._logged):
            return [time_ms for _, time_ms in written]
        self.doubtful = self.doubtful or any(window_ms for window_ms, _ in self._logged)
        return [None] * len(self._logged)

    def aborted(self) -> None:
        """Pending keys were never published. Their bits stay in the filter, which only costs lookups."""
        self._unlogged, self._logged = {}, []
        self._pending_clock_ms = self._logged_clock_ms = self._clock_ms

    # -- restoring
    def learn(self, keys: Mapping[Slice, Keys], clock_ms: int, complete_to: int) -> None:
        """Take committed keys read from the changelog, up to (not including) that offset."""
        self._advance(max(self._clock_ms, clock_ms))
        self._pending_clock_ms = self._logged_clock_ms = self._clock_ms
        for slice, some in keys.items():
            if len(some) and not slice.expired(self._clock_ms):
                order = np.argsort(some.high)
                self._bloom.add(some)
                self._remember(slice, SortedKeys(some.high[order], some.low[order]))
        self._complete_to = max(self._complete_to or 0, complete_to)

    # -- disk
    def flush(self) -> None:
        """Write the recent keys as runs and move the stamp. Raises OSError, and then nothing has changed."""
        parts = {slice: merge(parts) for slice, parts in self._recent.items()}
        self._folder.add(parts, self._complete_to, self._clock_ms)
        self._recent = {}

    def tidy(self, keys: int) -> bool:
        """Drop runs that have expired; merge about this many keys of runs, if there are too many. -> is there more to
        do?

        Raises OSError; Unfit: a run is damaged.
        """
        self._drop_expired()
        if self._bloom.slices > MOST_SLICES or self._bloom.keys > max(2 * len(self), self._plan.capacity):
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
        self._abandon_merge()
        self._recent = {}
        self.aborted()

    # -- inside
    def _remember(self, slice: Slice, keys: SortedKeys) -> None:
        if not len(keys):
            return
        parts = self._recent.setdefault(slice, [])
        parts.append(keys)
        due = due_for_merge([len(part) for part in parts], FAN_IN)
        while due:
            merged = merge([parts[number] for number in due])
            parts[:] = [part for number, part in enumerate(parts) if number not in due] + [merged]
            due = due_for_merge([len(part) for part in parts], FAN_IN)

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
        """-> all that is known at the clock of the open transaction."""
        clock = self._pending_clock_ms
        runs = [run.keys for run in self._folder.runs if not run.slice.expired(clock)]
        recent = [part for slice, parts in self._recent.items() if not slice.expired(clock) for part in parts]
        return [*runs, *recent, *self._pending()]

    def _pending(self) -> list[SortedKeys]:
        return [keys for _, keys in self._logged] + [part for parts in self._unlogged.values() for part in parts]

    def _due_merge(self) -> RunMerge | None:
        by_slice: dict[Slice, list[Run]] = {}
        for run in self._folder.runs:
            by_slice.setdefault(run.slice, []).append(run)
        for runs in by_slice.values():
            due = due_for_merge([len(run.keys) for run in runs], FAN_IN)
            if due:
                return RunMerge(self._folder, [runs[number] for number in due])
        return None

    def _abandon_merge(self) -> None:
        if self._merge is not None:
            self._merge.abandon()
            self._merge = None

    # -- expiry
    def _advance(self, clock_ms: int) -> None:
        self._clock_ms = clock_ms
        for slice in [slice for slice in self._recent if slice.expired(clock_ms)]:
            del self._recent[slice]

    def _drop_expired(self) -> None:
        expired = [run for run in self._folder.runs if run.slice.expired(self._clock_ms)]
        if expired:
            if self._merge is not None and self._merge.touches(expired):
                self._abandon_merge()
            self._folder.drop(expired)

    def _new_bloom(self) -> Bloom:
        in_memory = [*(part for parts in self._recent.values() for part in parts), *self._pending()]
        known = len(self._folder) + sum(map(len, in_memory))
        bloom = Bloom(max(self._plan.capacity, int(known * SPARE)), self._plan.error_rate)
        for run in self._folder.runs:
            for piece in run.read():
                bloom.add(piece)
        for part in in_memory:
            bloom.add(Keys(part.high, part.low))
        return bloom
