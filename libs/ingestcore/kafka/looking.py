"""Reads for people: outside any group, never committing, indifferent to formats. Audits and restores read elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import zip_longest
from typing import Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from ingestcore.kafka import options
from ingestcore.kafka.admin import open_admin
from ingestcore.kafka.clients import Reader
from ingestcore.kafka.errors import raise_for
from ingestcore.kafka.reading import as_input
from ingestcore.kafka.sweep import Bounds, Place, sweep
from ingestcore.settings import Platform
from ingestcore.stage import Input
from ingestcore.topics import topic_name

_TIMEOUT_SECONDS: Final = 20.0
_BATCH: Final = 200
_LOOK_SECONDS: Final = 0.25
_NEAR_OFFSETS: Final = 16
"""Records so near to each other are read in one go, with what lies between: a block is megabytes, a new reader costs a
fifth of a second."""


def first_after(platform: Platform, places: Mapping[Place, Bounds], timestamp_ms: int) -> dict[Place, int]:
    """-> offset of the first record not older than the timestamp (the broker's), by place; the end where there is none.

    Raises Retriable: Kafka is away.
    """
    full = {(topic_name(platform.topic_prefix, topic), number): (topic, number) for topic, number in places}
    spec = OffsetSpec.for_timestamp(timestamp_ms)
    admin = open_admin(platform)  # its answers end with it
    try:
        futures = admin.list_offsets({TopicPartition(*place): spec for place in full}, request_timeout=_TIMEOUT_SECONDS)
        found = {full[at.topic, at.partition]: f.result(_TIMEOUT_SECONDS).offset for at, f in futures.items()}
    except (KafkaException, TimeoutError) as error:
        raise admin.failed(error, "Kafka does not say which offsets a time has") from error
    return {place: offset if offset >= 0 else places[place].end for place, offset in found.items()}


def follow(platform: Platform, starts: Mapping[Place, int]) -> Iterator[Input | None]:
    """Committed records from these offsets on, for ever; None: nothing new for the moment. A broker that is away is
    waited for. Raises Gap: an offset is gone; Retriable."""
    full = {(topic_name(platform.topic_prefix, topic), number): topic for topic, number in starts}
    at = {(topic_name(platform.topic_prefix, topic), number): offset for (topic, number), offset in starts.items()}
    reader = Reader(options.consumer(platform, platform.group("reading")))
    try:
        reader.assign([TopicPartition(*place, offset) for place, offset in at.items()])
        while True:
            messages = reader.consume(_BATCH, _LOOK_SECONDS)
            for message in messages:
                if message.error() is not None:
                    raise_for(message)
                else:
                    yield as_input(message, full[message.topic() or "", message.partition() or 0], any_format=True)
            if not messages:
                yield None
    except KafkaException as error:
        raise reader.heard.silence("Kafka does not answer", error.args[0].str()) from error
    finally:
        reader.close()


def pick(platform: Platform, wanted: Mapping[Place, Collection[int]]) -> Iterator[Input]:
    """The committed records at these offsets, as far as they are there: the caller compares with the bounds. In order
    within a partition. Raises Retriable."""
    runs = {place: near(offsets) for place, offsets in wanted.items()}
    for together in zip_longest(*([(place, run) for run in found] for place, found in runs.items())):
        for input in sweep(platform, dict(filter(None, together)), any_format=True):
            if input.at.offset in wanted[input.at.topic, input.at.partition]:
                yield input


def near(offsets: Collection[int]) -> list[Bounds]:
    """-> ranges that hold the offsets, those near to each other in one."""
    found: list[Bounds] = []
    for offset in sorted(offsets):
        if found and offset - found[-1].end < _NEAR_OFFSETS:
            found[-1] = Bounds(found[-1].start, offset + 1)
        else:
            found.append(Bounds(offset, offset + 1))
    return found
