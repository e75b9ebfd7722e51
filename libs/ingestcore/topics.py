"""The topic registry: every topic's partitions, retention, key rule and limits. Topics are created from it, services
check the broker against it, the documentation's table is drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 86_400_000
MOST_REPLICAS: Final = 3
"""Copies of every record, as far as there are brokers."""
FORMAT: Final = 1
"""Format version written into every message; a reader stops with a clear message at a newer one."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic. `name` is logical: the prefix (`ingest.`) is put before it at the edge.

    partitions       None: the fleet's count (setting `partitions`, 8 unless set)
    keyed            another partition count would move keys to other owners: services refuse to start
    retention_ms     None: kept for ever
    max_bytes        largest message the platform writes to it
    one_row          every message is one row: the ledger speaks of runs of them
    noted            its writer asks for offsets and times of what it wrote
    """

    name: str
    summary: str
    key: str
    value: str
    partitions: int | None = None
    keyed: bool = False
    retention_ms: int | None = 7 * DAY_MS
    compacted: bool = False
    max_bytes: int = 1 << 20
    one_row: bool = False
    noted: bool = False

    def broker_config(self, replication: int = 1) -> dict[str, str]:
        """-> topic configuration for its creation. LogAppendTime: a producer's old timestamp must not make the
        broker delete a record that nobody has read."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": "-1" if self.retention_ms is None else str(self.retention_ms),
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(max(self.max_bytes + (64 << 10), 1 << 20)),
            "min.insync.replicas": str(min_insync(replication)),
        }


def replication(brokers: int) -> int:
    """-> copies of every record on so many brokers."""
    return max(1, min(MOST_REPLICAS, brokers))


def min_insync(replication: int) -> int:
    """-> copies that must have a record before it is acknowledged: all but one, so that one broker may be away."""
    return max(1, replication - 1)


MAX_MESSAGE_BYTES: Final = 33 << 20
"""A block holds at least one row, and `max_row_bytes` may be set up to 32 MiB."""
MAX_EVENT_BYTES: Final = 8 << 20
"""Largest body of an event."""

TOPICS: Final = {
    spec.name: spec
    for spec in (
        TopicSpec(
            "config",
            "Sources, datasets and sinks as applied",
            "`source/NAME`, `sink/NAME`, `dataset/NAME@VERSION`, pointer `dataset/NAME`",
            "JSON specs, `${VAR}` unresolved",
            1,
            True,
            None,
            True,
        ),
        TopicSpec("objects", "Objects found by listers", "object id", "JSON ObjectRef"),
        TopicSpec(
            "blocks",
            "Raw bytes of objects, cut at record ends",
            "object id + block number",
            "raw bytes; facts in headers",
            max_bytes=MAX_MESSAGE_BYTES,
        ),
        TopicSpec(
            "events",
            "Events as producers sent them",
            "entity key, else event id",
            "the producer's body, untouched; CloudEvents and request facts in headers",
            max_bytes=MAX_EVENT_BYTES,
            one_row=True,
        ),
        TopicSpec(
            "typed",
            "Typed rows with keys",
            "none; partition = `_entity` mod N",
            "one Arrow IPC stream, at most 64k rows",
            None,
            True,
            max_bytes=MAX_MESSAGE_BYTES,
        ),
        TopicSpec(
            "dedupe-changelog",
            "New keys of each commit; restores the dedupe state. `apply` keeps it for the longest `dedupe.window`",
            "none; partition as `typed`",
            "16-byte keys",
            None,
            True,
            None,
            max_bytes=MAX_MESSAGE_BYTES,
            noted=True,
        ),
        TopicSpec(
            "normalized",
            "Unique rows with provenance: what sinks read",
            "none; partition as `typed`",
            "one Arrow IPC stream",
            None,
            True,
            max_bytes=MAX_MESSAGE_BYTES,
        ),
        TopicSpec(
            "dlq",
            "Dead letters",
            "dead-letter id",
            "original bytes; facts in headers",
            None,
            True,
            max_bytes=MAX_MESSAGE_BYTES,
        ),
        TopicSpec("ledger", "What became of every row, per input and stage", "object or source id", "JSON"),
    )
}


def topic_name(prefix: str, name: str) -> str:
    """-> the broker's name of a logical topic. Raises KeyError: not in the registry."""
    return prefix + TOPICS[name].name
