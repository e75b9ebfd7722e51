"""Which of several rows of one entity counts. Pure.

With a revision the highest one; between equal ones the first, since an equal revision changes nothing. A row without a
revision is older than any with one. Without revisions the later row counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Entities:
    """Rows in the order they were read, sorted into entities.

    entity  per row: number of its entity
    rank    per row: place of its revision among all, 0: it has none; None: the dataset has no revision
    """

    entity: Ints
    rank: Ints | None

    @property
    def crowded(self) -> bool:
        """Whether an entity has several rows."""
        return len(self.entity) > 0 and int(self.entity.max()) + 1 < len(self.entity)

    def newest(self, among: Ints) -> Ints:
        """-> of these rows, the one of each entity that counts, in order."""
        if not self.crowded:
            return among
        order = np.arange(len(self.entity))
        rank = np.zeros_like(order) if self.rank is None else self.rank
        # Of rows without a revision the later counts, of those with equal ones the first.
        turn = np.where(rank == 0, order, -order)
        sorted_ = among[np.lexsort((turn[among], rank[among], self.entity[among]))]
        last = np.append(self.entity[sorted_][1:] != self.entity[sorted_][:-1], True)
        return np.sort(sorted_[last])

    def late(self, among: Ints) -> Mask:
        """-> per row: whether of these rows one before it had a higher revision of the same entity."""
        found = np.zeros(len(self.entity), np.bool_)
        if self.rank is None or not self.crowded or not len(among):
            return found
        by_entity = among[np.argsort(self.entity[among], kind="stable")]
        step = int(self.rank.max()) + 1
        # Higher entity numbers outdo every rank of those before: one running maximum serves all entities.
        height = self.entity[by_entity] * step + self.rank[by_entity]
        highest = np.maximum.accumulate(height)
        found[by_entity[1:]] = (highest[:-1] > height[1:]) & (self.entity[by_entity][1:] == highest[:-1] // step)
        return found


def entities(key: Sequence[pa.Array], revision: pa.Array | None) -> Entities:
    """key: its columns; revision: that column, None: there is none."""
    number: Ints = np.zeros(len(key[0]), np.int64)
    for column in key:
        coded = pc.dictionary_encode(column, null_encoding="encode")
        number = number * len(coded.dictionary) + coded.indices.to_numpy()
        number = np.unique(number, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return Entities(number, None if revision is None else _ranks(revision))


def _ranks(revision: pa.Array) -> Ints:
    ranks: Ints = pc.rank(revision, sort_keys="ascending", tiebreaker="dense").to_numpy().astype(np.int64)
    return np.where(revision.is_null().to_numpy(zero_copy_only=False), 0, ranks)
