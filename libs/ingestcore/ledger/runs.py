"""Inputs of one row each, events, as runs of offsets: how many there are, how many were given again."""

from __future__ import annotations

from array import array
from collections import defaultdict

import numpy as np

from ingestcore.messages.ledger import Entry
from ingestcore.stage import Fate

Log = tuple[str, int]
"""Topic id and partition."""


class _Spans:
    """Runs of one log in the order told; neighbours are one."""

    def __init__(self) -> None:
        self.first, self.last = array("q"), array("q")

    def add(self, first: int, last: int) -> None:
        if self.last and first == self.last[-1] + 1:
            self.last[-1] = last
        else:
            self.first.append(first)
            self.last.append(last)

    @property
    def told(self) -> int:
        """Offsets, each as often as it was told."""
        return sum(self.last) - sum(self.first) + len(self.first)


class Runs:
    """All deliveries of the events of one account. An entry that was taken before changes nothing."""

    def __init__(self) -> None:
        self._emitted: dict[Log, _Spans] = defaultdict(_Spans)
        self._rejected: dict[Log, _Spans] = defaultdict(_Spans)
        self._taken: set[int] = set()

    def take(self, entry: Entry) -> None:
        known = hash((entry.topic_id, entry.partition, entry.offset, entry.pass_id))
        if known in self._taken:
            return
        self._taken.add(known)
        spans = (self._emitted if Fate.EMITTED in entry.fates else self._rejected)[entry.topic_id, entry.partition]
        for first, last in entry.runs or ((entry.offset, entry.offset),):
            spans.add(first, last)

    @property
    def any(self) -> bool:
        return bool(self._taken)

    @property
    def sent(self) -> int:
        """Rows sent on, by all deliveries together."""
        return sum(spans.told for spans in self._emitted.values())

    @property
    def read(self) -> int:
        """Events."""
        return sum(_distinct(self._emitted.get(log), self._rejected.get(log)) for log in self._logs())

    @property
    def dead(self) -> int:
        """Events that no delivery made a row of."""
        return self.read - sum(_distinct(spans) for spans in self._emitted.values())

    @property
    def replayed(self) -> int:
        """Deliveries of events that had been delivered before."""
        return self.sent + sum(spans.told for spans in self._rejected.values()) - self.read

    def _logs(self) -> set[Log]:
        return {*self._emitted, *self._rejected}


def _distinct(*many: _Spans | None) -> int:
    """-> how many offsets lie in the runs, each counted once."""
    spans = [one for one in many if one is not None]
    first = np.concatenate([np.array(one.first, np.int64) for one in spans])
    last = np.concatenate([np.array(one.last, np.int64) for one in spans])
    order = np.argsort(first, kind="stable")
    first, last = first[order], last[order]
    reached = np.concatenate(([-1], np.maximum.accumulate(last)[:-1]))
    return int(np.maximum(last - np.maximum(first, reached + 1) + 1, 0).sum())
