"""Is a group done with its topic? Counts records, not offsets: behind the last record there are transaction markers,
so the plain lag of a drained group is not 0."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from ingestcore.kafka import options
from ingestcore.kafka.admin import committed, end_offsets, open_admin
from ingestcore.kafka.clients import Admin, Reader
from ingestcore.kafka.errors import raise_for
from ingestcore.settings import Platform
from ingestcore.stage import Gap, Retriable
from ingestcore.topics import topic_name

_LOOK_SECONDS: Final = 5.0
"""For the tails of all partitions; one that does not end in this time has an open transaction: work under way."""
_TAIL_OFFSETS: Final = 2_000
"""A group further behind than this has records waiting; nobody needs to look."""

Place = tuple[str, int]
"""Full topic name and partition."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """waiting: offsets that may hold records, by group; 0: the group is done. ends: of all topics asked about."""

    waiting: Mapping[str, int]
    ends: Mapping[Place, int]

    @property
    def idle(self) -> bool:
        return not any(self.waiting.values())


def backlog(platform: Platform, groups: Mapping[str, str]) -> Backlog:
    """groups: logical topic by consumer group. Raises Retriable: Kafka is away or a topic missing."""
    admin = open_admin(platform)
    ends = _ends(admin, {topic_name(platform.topic_prefix, topic) for topic in groups.values()})
    at: dict[tuple[str, Place], int] = {}
    for group, topic in groups.items():
        done = committed(admin, group)
        places = [place for place in ends if place[0] == topic_name(platform.topic_prefix, topic)]
        at |= {(group, place): done.get(place, 0) for place in places}
    tails: dict[Place, int] = {}
    for (_, place), offset in at.items():
        if offset < ends[place] <= offset + _TAIL_OFFSETS:
            tails[place] = min(offset, tails.get(place, offset))
    last = _last_records(platform, tails, ends)
    waiting = dict.fromkeys(groups, 0)
    for (group, place), offset in at.items():
        waiting[group] += max(0, last.get(place, ends[place]) - offset) if offset < ends[place] else 0
    return Backlog(waiting, ends)


def _ends(admin: Admin, names: set[str]) -> dict[Place, int]:
    metadata: Any = admin.metadata()
    missing = sorted(names - metadata.topics.keys())
    if missing:
        raise Retriable(f"topic {missing[0]} does not exist yet")
    return {
        (name, partition): end
        for name in sorted(names)
        for partition, end in enumerate(end_offsets(admin, name, len(metadata.topics[name].partitions)))
    }


def _last_records(platform: Platform, starts: Mapping[Place, int], ends: Mapping[Place, int]) -> dict[Place, int]:
    """-> offset after the last committed record from `starts` on; the start itself where there is none. Partitions
    whose end was not reached in time are left out, all of them where a group waits at an offset that is gone."""
    if not starts:
        return {}
    found = dict(starts)
    open_places = set(starts)
    reader = Reader(options.consumer(platform, platform.group("reading")))
    try:
        reader.assign([TopicPartition(name, partition, offset) for (name, partition), offset in starts.items()])
        deadline = time.monotonic() + _LOOK_SECONDS
        while open_places and time.monotonic() < deadline:
            for message in reader.consume(500, 0.1):
                if message.error() is not None:
                    raise_for(message)
                    continue
                place = (message.topic() or "", message.partition() or 0)
                found[place] = (message.offset() or 0) + 1
            for at in reader.position([TopicPartition(*place) for place in open_places]):
                if at.offset >= ends[at.topic, at.partition]:
                    open_places.discard((at.topic, at.partition))
    except Gap:
        return {}
    except KafkaException as error:
        raise reader.heard.silence("the ends of the topics can't be read", error.args[0].str()) from error
    finally:
        reader.close()
    return {place: offset for place, offset in found.items() if place not in open_places}
