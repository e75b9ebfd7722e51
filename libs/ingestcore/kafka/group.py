"""A consumer group member that never commits what it no longer owns.

Group metadata is captured when records are fetched and sent with exactly those records. Metadata taken anew for records
held before lets a frozen member that woke and rejoined commit what others have redone.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from ingestcore.kafka import options
from ingestcore.kafka.bounded import Stuck, within
from ingestcore.kafka.clients import Reader
from ingestcore.kafka.errors import Rebalanced, meaning, raise_for
from ingestcore.settings import Platform
from ingestcore.stage import Gap

log = structlog.get_logger(__name__)

_METADATA_MAGIC = b"CGMDv2:"
_LOOKUP_SECONDS = 20


def generation(metadata: bytes) -> int:
    """Of serialized group metadata (librdkafka's). -1 = no member: the broker would accept it unfenced."""
    return int(struct.unpack_from("<i", metadata, len(_METADATA_MAGIC))[0])


class GroupMember:
    """Consumes one topic. `located` is called with (partition, committed offset, metadata) of every partition whose
    committed position was looked up; `left` with a partition that went away. Both run on the polling thread."""

    def __init__(
        self,
        platform: Platform,
        topic: str,
        group: str,
        located: Callable[[int, int, str], None],
        left: Callable[[int], None],
    ) -> None:
        self._topic, self._located, self._left = topic, located, left
        # An open transaction holds up committed() until the broker has aborted it.
        self._patience_seconds = platform.transaction_timeout_ms / 1000 + 15
        self._failure: Exception | None = None
        self._closing = False
        self.moved = False
        """The group moved since `relocate`: nothing held may be kept."""
        self.fresh: set[int] = set()
        """Partitions that came and whose stage state is not restored yet."""
        self.lost: set[int] = set()
        """Partitions that went and whose stage state is not dropped yet."""
        self.membership: Any = None
        """Group metadata captured with the records held now."""
        self._focused: int | None = None
        self._asked_at = 0.0
        self._consumer = Reader(options.group_member(platform, group))
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    # -- callbacks: they run inside consume() and poll()
    def _on_assign(self, _: Consumer, parts: list[TopicPartition]) -> None:
        self.moved = True
        if self._closing:
            return
        self.fresh |= {t.partition for t in parts}
        self.lost -= {t.partition for t in parts}
        try:
            where = self._locate(parts)
        except Exception as error:
            # They are ours all the same, and `relocate` says from where they are read. It can only move what is being
            # fetched: without an offset librdkafka would look one up, find none, stop, and refuse every seek.
            self._failure = error
            where = [TopicPartition(t.topic, t.partition, OFFSET_BEGINNING) for t in parts]
        self._consumer.incremental_assign(where)

    def _on_revoke(self, _: Consumer, parts: list[TopicPartition]) -> None:
        # In a cooperative group the generation has moved already: what is held can't be committed any more.
        self.moved = True
        for part in parts:
            self._left(part.partition)
            self.fresh.discard(part.partition)
            self.lost.add(part.partition)
        self._consumer.incremental_unassign(parts)

    def _locate(self, parts: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Committed offsets -> where to read. Raises Gap, Retriable, KafkaRefused."""
        where: list[TopicPartition] = []
        if not parts:
            return where
        try:
            for t in self._consumer.committed(list(parts), self._patience_seconds):
                if t.error is not None:
                    raise meaning(t.error, f"the group's offset of {t.topic}[{t.partition}]")
                low, high = self._consumer.get_watermark_offsets(t, timeout=_LOOKUP_SECONDS)
                start = t.offset if t.offset >= 0 else 0
                if not low <= start <= high:
                    committed = t.offset if t.offset >= 0 else "none"
                    raise Gap(
                        f"{t.topic}[{t.partition}]: committed is {committed}, the log holds {low} to {high}. Records "
                        "are gone by retention, or the topic was made anew. See the ledger for what is "
                        "missing, then set the group's offsets (kafka-consumer-groups.sh --reset-offsets)."
                    )
                self._located(t.partition, t.offset, t.metadata or "")
                where.append(TopicPartition(t.topic, t.partition, start))
        except KafkaException as error:
            raise self._consumer.why(error, "the group's offsets can't be read") from error
        return where

    # -- reading
    def away(self) -> str:
        """-> a sentence when no broker answers, else "". Asks the broker at most once a second."""
        heard = self._consumer.heard
        if not heard.down:
            return ""
        if time.monotonic() - self._asked_at > 1:
            self._asked_at = time.monotonic()
            try:
                self._consumer.list_topics(self._topic, timeout=0.5)
                heard.clear()
                return ""
            except KafkaException:
                pass
        return str(heard.silence("no Kafka broker answers", "going on when one does"))

    def owned(self) -> list[int]:
        return sorted(t.partition for t in self._consumer.assignment())

    def fetch(self, limit: int, wait_seconds: float, *, holding: bool) -> list[Message]:
        """Records, all held under one captured membership.

        holding  records fetched earlier are still held
        Raises Rebalanced: the group moved meanwhile, nothing may be kept; Gap; KafkaRefused; KafkaException.
        """
        before = self._consumer.consumer_group_metadata()
        # consume() waits for a full batch: poll() returns with the first record.
        first = self._consumer.poll(wait_seconds) if wait_seconds else None
        messages = [first] if first is not None else []
        if first is not None or not wait_seconds:
            messages += self._consumer.consume(limit, 0)
        after = self._consumer.consumer_group_metadata()
        if self._failure is not None:
            raise self._failure
        records = []
        for message in messages:
            if message.error() is None:
                records.append(message)
            else:
                raise_for(message)
        foreign = bool(records) and (before != after or generation(after) < 0)
        if self.moved or foreign or (holding and after != self.membership):
            raise Rebalanced("the group moved")
        if records:
            self._consumer.heard.clear()
        if records or (not holding and generation(after) >= 0):
            self.membership = after
        return records

    def positions(self) -> dict[int, int]:
        """-> next offset to be read by partition. It passes transaction markers, which are no records."""
        owned = self._consumer.assignment()
        return {t.partition: t.offset for t in self._consumer.position(owned) if t.offset >= 0} if owned else {}

    def ends(self) -> dict[int, int]:
        """-> end of the log by partition, as the last fetch told it; asks nobody."""
        owned = self._consumer.assignment()
        bounds = {t.partition: self._consumer.get_watermark_offsets(t, cached=True) for t in owned}
        return {partition: found[1] for partition, found in bounds.items() if found is not None and found[1] >= 0}

    def relocate(self) -> None:
        """Back to what is committed: drop what was fetched, look up positions of all owned partitions, seek there.

        Raises Gap, Retriable, KafkaRefused, KafkaException: call it again; nothing is fetched before it has succeeded.
        """
        self.membership = None
        self._failure = None  # of partitions that came: they are looked up with the others
        owned = self._consumer.assignment()
        for part in self._locate(owned):
            self._consumer.seek(part)
        # A partition that left while it was paused comes back paused.
        self._consumer.resume(owned)
        self._focused = None
        self.moved = False

    def focus(self, partition: int | None) -> None:
        """Fetch only this partition; None: all."""
        if partition == self._focused:
            return
        owned = self._consumer.assignment()
        others = [t for t in owned if partition is not None and t.partition != partition]
        self._consumer.resume([t for t in owned if t not in others])
        self._consumer.pause(others)
        self._focused = partition

    def idle(self, seconds: float, stopped: Callable[[], bool]) -> None:
        """Stay in the group for a while without taking records. `relocate` must follow."""
        until = time.monotonic() + seconds
        try:
            while not stopped() and (left := until - time.monotonic()) > 0:
                self._consumer.pause(self._consumer.assignment())  # also those that came meanwhile
                self._consumer.poll(min(left, 0.2))
                if self._failure is not None:
                    raise self._failure
        finally:
            self._consumer.resume(self._consumer.assignment())

    def close(self, deadline_seconds: float) -> bool:
        """Leave the group, so that operators can reset offsets at once. -> left in time? (close() can hang)"""
        self._closing = True
        try:
            within(deadline_seconds, self._consumer.close, "leave-group")
        except (Stuck, KafkaException):
            return False
        return True
