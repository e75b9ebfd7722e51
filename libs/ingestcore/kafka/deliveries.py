"""Records of requests: each is delivered (acks=all) or fails within a deadline, and whoever asked is told.

While nothing is on its way a record is sent at once. While some are, others gather until those are there, until there
are enough of them, or until the first has waited long enough: so a lone request pays no waiting, and many share a
request to the broker.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException

from ingestcore.kafka import options
from ingestcore.kafka.clients import Writer
from ingestcore.kafka.errors import meaning
from ingestcore.settings import Platform
from ingestcore.stage import Retriable
from ingestcore.topics import topic_name

_POLL_SECONDS: Final = 0.5
_PROBE_SECONDS: Final = 1.0

Headers = dict[str, str | bytes | None]


class NotDelivered(Retriable):
    """Kafka has not confirmed the record in time. It may be there all the same: the same identity must come again."""


class _Record(NamedTuple):
    value: bytes
    key: bytes
    headers: Headers
    told: asyncio.Future[None]


class Deliveries:
    """To one topic. All methods belong to the running loop's thread."""

    def __init__(
        self, platform: Platform, topic: str, *, seconds: float, buffer_size: int, interval_seconds: float
    ) -> None:
        """seconds: until a record must be confirmed. buffer_size, interval_seconds: see above."""
        self._topic = topic_name(platform.topic_prefix, topic)
        self._wanted = {
            **options.producer(platform),
            "delivery.timeout.ms": int(seconds * 1000),
            "request.timeout.ms": int(seconds * 1000),
            # Gathering is ours.
            "linger.ms": 0,
        } | platform.producer_options
        self._buffer_size, self._interval = buffer_size, interval_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Record] = []
        self._timer: asyncio.TimerHandle | None = None
        self._on_its_way = 0
        self._answers: list[tuple[Writer, asyncio.Future[None], KafkaError | None]] = []
        self._woken = False
        self._lock = threading.Lock()
        self.trouble = ""
        """Why records are not delivered; "": they are, as far as is known."""
        self._open()

    def _open(self) -> None:
        self._writer = Writer(self._wanted)
        self._closing = threading.Event()
        threading.Thread(target=self._poll, args=(self._writer, self._closing), name="deliveries", daemon=True).start()

    def send(self, value: bytes, key: bytes, headers: Headers) -> asyncio.Future[None]:
        """-> ends when all in-sync replicas have the record. It raises NotDelivered, KafkaRefused."""
        told = self._loop.create_future()
        self._waiting.append(_Record(value, key, headers, told))
        if len(self._waiting) >= self._buffer_size:
            self._flush()
        elif self._timer is None:
            if self._on_its_way:
                self._timer = self._loop.call_later(self._interval, self._flush)
            else:
                # After everything that is ready in this turn of the loop.
                self._timer = self._loop.call_later(0, self._flush)
        return told

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        records, self._waiting = self._waiting, []
        for value, key, headers, told in records:
            try:
                self._writer.produce(
                    self._topic,
                    value,
                    key=key,
                    headers=headers,
                    on_delivery=partial(self._delivered, self._writer, told),
                )
                self._on_its_way += 1
            except (KafkaException, BufferError) as error:
                told.set_exception(NotDelivered(f"the buffer to Kafka is full: {error}"))
                told.exception()

    def _delivered(self, writer: Writer, told: asyncio.Future[None], error: KafkaError | None, message: object) -> None:
        """On the polling thread: one wake-up of the loop for all that were confirmed together."""
        with self._lock:
            self._answers.append((writer, told, error))
            if self._woken:
                return
            self._woken = True
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        with self._lock:
            answers, self._answers, self._woken = self._answers, [], False
        self._on_its_way -= len(answers)
        fatal = False
        for writer, told, error in answers:
            if error is None:
                self.trouble = ""
                if not told.done():
                    told.set_result(None)
                continue
            fatal |= error.fatal() and writer is self._writer
            failure = self._failure(error)
            self.trouble = str(failure)
            if not told.done():
                told.set_exception(failure)
                told.exception()  # who asked may have gone
        if fatal:
            self._renew()
        if self._waiting and not self._on_its_way:
            self._flush()

    def _failure(self, error: KafkaError) -> Exception:
        found = self._writer.heard.refusal
        if found is not None:
            return found
        words = self._writer.heard.hint or error.str()
        failure = meaning(error, "the event could not be written")
        return NotDelivered(f"Kafka did not confirm the event: {words}") if isinstance(failure, Retriable) else failure

    def _renew(self) -> None:
        """A producer with a fatal error takes no more records, and tells of each that it holds."""
        self._closing.set()
        self._open()

    async def probe(self) -> None:
        """Ask whether Kafka answers, while there is trouble."""
        try:
            await asyncio.to_thread(self._writer.list_topics, self._topic, _PROBE_SECONDS)
        except KafkaException as error:
            self.trouble = self.trouble or str(self._failure(error.args[0]))
        else:
            self._writer.heard.clear()
            self.trouble = ""

    @property
    def seems_down(self) -> bool:
        return bool(self.trouble) or self._writer.heard.down

    @property
    def on_its_way(self) -> int:
        return self._on_its_way + len(self._waiting)

    async def close(self, seconds: float) -> None:
        """Wait for what is on its way, at most so long."""
        self._flush()
        await asyncio.to_thread(self._writer.flush, seconds)
        self._closing.set()
        self._tell()

    @staticmethod
    def _poll(writer: Writer, closing: threading.Event) -> None:
        """Until it is given up and has told of all it was given."""
        serve: Callable[[float], int] = writer.poll
        while not closing.is_set() or len(writer):
            serve(_POLL_SECONDS)
