"""Deliveries on a played producer: whoever asked is told, also when librdkafka gives a producer up half-way."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from ingestcore.kafka import deliveries
from ingestcore.kafka.deliveries import Deliveries, NotDelivered
from ingestcore.settings import Platform

Told = Callable[[KafkaError | None, object], None]


POLL_SECONDS = 0.02


class PlayedWriter:
    """Stands in for librdkafka's producer, which no test can bring to give up: records are told of when `tell` says."""

    def __init__(self, wanted: object) -> None:
        self.heard = SimpleNamespace(refusal=None, hint="", down=False)
        self._records: list[Told] = []
        self._due: queue.Queue[KafkaError | None] = queue.Queue()

    def produce(self, topic: str, value: bytes, *, key: bytes, headers: Any, on_delivery: Told) -> None:
        self._records.append(on_delivery)

    def tell(self, error: KafkaError | None) -> None:
        """What became of the oldest record."""
        self._due.put(error)

    def poll(self, seconds: float) -> int:
        try:
            error = self._due.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return 0
        self._records[0](error, None)
        del self._records[0]
        return 1

    def __len__(self) -> int:
        return len(self._records)


FATAL = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "given up", fatal=True)


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


def test_a_producer_given_up_still_tells_of_what_it_held(writers: list[PlayedWriter]) -> None:
    async def scene(made: Deliveries) -> None:
        first, second = made.send(b"1", b"", {}), made.send(b"2", b"", {})
        writers[0].tell(FATAL)
        with pytest.raises(NotDelivered):
            await first
        assert len(writers) == 2
        await asyncio.sleep(5 * POLL_SECONDS)
        writers[0].tell(FATAL)
        with pytest.raises(NotDelivered):
            await second
        assert made.on_its_way == 0
        assert len(writers) == 2, "what an old producer tells says nothing of the new one"
        third = made.send(b"3", b"", {})
        writers[1].tell(None)
        await third
        await close(made, writers)

    run(scene)
    assert not [thread for thread in threading.enumerate() if thread.name == "deliveries"]


async def close(made: Deliveries, writers: list[PlayedWriter]) -> None:
    for writer in writers:
        writer.flush = lambda seconds: 0  # type: ignore[attr-defined]
    await made.close(1)
    for thread in threading.enumerate():
        if thread.name == "deliveries":
            await asyncio.to_thread(thread.join, 5)
