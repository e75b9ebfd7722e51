"""The normalizer: of all rows with one key exactly one goes on, and every row learns where it comes from.

Inputs are typed batches; a row passes if its `_key` was never published and is not pending in this transaction. New
keys go to the changelog in the same transaction, so what is known and what is published never differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from ingestcore.datasets.windows import EVENT_WINDOW_SECONDS
from ingestcore.messages.rows import (
    EVENT_FIELDS,
    HASH,
    KEY,
    NORMALIZED_FIELDS,
    OBJECT,
    PROVENANCE,
    RECEIVED,
    TYPED_FIELDS,
    read,
    write,
)
from ingestcore.stage import Emit, Fate, Input, Line, Owner, Step
from services.normalizer.changelog import CHANGELOG, KeysRecord
from services.normalizer.keys import KEY_BYTES, Keys, Mask
from services.normalizer.piles import Pile
from services.normalizer.provenance import codes, origin_of, provenance_column

_TYPED_NAMES: Final = frozenset(field.name for field in (*TYPED_FIELDS, *EVENT_FIELDS))


class KnownKeys(Protocol):
    """What the stage asks of a partition's keys (`state.PartitionKeys`)."""

    def __len__(self) -> int: ...

    def admit(self, keys: Keys, window_ms: int, time_ms: int) -> Mask:
        """-> True for rows whose key is not known; such keys are pending."""

    def unlogged(self) -> list[KeysRecord]:
        """-> what the changelog of this transaction lacks."""

    def committed(self, written: Sequence[tuple[int, int]]) -> int:
        """Pending keys are known from now on. -> how many."""

    def aborted(self) -> None:
        """Pending keys are forgotten."""


class Partitions(Protocol):
    """The owned partitions' keys (`partitions.OwnedPartitions`)."""

    def __getitem__(self, partition: int) -> KnownKeys: ...

    def items(self) -> Iterator[tuple[int, KnownKeys]]: ...

    def restore(self, partitions: Sequence[int]) -> None:
        """Rebuild from what is committed, dropping what is in memory. Raises Retriable."""

    def drop(self, partitions: Sequence[int]) -> None: ...

    def ready(self) -> None:
        """Asked before each input; after a commit it may rebuild state. Raises Retriable: state can't be kept now."""

    def status(self) -> dict[str, Any]: ...

    def tidy(self, *, final: bool) -> None:
        """Bound the memory; nothing is pending. Never raises: what could not be done `ready` says."""


class Normalizer:
    """A map with state.

    gather_bytes  inputs smaller than this are settled together, up to this size
    window        dataset@version -> seconds its keys are remembered; None: it does not say, which means for ever, of
                  events EVENT_WINDOW_SECONDS. Raises NotSeenYet
    produced      partition -> (offset, broker time in ms) of this process's changelog records of the last committed
                  transaction that had any, if known
    report        told at each commit and when partitions come or leave: duplicates of this commit by owner (0 where
                  there were none), keys known by partition
    """

    concurrency = 1

    def __init__(
        self,
        keys: Partitions,
        *,
        gather_bytes: int,
        window: Callable[[str], float | None],
        produced: Callable[[int], Sequence[tuple[int, int]]],
        report: Callable[[Mapping[Owner, int], Mapping[int, int]], None],
    ) -> None:
        self._keys, self._gather_bytes, self._window = keys, gather_bytes, window
        self._produced, self._report = produced, report
        self._piles: dict[tuple[int, str], Pile] = {}
        self._duplicates: Counter[Owner] = Counter()
        self._final = False

    def process(self, input: Input, resume: str | None) -> Iterator[Step | None]:
        """Raises ValueError: not a typed batch."""
        self._keys.ready()
        batch = _typed(input)
        place = input.at.partition, input.headers["dataset"]
        pile = self._piles.get(place)
        large = len(input.value) >= self._gather_bytes
        if pile is not None and (large or not pile.takes(batch)):
            yield self._settle(self._piles.pop(place))
            pile = None
        if pile is None:
            unsaid = EVENT_WINDOW_SECONDS if RECEIVED in batch.schema.names else 0
            window_ms = round((self._window(place[1]) or unsaid) * 1000)
            pile = self._piles[place] = Pile(place[1], place[0], batch.schema, window_ms)
        pile.add(input.at, batch, len(input.value), input.timestamp_ms)
        if large or pile.nbytes >= self._gather_bytes:
            yield self._settle(self._piles.pop(place))

    def settle(self, *, final: bool) -> Iterator[Step]:
        self._final = final
        while self._piles:
            yield self._settle(self._piles.pop(next(iter(self._piles))))
        for partition, known in self._keys.items():
            emits = [
                Emit(CHANGELOG, record.keys, partition=partition, headers=record.headers())
                for record in known.unlogged()
            ]
            if emits:
                yield Step(covers=(), tally=(), emits=emits)

    def assigned(self, partitions: Sequence[int]) -> None:
        self._keys.restore(partitions)
        self._tell({})

    def revoked(self, partitions: Sequence[int]) -> None:
        self._keys.drop(partitions)
        self._tell({})

    def committed(self) -> None:
        for partition, known in self._keys.items():
            known.committed(self._produced(partition))
        self._keys.tidy(final=self._final)
        duplicates, self._duplicates = self._duplicates, Counter()
        self._tell(duplicates)

    def aborted(self) -> None:
        self._piles.clear()
        self._duplicates.clear()
        for _, known in self._keys.items():
            known.aborted()

    def status(self) -> dict[str, Any]:
        """-> for the health report."""
        return self._keys.status()

    def _tell(self, duplicates: Mapping[Owner, int]) -> None:
        self._report(duplicates, {partition: len(known) for partition, known in self._keys.items()})

    def _settle(self, pile: Pile) -> Step:
        batch = pile.batch()
        passed = self._keys[pile.partition].admit(_keys_of(batch), pile.window_ms, pile.time_ms)
        tally = _tally(pile, batch, passed)
        rows = int(np.count_nonzero(passed))
        for line in tally:
            self._duplicates[line.origin.owner] += line.rows if line.fate is Fate.DUPLICATE else 0
        if not rows:
            return Step(pile.inputs, tally)
        kept = batch if rows == len(passed) else batch.filter(pa.array(passed))
        emit = Emit(
            "normalized",
            write(_normalized(kept)),
            rows=rows,
            partition=pile.partition,
            headers={"dataset": pile.dataset},
        )
        return Step(pile.inputs, tally, [emit])


