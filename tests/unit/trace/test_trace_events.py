"""Tracing rows of events without servers: which event a row was made of, and how its way is told step by step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from ingestcore.cli.webhook.follow import arrived, steps
from ingestcore.messages.events import Event, day_of
from ingestcore.stage import At, Input
from ingestcore.trace.events import named, record_of
from ingestcore.trace.reads import Reads
from ingestcore.trace.story import Accepted, Fate, First, InTable, Story, Where

RECEIVED = "2026-01-02T03:04:05.678Z"


def record(partition: int, offset: int, id: str, body: bytes, source: str = "shop") -> Input:
    day = day_of(tenant="default", source=source, dataset="orders@1", received=RECEIVED, provenance={})
    event = Event(id=id, source="/shop", type="order", body=body, object=day, received=RECEIVED)
    return Input(At("events", partition, offset), body, event.headers(), event.key(), 1_700_000_000_000)


class Topic:
    """Plays the topic `events` for `Reads`."""

    def __init__(self, *records: Input) -> None:
        self._records = records
        self.bounds = {("events", partition): None for partition in range(3)} | {("typed", 0): None}

    def picked(self, topic: str, spots: Sequence[tuple[int, int]]) -> Iterator[Input]:
        return (r for r in self._records if topic == "events" and (r.at.partition, r.at.offset) in spots)

    def all_of(self, topic: str) -> Iterator[Input]:
        return iter(self._records)

    def as_reads(self) -> Reads:
        return cast(Reads, self)


def test_of_events_at_one_offset_of_several_partitions_the_one_with_the_rows_content_is_meant() -> None:
    one, two, other = b'{"n": 1}', b'{"n": 2}', b'{"n": 3}'
    topic = Topic(
        record(0, 7, "a", one), record(1, 7, "b", two), record(2, 7, "c", other, "till"), record(0, 8, "d", two)
    )
    day = Event.of(two, record(1, 7, "b", two).headers).object.id

    def found(body: bytes) -> Any:
        return record_of(topic.as_reads(), day, 7, hashlib.sha256(body).hexdigest())

    assert [found(body).at for body in (one, two)] == [At("events", 0, 7), At("events", 1, 7)]
    assert found(other) is None, "of another source's day"
    assert record_of(topic.as_reads(), day, 9, "") is None


def test_an_id_is_of_its_source() -> None:
    topic = Topic(record(0, 1, "a", b"{}"), record(1, 1, "a", b"{}", "till"), record(1, 2, "b", b"{}"))
    reads = topic.as_reads()
    assert [r.at.partition for r in named(reads, "a")] == [0, 1]
    assert [r.at.partition for r in named(reads, "a", "till")] == [1]
    assert list(named(reads, "z")) == []


def story(**more: Any) -> Story:
    event = Accepted("a", "order", RECEIVED, "192.0.2.1", 0, 7)
    return Story("webhook://shop/2026-01-02", 7, event=event, moments={"accepted": 1000}, **more)


LETTER = {"reason": "VALIDATION_FAIL", "stage": "event-parser", "message": "no", "id": "1"}


@pytest.mark.parametrize(
    ("told", "names", "ends_well"),
    [
        (story(fate=Fate.IN_PROGRESS), ["accepted"], False),
        (story(fate=Fate.DEAD_LETTER, letters=[LETTER]), ["accepted", "dead letter"], False),
        (
            story(
                fate=Fate.PUBLISHED,
                typed=[Where("typed", 1, 2)],
                normalized=[Where("normalized", 1, 3)],
                tables=[InTable("warehouse", "public.orders", {"id": 7})],
            ),
            ["accepted", "parsed", "published", "in Postgres"],
            True,
        ),
        (
            story(typed=[Where("typed", 1, 2)], tables=[InTable("warehouse", "public.orders", {"id": 7})]),
            ["accepted", "parsed"],
            False,
        ),
        (
            story(fate=Fate.DUPLICATE, typed=[Where("typed", 1, 2)], first=First("u", 3, Where("normalized", 1, 1))),
            ["accepted", "parsed", "repeat"],
            True,
        ),
        (
            story(fate=Fate.PUBLISHED, normalized=[Where("normalized", 1, 3)], letters=[LETTER]),
            ["accepted", "published", "dead letter"],
            False,
        ),
    ],
    ids=["accepted", "dead letter", "row", "row before its topic was read again", "repeat", "refused by the database"],
)
def test_the_steps_of_an_event(told: Story, names: list[str], ends_well: bool) -> None:
    assert [name for name, _, _ in steps(told)] == names
    assert arrived(told) is ends_well
    assert "event" in dict(told.lines()) and told.as_dict()["event"]["id"] == "a"
