"""A group member whose broker does not answer at the wrong moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from ingestcore.kafka import admin, options
from ingestcore.kafka.clients import Reader
from ingestcore.kafka.errors import Rebalanced
from ingestcore.kafka.group import GroupMember
from ingestcore.settings import Platform
from ingestcore.stage import Retriable

pytestmark = pytest.mark.integration


def test_partitions_whose_offsets_could_not_be_read_when_they_came_are_read_from_what_is_committed(
    platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = platform()
    admin.create_topics(here)
    topic, group = here.topic_prefix + "objects", here.group("copy")
    producer = Producer(options.producer(here))
    for number in range(8):
        producer.produce(topic, b"%d" % number, partition=0)
    producer.flush()
    committing = Consumer({**options.group_member(here, group), "enable.auto.commit": False})
    committing.commit(offsets=[TopicPartition(topic, 0, 5)], asynchronous=False)
    committing.close()

    committed, asked = Reader.committed, []

    def silent_once(self: Reader, parts: Sequence[TopicPartition], *rest: Any) -> Any:
        asked.append(len(parts))
        if len(asked) == 1:
            raise Retriable("no answer")
        return committed(self, parts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Reader, "committed", silent_once)
    located: dict[int, int] = {}
    member = GroupMember(here, topic, group, lambda p, offset, _: located.update({p: offset}), lambda _: None)
    try:
        values, deadline = [], time.monotonic() + 60
        while len(values) < 3:
            assert time.monotonic() < deadline, values
            try:
                if member.moved:
                    member.relocate()
                values += [message.value() for message in member.fetch(10, 0.2, holding=bool(values))]
            except (Rebalanced, Retriable, KafkaException):
                values, member.moved = [], True
                with suppress(Retriable, KafkaException):
                    member.idle(0.2, lambda: False)
        assert asked[0] and len(asked) > 1, "the first look-up was not the one that failed"
        assert values == [b"5", b"6", b"7"]
        assert located[0] == 5
        assert set(member.owned()) == member.fresh == set(range(here.partitions))
    finally:
        member.close(10)
