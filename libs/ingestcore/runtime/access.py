"""What a stage may ask of Kafka besides its inputs (`TopicAccess`), over the real broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ingestcore.kafka.admin import open_admin, topic_id
from ingestcore.kafka.reading import Reading
from ingestcore.kafka.transactions import Transactions
from ingestcore.settings import Platform
from ingestcore.stage import Input
from ingestcore.topics import topic_name


class Topics:
    """Reads by logical topic name; remembers partition counts, never topic ids (a topic may be made anew)."""

    def __init__(self, platform: Platform, transactions: Transactions | None) -> None:
        self._platform, self._transactions = platform, transactions
        self._reading = Reading(platform)
        self._admin = open_admin(platform)
        self._partitions: dict[str, int] = {}

    def topic_id(self, topic: str) -> str:
        return topic_id(self._admin, topic_name(self._platform.topic_prefix, topic))

    def partitions(self, topic: str) -> int:
        if topic not in self._partitions:
            self._partitions[topic] = self._reading.partitions(topic)
        return self._partitions[topic]

    def replay(self, topic: str, partition: int, first: int | None = None, last: int | None = None) -> Iterator[Input]:
        return self._reading.replay(topic, partition, first, last)

    def start(self, topic: str, partition: int) -> int:
        return self._reading.bounds(topic, partition)[0]

    def end(self, topic: str, partition: int) -> int:
        return self._reading.bounds(topic, partition)[1]

    def produced(self, topic: str, partition: int) -> Sequence[tuple[int, int]]:
        if self._transactions is None:
            return ()
        return self._transactions.produced.get((topic_name(self._platform.topic_prefix, topic), partition), ())

    def forget(self, partition: int) -> None:
        """The partition was lost: what we produced beside it says nothing about its end any more."""
        if self._transactions is not None:
            for place in [place for place in self._transactions.produced if place[1] == partition]:
                del self._transactions.produced[place]
