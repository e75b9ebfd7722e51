"""Reads whole topics with one consumer: what an audit does again and again should not open a client per partition."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from ingestcore.kafka import options
from ingestcore.kafka.admin import end_offsets, open_admin
from ingestcore.kafka.clients import Admin, Reader
from ingestcore.kafka.errors import raise_for
from ingestcore.kafka.reading import as_input
from ingestcore.settings import Platform
from ingestcore.stage import Input, Retriable
from ingestcore.topics import topic_name

_TIMEOUT_SECONDS: Final = 20.0
_STALL_SECONDS: Final = 60.0
_BATCH: Final = 1000

Place = tuple[str, int]
"""Logical topic and partition."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Log start and read-uncommitted end of a partition."""

    start: int
    end: int


def bounds(platform: Platform, *topics: str) -> dict[Place, Bounds]:
    """-> bounds of every partition of logical topics. Raises Retriable: Kafka is away or a topic missing."""
    admin = open_admin(platform)
    found: dict[Place, Bounds] = {}
    try:
        metadata: Any = admin.metadata()
        for topic in topics:
            name = topic_name(platform.topic_prefix, topic)
            if name not in metadata.topics:
                raise Retriable(f"topic {name} does not exist yet: `ingest up` or `ingest topics --create` makes it")
            count = len(metadata.topics[name].partitions)
            starts, ends = _starts(admin, name, count), end_offsets(admin, name, count)
            found |= {(topic, p): Bounds(starts[p], ends[p]) for p in range(count)}
    except (KafkaException, TimeoutError) as error:
        raise admin.failed(error, "the ends of the topics can't be read") from error
    return found


def sweep(
    platform: Platform,
    within: Mapping[Place, Bounds],
    *,
    any_format: bool = False,
    client_options: Mapping[str, Any] | None = None,
) -> Iterator[Input]:
    """Committed records within the bounds, in order within a partition. any_format: see `as_input`.

    Raises Retriable: no progress for a minute; NewerFormat.
    """
    names = {(topic_name(platform.topic_prefix, topic), p): topic for topic, p in within}
    left = {(topic_name(platform.topic_prefix, t), p): b.end for (t, p), b in within.items() if b.end > b.start}
    if not left:
        return
    reader = Reader(options.consumer(platform, platform.group("reading"), **(client_options or {})))
    try:
        starts = {(topic_name(platform.topic_prefix, t), p): b.start for (t, p), b in within.items()}
        reader.assign([TopicPartition(name, p, starts[name, p]) for name, p in left])
        passed, moved = -1, time.monotonic()
        while left:
            for message in reader.consume(_BATCH, 0.1):
                if message.error() is not None:
                    raise_for(message)
                    continue
                place = (message.topic() or "", message.partition() or 0)
                if (message.offset() or 0) < left.get(place, 0):
                    yield as_input(message, names[place], any_format=any_format)
            # Positions, not records: they pass transaction markers and what was aborted.
            at = {(t.topic, t.partition): t.offset for t in reader.position([TopicPartition(*place) for place in left])}
            left = {place: end for place, end in left.items() if at[place] < end}
            total = sum(offset for offset in at.values() if offset > 0) - len(left)
            if total != passed:
                passed, moved = total, time.monotonic()
            elif time.monotonic() - moved > _STALL_SECONDS:
                raise reader.heard.silence("no progress", f"the ends of {sorted(left)} are not reached")
    except KafkaException as error:
        raise reader.heard.silence("Kafka does not answer", error.args[0].str()) from error
    finally:
        reader.close()


def _starts(admin: Admin, name: str, partitions: int) -> list[int]:
    wanted = {TopicPartition(name, p): OffsetSpec.earliest() for p in range(partitions)}  # type: ignore[no-untyped-call]
    futures = admin.list_offsets(wanted, request_timeout=_TIMEOUT_SECONDS)
    found = {tp.partition: int(future.result(_TIMEOUT_SECONDS).offset) for tp, future in futures.items()}
    return [found[p] for p in range(partitions)]
