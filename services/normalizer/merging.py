"""Merging runs a piece at a time, so that no commit waits for a large one."""

from __future__ import annotations

import numpy as np

from services.normalizer.keys import SortedKeys, merge
from services.normalizer.run_folder import RunFolder
from services.normalizer.runs import Checksum, Run


class RunMerge:
    """One merge of some runs of one slice into one. The folder keeps serving lookups from the sources meanwhile."""

    def __init__(self, folder: RunFolder, sources: list[Run]) -> None:
        self._folder, self._sources = folder, sources
        self._taken = [0] * len(sources)
        self._sums = [Checksum() for _ in sources]
        self._writer = folder.writer(sum(len(run.keys) for run in sources))

    def advance(self, keys: int) -> bool:
        """Merge about this many keys more. -> done, and the merged run is in force?

        Raises OSError; Unfit: a source is damaged, which its merged copy would hide.
        """
        self._writer.write(merge([piece for piece in self._next_pieces(keys) if len(piece)]))
        for run in self._sources:
            run.release()
        if any(taken < len(run.keys) for run, taken in zip(self._sources, self._taken, strict=True)):
            return False
        for run, checksum in zip(self._sources, self._sums, strict=True):
            run.check(checksum)
        self._folder.replace(self._sources, self._writer.finish(self._sources[0].slice))
        return True

    def touches(self, runs: list[Run]) -> bool:
        """Is one of these a source?"""
        return any(run in self._sources for run in runs)

    def abandon(self) -> None:
        """The sources stay in force."""
        self._writer.abandon()

    def _next_pieces(self, keys: int) -> list[SortedKeys]:
        """-> what each source has up to a common bound, set by the sources that have more left than their share."""
        share = max(keys // len(self._sources), 1)
        bounds = [
            run.keys.high[taken + share - 1]
            for run, taken in zip(self._sources, self._taken, strict=True)
            if len(run.keys) - taken > share
        ]
        pieces = []
        for number, run in enumerate(self._sources):
            start, end = self._taken[number], len(run.keys)
            if bounds:
                end = max(start, int(np.searchsorted(run.keys.high, min(bounds), side="right")))
            piece = SortedKeys(run.keys.high[start:end], run.keys.low[start:end])
            self._sums[number].add(piece)
            pieces.append(piece)
            self._taken[number] = end
        return pieces
