"""Which dead letters the lake has already. Every done claim lists the ids of its letters; this is their sum.

The dlq topic is keyed by the letter's id, so a letter that is produced again comes through the same partition, and one
partition's claims are all that must be looked through: those of the topic as it is, and those of the same partition of
topics it replaced. With another number of partitions a repeat may come through another one: letters written before the
change and produced again after it then stand in the lake twice, with the same `id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import structlog

from services.parquet_sink.checkpoint import ID_BYTES
from services.parquet_sink.claims import ClaimLog

log = structlog.get_logger(__name__)

_RECENT: Final = 50_000
"""Ids kept in a set (90 bytes each) before they join the sorted array (16 bytes each)."""


class KnownLetters:
    """Ids of letters in done claims of one partition. Not thread-safe.

    current  the log of the topic as it is: every claim in it must be done when it is asked
    earlier  logs of topics it replaced
    """

    def __init__(self, current: ClaimLog, earlier: Sequence[ClaimLog]) -> None:
        self._current = current
        self._sorted = np.empty(0, dtype=f"S{ID_BYTES}")
        self._recent: set[bytes] = set()
        self._read = 0
        for claims in earlier:
            lost = claims.unfinished()
            if lost:
                log.warning(
                    "letters of a topic that is gone were claimed and never written", claim=claims.name(lost[0])
                )
            self._take(claims, 0)

    def __contains__(self, id: bytes) -> bool:
        self._catch_up()
        if id in self._recent:
            return True
        at = int(np.searchsorted(self._sorted, np.array(id, self._sorted.dtype)))
        return at < len(self._sorted) and bool(self._sorted[at] == np.array(id, self._sorted.dtype))

    def _catch_up(self) -> None:
        if self._read < self._current.entries:
            self._take(self._current, self._read)
            self._read = self._current.entries

    def _take(self, claims: ClaimLog, since: int) -> None:
        for ids in claims.ids_since(since):
            self._recent.update(ids[i : i + ID_BYTES] for i in range(0, len(ids), ID_BYTES))
            if len(self._recent) > _RECENT:
                self._merge()

    def _merge(self) -> None:
        fresh = np.array(list(self._recent), self._sorted.dtype)
        self._sorted = np.sort(np.concatenate((self._sorted, fresh)), kind="stable")
        self._recent.clear()
