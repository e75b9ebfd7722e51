"""`ingest.config`: specs published by `ingest apply`, followed live by every service."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from ingestcore.datasets.registry import Registry
from ingestcore.datasets.windows import changelog_retention_ms
from ingestcore.kafka import admin, options
from ingestcore.kafka.clients import Reader, Writer
from ingestcore.kafka.errors import raise_for
from ingestcore.kafka.reading import as_input, read_all
from ingestcore.settings import Platform
from ingestcore.stage import NewerFormat, OperatorNeeded, Retriable
from ingestcore.topics import FORMAT, topic_name

log = structlog.get_logger(__name__)

CHANGELOG: Final = "dedupe-changelog"
_LOOK_SECONDS = 1.0
_END_SECONDS = 10.0


class Record(Protocol):
    """One record to publish; `value` None removes (tombstone)."""

    @property
    def key(self) -> str: ...
    @property
    def value(self) -> bytes | None: ...


def read(platform: Platform, environ: Mapping[str, str] | None = None) -> Registry:
    """-> the specs in force now. environ: see `Registry`.

    Raises Retriable: broker away or topic missing; ValueError: a spec is unreadable.
    """
    registry = Registry(environ)
    for record in read_all(platform, "config"):
        registry.feed(record.key.decode(), record.value or None)
    return registry


def publish(platform: Platform, records: Iterable[Record]) -> None:
    """Write records in order; returns when the broker has all of them. Raises Retriable, KafkaRefused."""
    producer = Writer(options.producer(platform))
    failed: list[KafkaError] = []
    for record in records:
        producer.produce(
            topic_name(platform.topic_prefix, "config"),
            record.value,
            key=record.key.encode(),
            partition=0,
            headers=[("format", str(FORMAT))],
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    left = producer.flush(30)
    if failed or left:
        error = failed[0] if failed else KafkaError(KafkaError._TIMED_OUT)
        raise producer.failed(KafkaException(error), "the configuration could not be published")


def bring_into_force(platform: Platform, in_force: Registry, changes: Sequence[Record]) -> None:
    """Publish changes of the specs in force and keep the dedupe changelog as long as the longest window then needs: it
    is extended before the first key counts on that, and cut after. May be called again.

    Raises Retriable, KafkaRefused.
    """
    for change in changes:
        in_force.feed(change.key, change.value)
    states = admin.describe(platform)
    now = int(states[CHANGELOG].config["retention.ms"])
    wanted = changelog_retention_ms(in_force, int(states["typed"].config["retention.ms"]))
    if _as_age(wanted) > _as_age(now):
        admin.set_retention(platform, CHANGELOG, wanted)
    publish(platform, changes)
    if _as_age(wanted) < _as_age(now):
        admin.set_retention(platform, CHANGELOG, wanted)


def _as_age(retention_ms: int) -> float:
    return math.inf if retention_ms < 0 else retention_ms


class Follower:
    """Keeps a registry up to date from a thread of its own. environ: see `Registry`."""

    def __init__(self, platform: Platform, environ: Mapping[str, str] | None = None) -> None:
        self.registry = Registry(environ)
        self._platform = platform
        self._stop = threading.Event()
        self._caught_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="config", daemon=True)
        self.problem: Exception | None = None
        """What keeps it from following."""

    def start(self, timeout_seconds: float = 60.0) -> Registry:
        """-> the registry, filled up to the end of the topic. May be called again.

        Raises Retriable: not caught up in time; KafkaRefused.
        """
        if self._thread.ident is None:
            self._thread.start()
        deadline = time.monotonic() + timeout_seconds
        while not self._caught_up.wait(_LOOK_SECONDS):
            if isinstance(self.problem, OperatorNeeded):
                raise self.problem
            if time.monotonic() > deadline:
                said = self.problem or "no answer from Kafka"
                raise Retriable(f"the configuration topic could not be read: {said}")
        return self.registry

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (KafkaException, OperatorNeeded, Retriable) as error:
                if str(error) != str(self.problem):
                    log.warning("configuration topic can't be followed, trying on", error=str(error))
                self.problem = error
                self._stop.wait(_LOOK_SECONDS)

    def _follow(self) -> None:
        name = topic_name(self._platform.topic_prefix, "config")
        reader = Reader(options.consumer(self._platform, self._platform.group("config")))
        try:
            high = _end(reader, name)
            reader.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
            while not self._stop.is_set():
                for message in reader.consume(200, 0.5):
                    if message.error() is not None:
                        raise_for(message)
                        continue
                    self._take(message)
                if reader.position([TopicPartition(name, 0)])[0].offset >= high or not high:
                    self.problem = None
                    self._caught_up.set()
        finally:
            reader.close()

    def _take(self, message: Message) -> None:
        try:
            self.registry.feed(as_input(message, "config").key.decode(), message.value())
        except (ValueError, NewerFormat) as error:
            # One spec that this version can't read must not stop the datasets that it can.
            log.error("spec ignored", spec=(message.key() or b"").decode("utf-8", "replace"), error=str(error))


def _end(reader: Reader, name: str) -> int:
    """-> the topic's end. Raises Retriable, KafkaRefused."""
    try:
        return int(reader.get_watermark_offsets(TopicPartition(name, 0), timeout=_END_SECONDS)[1])
    except KafkaException as error:
        raise reader.failed(error, f"the end of {name} can't be read") from error
