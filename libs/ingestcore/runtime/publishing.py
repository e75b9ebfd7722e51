"""What steps carry, on its way into the transaction: outputs, dead letters, ledger entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from ingestcore.kafka.transactions import Transactions
from ingestcore.messages.ledger import LedgerRecord
from ingestcore.messages.moments import iso_utc
from ingestcore.runtime.held import Held
from ingestcore.runtime.inner import Inner
from ingestcore.runtime.recording import LEDGER_HEADERS, Delivery, dead_letter, emitted, headers, lettered
from ingestcore.runtime.spans import Spans
from ingestcore.stage import Reject, Step
from ingestcore.topics import TOPICS, topic_name


class Publishing:
    """Sends into the open transaction, and says to `held` how much that was."""

    def __init__(
        self, prefix: str, input_topic: str, transactions: Transactions, held: Held, spans: Spans, inner: Inner | None
    ) -> None:
        """prefix       of topic names
        input_topic  full name, for dead letters
        inner        takes what it reads of the emits, in the same transaction"""
        self._prefix, self._input_topic = prefix, input_topic
        self._tx, self._held, self._spans, self._inner = transactions, held, spans, inner
        self.dlq_partitions = 0
        """Known once the topics are."""

    def publish(self, step: Step, deliveries: Sequence[Delivery], service: str) -> None:
        """Produce what a step carries, or hand it on to the inner stage."""
        added = headers(step, deliveries, iso_utc(datetime.now(UTC)))
        self._spans.stepped(step, added, service)
        for emit in step.emits:
            named = emitted(emit, added)
            if self._inner is not None and self._inner.takes(emit):
                ((outer, delivery),) = zip(step.covers, deliveries, strict=True)
                self._publish_inner(self._inner, self._inner.feed(emit, named, outer, delivery))
            else:
                self._send(emit.topic, emit.value, emit.key, emit.partition, named)
        for reject in step.rejects:
            self._send_letter(reject, added, service)

    def publish_ledger(self, records: list[LedgerRecord]) -> None:
        """The ledger's records of a commit; with those of the inner stage, which is settled first."""
        if self._inner is not None:
            self._publish_inner(self._inner, self._inner.settle())
            records = records + self._inner.records()
        for record in records:
            self._send("ledger", record.encode(), record.origin.id.encode(), None, LEDGER_HEADERS)

    def _publish_inner(self, inner: Inner, steps: Iterator[Step]) -> None:
        for step in steps:
            deliveries = [inner.deliveries[at] for at in dict.fromkeys(step.covers)]
            self.publish(step, deliveries, inner.service)
            inner.gauges.stepped(step, inner.deliveries)

    def _send(self, topic: str, value: bytes, key: bytes | None, partition: int | None, named: dict[str, str]) -> None:
        self._held.began()
        name, noted = topic_name(self._prefix, topic), TOPICS[topic].noted
        self._tx.send(name, value, key=key, partition=partition, headers=named, noted=noted)
        self._held.grew(len(value))

    def _send_letter(self, reject: Reject, added: dict[str, str], service: str) -> None:
        letter = dead_letter(reject, service, self._input_topic, added["first_seen"])
        partition = int(letter.id[:8], 16) % self.dlq_partitions
        self._send("dlq", letter.raw, bytes.fromhex(letter.id), partition, lettered(letter, added))
