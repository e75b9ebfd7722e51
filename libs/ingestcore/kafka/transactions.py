"""A transactional producer: begun lazily, committed with the group's offsets, rebuilt when only the broker knows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from ingestcore.kafka import options
from ingestcore.kafka.admin import unwritable
from ingestcore.kafka.bounded import Stuck, within
from ingestcore.kafka.clients import Writer
from ingestcore.kafka.errors import UnknownOutcome, error_of, is_fenced, is_refused, meaning, refused
from ingestcore.settings import Platform
from ingestcore.stage import Fenced, OperatorNeeded, Retriable

log = structlog.get_logger(__name__)
T = TypeVar("T")

_CALL_SECONDS = 10
_GRACE_SECONDS = 3
"""Beyond its own time-out, before a call is given up as stuck."""
_FULL_QUEUE_WAIT_SECONDS = 0.02
_RIVAL_SECONDS = 60.0
_RIVAL_FENCINGS = 3
"""So many within so many seconds, and another process has the id. Fewer may be our own: a broker that was away answers
a request of ours late, whose client is gone, and its answer fences the client that asked again."""


class Transactions:
    """One transactional id. Not thread-safe: one thread begins, produces and commits."""

    def __init__(self, platform: Platform, transactional_id: str) -> None:
        self._options = options.producer(platform, transactional_id)
        self._platform, self._id = platform, transactional_id
        self._timeout_seconds = platform.transaction_timeout_ms / 1000
        self._patience_seconds = self._timeout_seconds + 15
        self._begun: float | None = None
        self._refused: Exception | None = None
        self._fenced_at: list[float] = []
        self._written: set[str] = set()
        """Full names of the topics this process writes to."""
        self._pending: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self.produced: dict[tuple[str, int], Sequence[tuple[int, int]]] = {}
        """By full topic name and partition: offset and broker time (ms) of each noted message of the last committed
        transaction that had any there, in order."""
        self.broken = True
        """There is no producer, or the outcome of its last commit is unknown, or it is fenced: `abort` makes one."""
        self._producer: Writer | None = None

    @property
    def open(self) -> bool:
        return self._begun is not None

    def connect(self) -> None:
        """A fresh producer under the same id: finishes or aborts whatever the one before left behind, and fences it.
        Raises Retriable: broker away; KafkaRefused."""
        self._begun = None
        self._pending.clear()
        producer = Writer(self._options)
        try:
            patience = self._patience_seconds
            within(patience + _GRACE_SECONDS, lambda: producer.init_transactions(patience), "init_transactions")
        except Stuck as error:
            raise Retriable(f"no transactional producer {self._id}: {error}") from error
        except KafkaException as error:
            raise producer.failed(error, f"no transactional producer {self._id}") from error
        self._producer, self.broken = producer, False

    def _ready(self) -> Writer:
        if self.broken:
            self.connect()
        assert self._producer is not None
        if self._begun is None:
            self._producer.begin_transaction()
            self._begun = time.monotonic()
        return self._producer

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None,
        partition: int | None,
        headers: Mapping[str, str],
        noted: bool = False,
    ) -> None:
        """Produce inside the transaction, which is begun when none is open. `noted`: `produced` shall tell of it.
        Raises KafkaException, KafkaRefused, Retriable."""
        producer = self._ready()
        self._written.add(topic)
        more: dict[str, Any] = {} if partition is None else {"partition": partition}
        if noted:
            # Whoever is told of a delivery gets a copy of the message, which costs more than sending it.
            more["on_delivery"] = self._delivered
        while True:
            try:
                producer.produce(topic, value, key=key, headers=list(headers.items()), **more)
                return
            except BufferError:
                producer.poll(_FULL_QUEUE_WAIT_SECONDS)
            except KafkaException as error:
                raise self._first_failure(producer) or error from error

    def _first_failure(self, producer: Writer) -> Exception | None:
        """A transaction that has failed takes no message and does not say why. Beginning another one is no more
        possible, but says what went wrong first."""
        try:
            producer.begin_transaction()
        except KafkaException as first:
            cause = error_of(first)
            if is_refused(cause):
                self._refused = self._what_is_refused(cause)
        return self._refused

    def _what_is_refused(self, cause: KafkaError) -> Exception:
        """The broker does not say which topic."""
        if cause.code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return meaning(cause, f"a transaction of {self._id}")
        try:
            topics = unwritable(self._platform, self._written) or sorted(self._written)
        except (Retriable, OperatorNeeded):
            topics = sorted(self._written)
        return refused(cause.code(), f"no right to write to {', '.join(topics)}: Topic authorization failed")

    def _delivered(self, error: object, message: Message) -> None:
        if error is None:
            place = (message.topic() or "", message.partition() or 0)
            self._pending.setdefault(place, []).append((message.offset() or 0, message.timestamp()[1]))

    def poll(self) -> None:
        """Serve delivery reports."""
        if self._producer is not None:
            self._producer.poll(0)

    def commit(self, offsets: Mapping[tuple[str, int], tuple[int, str]], membership: Any) -> None:
        """Commit what was produced with the offsets, (full topic name, partition) -> (offset, metadata).

        Raises KafkaException, KafkaRefused: abort; UnknownOutcome: rebuild; Fenced: another process took this id.
        """
        producer = self._ready()
        producer.flush(self._timeout_seconds)
        if offsets:
            at = [TopicPartition(t, p, o, metadata=m) for (t, p), (o, m) in offsets.items()]
            self._until_done(
                lambda: producer.send_offsets_to_transaction(at, membership, _CALL_SECONDS), "send_offsets"
            )
        self._until_done(lambda: producer.commit_transaction(_CALL_SECONDS), "commit_transaction")
        self._begun = None
        self.produced |= {place: sorted(written) for place, written in self._pending.items()}
        producer.heard.clear()
        self._pending.clear()

    def _until_done(self, call: Callable[[], T], what: str) -> T:
        """Retriable: the same call again. Abortable: raised as it is. Anything else: the outcome is unknown."""
        deadline = time.monotonic() + self._patience_seconds
        while True:
            try:
                return within(_CALL_SECONDS + _GRACE_SECONDS, call, what)
            except Stuck as error:
                self._abandon()
                raise UnknownOutcome(f"the outcome of a commit is unknown: {error}") from error
            except KafkaException as error:
                cause = error_of(error)
                self._raise_if_fenced(error)
                if is_refused(cause):
                    self.broken = self.broken or cause.fatal()
                    self._refused = self._what_is_refused(cause)
                    raise self._refused from error
                if cause.txn_requires_abort():
                    raise
                if not cause.retriable() or cause.fatal() or time.monotonic() > deadline:
                    self.broken = True
                    raise UnknownOutcome(f"the outcome of a commit is unknown: {cause.str()}") from error

    def _abandon(self) -> None:
        """A call of this producer never returned: whatever it still does, its successor fences it."""
        self._producer, self.broken = None, True

    def _raise_if_fenced(self, error: KafkaException) -> None:
        """Fenced in young transactions again and again: another process takes the id whenever we do. In one that
        outlived its timeout it is merely the broker's own abort. Otherwise a new producer goes on."""
        if is_fenced(error) and self._begun is not None:
            now = time.monotonic()
            if now - self._begun < 0.7 * self._timeout_seconds:
                self._fenced_at = [at for at in self._fenced_at if now - at < _RIVAL_SECONDS] + [now]
                if len(self._fenced_at) >= _RIVAL_FENCINGS:
                    raise Fenced(
                        f"another process runs as {self._id}: two replicas need two replica ids (INGEST_REPLICA)"
                    ) from error
            self.broken = True

    def abort(self) -> None:
        """Give up what is open. Raises Retriable: broker away (call again); KafkaRefused; Fenced."""
        self._pending.clear()
        # A transaction whose first message was refused does not exist at the broker, which takes ending it for a crime.
        self.broken = self.broken or self._refused is not None
        self._refused = None
        if self.open and not self.broken and self._producer is not None:
            try:
                producer = self._producer
                within(
                    _CALL_SECONDS + _GRACE_SECONDS,
                    lambda: producer.abort_transaction(_CALL_SECONDS),
                    "abort_transaction",
                )
                self._begun = None
            except Stuck as error:
                log.warning("abort failed, making a new producer", error=str(error))
                self._abandon()
            except KafkaException as error:
                # A fatal fencing can hide behind a harmless-looking time-out or state error.
                log.warning("abort failed, making a new producer", error=error_of(error).str())
                self._raise_if_fenced(error)
                self.broken = True
        if self.broken:
            if self._producer is not None:
                self._producer.purge()
            self.connect()
