"""Records of requests: each is delivered (acks=all) or fails within a deadline, and whoever asked is told.

While nothing is on its way a record is sent at once. While some are, others gather until those are there, until there
are enough of them, or until the first has waited long enough: so a lone request pays no waiting, and many share a
request to the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException

from ingestcore.kafka import options
from ingestcore.kafka.clients import Writer
from ingestcore.kafka.errors import meaning
from ingestcore.settings import Platform
from ingestcore.stage import OperatorNeeded, Retriable
from ingestcore.topics import topic_name

_PROBE_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 0.001
"""How often the client is asked for answers while some are awaited. On the loop's own thread: with another one the two
would wait for each other's turn at the interpreter more than they work."""
_IDLE_SECONDS: Final = 0.1
"""The same while none are: for what brokers say by themselves."""
_LINGER_MS: Final = 1
"""librdkafka's own wait: what is flushed together leaves together. Gathering is ours."""

Failure = Exception | None
"""NotDelivered or KafkaRefused; None: delivered."""


class NotDelivered(Retriable):
    """Kafka has not confirmed the record in time. It may be there all the same: the same identity must come again."""


class Record(NamedTuple):
    value: bytes
    key: bytes
    headers: dict[str, str | bytes | None]


class _Parcel:
    """Records that were handed over together, and what became of each so far."""

    __slots__ = ("failures", "left", "told")

    def __init__(self, count: int, told: asyncio.Future[Sequence[Failure]]) -> None:
        self.failures: list[Failure] = [None] * count
        self.left = count
        self.told = told

    def ended(self, place: int, failure: Failure) -> None:
        self.failures[place] = failure
        self.left -= 1
        if not self.left and not self.told.done():
            self.told.set_result(self.failures)


class Deliveries:
    """To one topic. Everything happens on the running loop's thread."""

    def __init__(
        self, platform: Platform, topic: str, *, seconds: float, buffer_size: int, interval_seconds: float
    ) -> None:
        """seconds: until a record must be confirmed. buffer_size, interval_seconds: see above."""
        self._topic = topic_name(platform.topic_prefix, topic)
        self._wanted = {
            **options.producer(platform),
            "delivery.timeout.ms": int(seconds * 1000),
            "request.timeout.ms": int(seconds * 1000),
            "linger.ms": _LINGER_MS,
        } | platform.producer_options
        self._buffer_size, self._interval = buffer_size, interval_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Record, _Parcel, int]] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._on_its_way = 0
        self._quiet = asyncio.Event()
        """As of the last look nothing is on its way."""
        self._fatal = False
        self.trouble = ""
        """Why records are not delivered; "": they are, as far as is known."""
        self._writer = Writer(self._wanted)
        self._given_up: list[Writer] = []
        """Producers that take no more records and have not told of all they hold."""
        self._listening = self._loop.call_later(_IDLE_SECONDS, self._listen)

    def send(self, records: Sequence[Record]) -> asyncio.Future[Sequence[Failure]]:
        """-> ends when all in-sync replicas have the records, or refuse them: what became of each, in order."""
        told: asyncio.Future[Sequence[Failure]] = self._loop.create_future()
        if not records:
            told.set_result(())
            return told
        parcel = _Parcel(len(records), told)
        self._waiting += [(record, parcel, place) for place, record in enumerate(records)]
        if len(self._waiting) >= self._buffer_size:
            self._flush()
        elif self._flushing is None:
            # While idle: after everything that is ready in this turn of the loop.
            self._flushing = self._loop.call_later(self._interval if self._on_its_way else 0, self._flush)
        return told

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        waiting, self._waiting = self._waiting, []
        if waiting and not self._on_its_way:
            self._quiet.clear()
            self._listen_again(_BUSY_SECONDS)
        for record, parcel, place in waiting:
            try:
                self._writer.produce(
                    self._topic,
                    record.value,
                    key=record.key,
                    headers=record.headers,
                    on_delivery=partial(self._delivered, self._writer, parcel, place),
                )
                self._on_its_way += 1
            except (KafkaException, BufferError) as error:
                parcel.ended(place, NotDelivered(f"the buffer to Kafka is full: {error}"))

    def _listen(self) -> None:
        try:
            self._take_answers()
        finally:
            # Whatever fails: without this nobody would have an answer any more.
            self._listen_again(_BUSY_SECONDS if self._on_its_way else _IDLE_SECONDS)

    def _listen_again(self, seconds: float) -> None:
        self._listening.cancel()
        self._listening = self._loop.call_later(seconds, self._listen)

    def _take_answers(self) -> None:
        for writer in (self._writer, *self._given_up):
            writer.poll(0)
        self._given_up = [writer for writer in self._given_up if len(writer)]
        if self._fatal:
            self._renew()
        if self._waiting and not self._on_its_way:
            self._flush()
        if not self._on_its_way:
            self._quiet.set()

    def _renew(self) -> None:
        """A producer with a fatal error takes no more records."""
        try:
            fresh = Writer(self._wanted)
        except OperatorNeeded as error:
            self.trouble = str(error)  # tried again at the next look; meanwhile the old one refuses what it is given
            return
        self._given_up.append(self._writer)
        self._writer, self._fatal = fresh, False

    def _delivered(
        self, writer: Writer, parcel: _Parcel, place: int, error: KafkaError | None, message: object
    ) -> None:
        """Called by `poll`."""
        self._on_its_way -= 1
        if error is None:
            self.trouble = ""
            parcel.ended(place, None)
            return
        self._fatal |= error.fatal() and writer is self._writer
        failure = self._failure(error)
        self.trouble = str(failure)
        parcel.ended(place, failure)

    def _failure(self, error: KafkaError) -> Exception:
        found = self._writer.heard.refusal
        if found is not None:
            return found
        words = self._writer.heard.hint or error.str()
        failure = meaning(error, "the event could not be written")
        return NotDelivered(f"Kafka did not confirm the event: {words}") if isinstance(failure, Retriable) else failure

    async def probe(self) -> None:
        """Ask whether Kafka answers, while there is trouble."""
        writer = self._writer
        try:
            await asyncio.to_thread(writer.list_topics, self._topic, _PROBE_SECONDS)
        except KafkaException as error:
            refusal = writer.heard.refusal  # by now it may say more than when it was heard first
            self.trouble = str(refusal) if refusal else self.trouble or str(self._failure(error.args[0]))
        else:
            writer.heard.clear()
            self.trouble = ""

    @property
    def seems_down(self) -> bool:
        return bool(self.trouble) or self._writer.heard.down

    async def close(self, seconds: float) -> None:
        """Wait for what is on its way, at most so long."""
        self._flush()
        if self._on_its_way:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._quiet.wait()
        self._listening.cancel()
