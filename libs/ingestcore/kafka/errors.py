"""Kafka's errors in the platform's words."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException, Message

from ingestcore.stage import Gap, OperatorNeeded, Retriable

_OUT_OF_LOG = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
_ADVICE = {
    KafkaError._AUTHENTICATION: "sasl.username, sasl.password and sasl.mechanism",
    KafkaError.SASL_AUTHENTICATION_FAILED: "sasl.username, sasl.password and sasl.mechanism",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "sasl.mechanism",
    KafkaError._SSL: "ssl.ca.location, and the broker's certificate",
}
"""Which options to look at. Refusals of a permission have another remedy."""
_NOT_PERMITTED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)


class Rebalanced(Retriable):
    """The group moved on while records were held: they are dropped and read anew."""


class UnknownOutcome(Retriable):
    """Only the broker knows whether this commit happened: rebuild producer and state."""


class KafkaRefused(OperatorNeeded):
    """Credentials, certificates or permissions: only an operator can mend it. `said`: the reason alone."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said or message


def error_of(exception: KafkaException) -> KafkaError:
    error = exception.args[0]
    assert isinstance(error, KafkaError)
    return error


def is_fenced(exception: KafkaException) -> bool:
    return error_of(exception).code() in _FENCED


def is_refused(error: KafkaError) -> bool:
    return error.code() in _ADVICE or error.code() in _NOT_PERMITTED


def refused(code: int, words: str) -> KafkaRefused:
    """-> what a refusal means and what to do about it."""
    words = words.rstrip(". ")
    if code in _NOT_PERMITTED:
        remedy = "Grant this user what docs/security.md lists (kafka-acls.sh)"
    else:
        remedy = f"Check in INGEST_KAFKA_OPTIONS: {_ADVICE.get(code, 'user, certificate')}"
    return KafkaRefused(f"Kafka refuses this client: {words}. {remedy}", words)


def meaning(error: KafkaError, what: str) -> Exception:
    """-> KafkaRefused or Retriable for an error that is neither a gap nor a fence."""
    words = f"{what}: {error.str()}"
    return refused(error.code(), words) if is_refused(error) else Retriable(words)


def raise_for(problem: Message) -> None:
    """Raise what the error that a consumer was handed in place of a record means; harmless ones pass. Raises Gap,
    KafkaRefused, KafkaException."""
    error = problem.error()
    assert error is not None
    if error.code() in _OUT_OF_LOG:
        raise Gap(
            f"the committed offset is outside the log: {error.str()}. Records are gone by retention or the topic "
            "was made anew. Look at the ledger for what is missing, then set the group's offsets."
        )
    if is_refused(error):
        raise refused(error.code(), f"{problem.topic()}: {error.str()}" if problem.topic() else error.str())
    if error.fatal() or (not error.retriable() and error.code() not in _HARMLESS):
        raise KafkaException(error)


_HARMLESS = (
    KafkaError._PARTITION_EOF,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
)
"""librdkafka goes on by itself after these."""
