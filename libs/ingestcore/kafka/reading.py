"""Bounded reads of topics outside any group: replays for restores and claims, whole topics for audits."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, KafkaException, Message, TopicPartition

from ingestcore.kafka import options
from ingestcore.kafka.clients import Reader
from ingestcore.kafka.errors import raise_for
from ingestcore.settings import Platform
from ingestcore.stage import At, Gap, Input, NewerFormat, Retriable
from ingestcore.topics import FORMAT, topic_name

_BATCH = 64
_STALL_SECONDS = 60.0


def as_input(message: Message, logical: str, *, any_format: bool = False) -> Input:
    """any_format: for looking only. Raises NewerFormat."""
    headers = {str(pair[0]): _text(pair[1]) for pair in message.headers() or ()}
    if not any_format and is_newer(version := headers.get("format", str(FORMAT))):
        raise NewerFormat(
            f"{message.topic()}[{message.partition()}]@{message.offset()} has format {version}, this service reads up "
            f"to {FORMAT}: upgrade it, its offsets stay where they are"
        )
    at = At(logical, message.partition() or 0, message.offset() or 0)
    return Input(at, message.value() or b"", headers, message.key() or b"", message.timestamp()[1])


def is_newer(version: str) -> bool:
    """Whether a message of this format was written by a newer version of the platform."""
    return version != str(FORMAT) and (not version.isdigit() or int(version) > FORMAT)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


class Reading:
    """Reads one platform's topics by logical name."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def _reader(self, isolation: str) -> Reader:
        group = self._platform.group("reading")
        return Reader(options.consumer(self._platform, group, **{"isolation.level": isolation}))

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """-> (log start, read-uncommitted end). A read-committed client's own end stops behind open transactions."""
        probe = self._reader("read_uncommitted")
        try:
            at = TopicPartition(topic_name(self._platform.topic_prefix, topic), partition)
            low, high = probe.get_watermark_offsets(at, timeout=20)
            return low, high
        except KafkaException as error:
            raise probe.failed(error, f"the ends of {topic}[{partition}] can't be read") from error
        finally:
            probe.close()

    def partitions(self, topic: str) -> int:
        name = topic_name(self._platform.topic_prefix, topic)
        probe = self._reader("read_committed")
        try:
            found = probe.list_topics(name, timeout=20).topics[name].partitions
        except KafkaException as error:
            raise probe.failed(error, f"{name} can't be described") from error
        finally:
            probe.close()
        if not found:
            raise Retriable(f"topic {name} does not exist yet")
        return len(found)

    def replay(self, topic: str, partition: int, first: int | None = None, last: int | None = None) -> Iterator[Input]:
        """Committed records first..last; without `last` all up to the read-uncommitted end of now.

        Waits for `position()`, not for records: it passes transaction markers and the records of aborted ones.
        Raises Gap: `first` is gone; Retriable: no progress for a minute.
        """
        low, end = self.bounds(topic, partition)
        if first is not None and first < low:
            raise Gap(f"{topic}[{partition}]: offset {first} is wanted, the log starts at {low}")
        if last is not None:
            end = min(end, last + 1)
        start = low if first is None else first
        if start >= end:
            return
        name = topic_name(self._platform.topic_prefix, topic)
        reader = self._reader("read_committed")
        try:
            reader.assign([TopicPartition(name, partition, start if start else OFFSET_BEGINNING)])
            here, moved = -1, time.monotonic()
            while here < end:
                for message in reader.consume(_BATCH, 0.2):
                    if message.error() is not None:
                        raise_for(message)
                    elif (message.offset() or 0) < end:
                        yield as_input(message, topic)
                position = reader.position([TopicPartition(name, partition)])[0].offset
                if position > here:
                    here, moved = position, time.monotonic()
                elif time.monotonic() - moved > _STALL_SECONDS:
                    raise reader.heard.silence(f"reading {topic}[{partition}]", f"no progress at {here} of {end}")
        finally:
            reader.close()

    def all(self, topic: str) -> Iterator[Input]:
        """Every committed record of every partition up to the ends of now."""
        for partition in range(self.partitions(topic)):
            yield from self.replay(topic, partition)


def read_all(platform: Platform, topic: str) -> Iterator[Input]:
    """Every committed record of a logical topic up to the ends of now, partition by partition."""
    return Reading(platform).all(topic)
