"""Where the consumer groups of a fleet stand, asked often and cheaply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient

from ingestcore.kafka.admin import end_offsets, open_admin
from ingestcore.settings import Platform
from ingestcore.stage import Retriable
from ingestcore.topics import topic_name

_ANSWER_SECONDS: Final = 10.0

STAGES: Final[Mapping[str, str]] = {
    "chunk-downloader": "objects",
    "csv-parser": "blocks",
    "normalizer": "typed",
    "lake": "normalized",
    "dlq": "dlq",
}
"""Services and sinks that are consumer groups, in the order rows flow, and what they read."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one group by partition: what is committed (offset and metadata), and how many offsets behind it can be read:
    what another service's open transaction holds back is no work yet."""

    committed: Mapping[int, tuple[int, str]]
    behind: Mapping[int, int]

    @property
    def idle(self) -> bool:
        """Nothing to read. A service at rest commits past transaction markers within a second or two."""
        return not any(self.behind.values())

    def moved_since(self, before: Standing, partitions: frozenset[int] | None = None) -> bool:
        """Has any of these partitions (None: of all) committed since, or have they nothing to do?"""
        asked = self.behind.keys() if partitions is None else partitions & self.behind.keys()
        if not any(self.behind[p] for p in asked):
            return True
        return any(self.committed.get(p) != before.committed.get(p) for p in asked)


class Groups:
    """Raises Retriable: Kafka is away."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._admin = open_admin(platform)

    def standing(self, instance: str) -> Standing:
        topic, group = STAGES[instance], self._platform.group(instance)
        with self._asking() as admin:
            ends = self._ends(topic)
            request = [ConsumerGroupTopicPartitions(group)]
            answer = admin.list_consumer_group_offsets(request)[group].result(_ANSWER_SECONDS)
        name = topic_name(self._platform.topic_prefix, topic)
        found = {t.partition: t for t in answer.topic_partitions or () if t.topic == name and t.offset >= 0}
        committed = {p: (t.offset, t.metadata or "") for p, t in found.items()}
        behind = {p: max(0, end - committed.get(p, (0, ""))[0]) for p, end in enumerate(ends)}
        return Standing(committed, behind)

    def owned(self, instance: str, replica: str) -> frozenset[int]:
        """-> partitions that this replica holds as the broker sees it; empty while the group is forming."""
        mine = [m for m in self._members(instance) if m.client_id == f"ingest-{replica}" and m.assignment]
        return frozenset(t.partition for member in mine for t in member.assignment.topic_partitions)

    def empty(self, instance: str) -> bool:
        """Has the group no members, so that its offsets may be set?"""
        return not self._members(instance)

    def ends(self, topic: str) -> int:
        """-> the sum of a topic's end offsets."""
        with self._asking():
            return sum(self._ends(topic))

    def _ends(self, topic: str) -> tuple[int, ...]:
        name = topic_name(self._platform.topic_prefix, topic)
        return end_offsets(self._admin, name, self._platform.partitions, readable=True)

    def _members(self, instance: str) -> Sequence[Any]:
        group = self._platform.group(instance)
        with self._asking() as admin:
            answer: Any = admin.describe_consumer_groups([group])[group].result(_ANSWER_SECONDS)
        members: Sequence[Any] = answer.members
        return members

    @contextmanager
    def _asking(self) -> Iterator[AdminClient]:
        try:
            yield self._admin
        except (KafkaException, Retriable) as error:
            # An old client asks a broker that came back with leader epochs of its life before, again and again.
            self._admin = open_admin(self._platform)
            raise Retriable(str(error)) from error
