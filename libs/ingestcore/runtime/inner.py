"""A stage in the process of the one before it: it takes what that emits within the same transaction, and the topic
between them is left out. A deployment choice: `ingest run chunk-downloader+csv-parser`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ingestcore.messages.ledger import LedgerRecord
from ingestcore.runtime.gauges import StageGauges
from ingestcore.runtime.recording import Delivery, LedgerBook, rows_of
from ingestcore.stage import At, Emit, Input, Stage, Step, Unbalanced, check

_NOTHING_READY_SECONDS = 0.0005


class Inner:
    """Runs a stage without state on the emits of another.

    An outer input may be many inner ones; all have the outer one's place. In the ledger the stage says what it would
    say behind a topic, once an outer input and commit: the outer delivery's pass stands for the topic's id, the number
    of its entry for the offset.
    """

    def __init__(self, stage: Stage, service: str, consumes: str, replica: str, gauges: StageGauges) -> None:
        self.service, self.gauges, self._stage, self._consumes = service, gauges, stage, consumes
        self._book = LedgerBook(service, service, replica)
        self._waiting: Counter[At] = Counter()
        self.deliveries: dict[At, Delivery] = {}
        """The outer deliveries of this commit, by the place of the inner inputs."""

    def takes(self, emit: Emit) -> bool:
        return emit.topic == self._consumes

    def feed(self, emit: Emit, headers: Mapping[str, str], outer: At, delivery: Delivery) -> Iterator[Step]:
        """-> checked steps of one emit. Raises Unbalanced and what the stage raises."""
        at = At(self._consumes, outer.partition, outer.offset)
        self.deliveries[at] = delivery
        self._waiting[at] += emit.rows
        job = self._stage.process(Input(at, bytes(emit.value), headers, emit.key or b"", delivery.timestamp_ms), None)
        for step in job:
            if step is None:
                time.sleep(_NOTHING_READY_SECONDS)
            else:
                yield self._checked(step)

    def settle(self) -> Iterator[Step]:
        """Before a commit: everything it was given must be done. Raises Unbalanced."""
        for step in self._stage.settle(final=True):
            yield self._checked(step)
        left = {at: rows for at, rows in self._waiting.items() if rows}
        if left:
            raise Unbalanced(f"{self.service}: rows were handed on and not settled: {left}")

    def _checked(self, step: Step) -> Step:
        check(step)
        self._waiting.subtract(rows_of(step.tally))
        self._book.add(step)
        return step

    def records(self) -> list[LedgerRecord]:
        """-> ledger records of this commit."""
        return [
            replace(
                record,
                entries=tuple(
                    replace(e, topic_id=e.pass_id, offset=e.sequence, upstream=e.pass_id, sequence=0, last=True)
                    for e in record.entries
                ),
            )
            for record in self._book.records(self.deliveries, {})
        ]

    def committed(self) -> None:
        self._stage.committed()
        self.gauges.count_committed()
        self.clear()

    def aborted(self) -> None:
        self._stage.aborted()
        self.clear()

    def clear(self) -> None:
        """Nothing is uncommitted."""
        self._book.clear()
        self._waiting.clear()
        self.deliveries.clear()
        self.gauges.forget()
