"""Deliveries on a played producer: whoever asked is told, also when librdkafka gives a producer up half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from ingestcore.datasets.secrets import SecretMissing
from ingestcore.kafka import deliveries
from ingestcore.kafka.deliveries import Deliveries, Failure, NotDelivered, Record
from ingestcore.settings import Platform

Told = Callable[[KafkaError | None, object], None]


class PlayedWriter:
    """Stands in for librdkafka's producer, which no test can bring to give up: records are told of when `tell` says."""

    def __init__(self, wanted: object) -> None:
        self.heard = SimpleNamespace(refusal=None, hint="", down=False)
        self._records: list[Told] = []
        self._due: list[KafkaError | None] = []

    def produce(self, topic: str, value: bytes, *, key: bytes, headers: Any, on_delivery: Told) -> None:
        self._records.append(on_delivery)

    def tell(self, error: KafkaError | None) -> None:
        """What became of the oldest record."""
        self._due.append(error)

    def poll(self, seconds: float) -> int:
        if not self._due:
            return 0
        self._records.pop(0)(self._due.pop(0), None)
        return 1

    def __len__(self) -> int:
        return len(self._records)


FATAL = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "given up", fatal=True)
REFUSED = KafkaError(KafkaError._MSG_TIMED_OUT, "no answer")


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[PlayedWriter]:
    """-> those that were opened."""
    opened: list[PlayedWriter] = []

    def open_(wanted: object) -> PlayedWriter:
        opened.append(PlayedWriter(wanted))
        return opened[-1]

    monkeypatch.setattr(deliveries, "Writer", open_)
    return opened


def run(scene: Callable[[Deliveries], Any]) -> None:
    async def within() -> None:
        made = Deliveries(Platform(), "events", seconds=1, buffer_size=1, interval_seconds=0.01)
        async with asyncio.timeout(10):
            await scene(made)

    asyncio.run(within())


def send(made: Deliveries, *bodies: bytes) -> asyncio.Future[Sequence[Failure]]:
    return made.send([Record(body, b"", {}) for body in bodies])


def test_a_producer_given_up_still_tells_of_what_it_held(writers: list[PlayedWriter]) -> None:
    async def scene(made: Deliveries) -> None:
        first, second = send(made, b"1"), send(made, b"2")
        writers[0].tell(FATAL)
        (failure,) = await first
        assert isinstance(failure, NotDelivered)
        await until(lambda: len(writers) == 2)
        assert not second.done()
        writers[0].tell(FATAL)
        (failure,) = await second
        assert isinstance(failure, NotDelivered)
        third = send(made, b"3")
        writers[1].tell(None)
        assert await third == [None]
        assert len(writers) == 2, "what an old producer tells says nothing of the new one"
        await made.close(1)

    run(scene)


def test_records_that_were_handed_over_together_are_told_of_together(writers: list[PlayedWriter]) -> None:
    async def scene(made: Deliveries) -> None:
        told = send(made, b"1", b"2", b"3")
        writers[0].tell(None)
        writers[0].tell(REFUSED)
        await until(lambda: len(writers[0]) == 1)
        assert not told.done()
        writers[0].tell(None)
        before, failure, after = await told
        assert (before, after) == (None, None) and isinstance(failure, NotDelivered)
        await made.close(1)

    run(scene)


def test_a_producer_that_can_not_be_replaced_yet_is_replaced_later(
    writers: list[PlayedWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, left = deliveries.Writer, [SecretMissing("no password here")] * 3

    def refuses_at_first(wanted: Any) -> Any:
        if writers and left:
            raise left.pop()
        return opened(wanted)

    async def scene(made: Deliveries) -> None:
        first = send(made, b"1")
        writers[0].tell(FATAL)
        await first
        await until(lambda: len(left) < 3 and made.seems_down)
        await until(lambda: len(writers) == 2)
        second = send(made, b"2")
        writers[1].tell(None)
        assert await second == [None]
        await made.close(1)

    monkeypatch.setattr(deliveries, "Writer", refuses_at_first)
    run(scene)


def test_nothing_is_delivered_at_once(writers: list[PlayedWriter]) -> None:
    async def scene(made: Deliveries) -> None:
        assert await send(made) == ()
        await made.close(1)

    run(scene)


async def until(what: Callable[[], bool]) -> None:
    """Within the scene's deadline."""
    await asyncio.sleep(0.01)
    if not what():
        await until(what)