def _typed(input: Input) -> pa.RecordBatch:
    """Raises ValueError."""
    if "dataset" not in input.headers:
        raise ValueError("a typed message needs the header `dataset`")
    batch = read(input.value)
    names = batch.schema.names
    of_events = EVENT_FIELDS if RECEIVED in names else ()
    for field in (*TYPED_FIELDS, *of_events):
        if names.count(field.name) != 1 or batch.schema.field(field.name).type != field.type:
            raise ValueError(f"a typed batch needs one column {field.name} of type {field.type}")
    for name in (KEY, OBJECT, HASH, *(field.name for field in of_events if not field.nullable)):
        if batch.column(name).null_count:
            raise ValueError(f"{name} must not be null")
    for facts in batch.column(OBJECT).dictionary.to_pylist():
        origin_of(facts)
    return batch


def _keys_of(batch: pa.RecordBatch) -> Keys:
    column = batch.column(KEY)
    data = column.buffers()[1]
    if data is None:
        return Keys.of_bytes(b"")
    start = column.offset * KEY_BYTES
    return Keys.of_bytes(memoryview(data)[start : start + len(column) * KEY_BYTES])


def _tally(pile: Pile, batch: pa.RecordBatch, passed: Mask) -> list[Line]:
    """-> what became of each input's rows, by origin."""
    column = batch.column(OBJECT)
    width = max(len(column.dictionary), 1)
    places = codes(column)
    if len(pile.inputs) > 1:
        places += np.repeat(np.arange(len(pile.inputs)) * width, [part.num_rows for part in pile.batches])
    size = width * len(pile.inputs)
    total = np.bincount(places, minlength=size)
    emitted = total if passed.all() else np.bincount(places[passed], minlength=size)
    lines = []
    for place in np.flatnonzero(total).tolist():
        at = pile.inputs[place // width]
        origin = origin_of(column.dictionary[place % width].as_py())
        kept, repeated = int(emitted[place]), int(total[place] - emitted[place])
        fates = ((Fate.EMITTED, kept), (Fate.DUPLICATE, repeated))
        lines += [Line(at, origin, fate, rows) for fate, rows in fates if rows]
    return lines


def _normalized(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Typed rows -> normalized rows; the dataset's columns and their metadata are taken as they are."""
    own = [number for number, name in enumerate(batch.schema.names) if name not in _TYPED_NAMES]
    fields = [batch.schema.field(number) for number in own]
    columns = [batch.column(number) for number in own]
    for field in NORMALIZED_FIELDS:
        fields.append(field)
        columns.append(provenance_column(batch) if field.name == PROVENANCE else batch.column(field.name))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, batch.schema.metadata))
