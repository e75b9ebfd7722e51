"""Kafka's errors in the platform's words."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from ingestcore.stage import Gap, OperatorNeeded, Retriable

_OUT_OF_LOG = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
_REFUSED = (
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError._SSL,
)


class Rebalanced(Retriable):
    """The group moved on while records were held: they are dropped and read anew."""


class UnknownOutcome(Retriable):
    """Only the broker knows whether this commit happened: rebuild producer and state."""


class KafkaRefused(OperatorNeeded):
    """Credentials or permissions: only an operator can mend it."""


def error_of(exception: KafkaException) -> KafkaError:
    error = exception.args[0]
    assert isinstance(error, KafkaError)
    return error


def is_fenced(exception: KafkaException) -> bool:
    return error_of(exception).code() in _FENCED


def is_refused(error: KafkaError) -> bool:
    return error.code() in _REFUSED


def raise_for(error: KafkaError) -> None:
    """Raise what an error event of a consumer means; harmless ones pass. Raises Gap, KafkaRefused, KafkaException."""
    if error.code() in _OUT_OF_LOG:
        raise Gap(
            f"the committed offset is outside the log: {error.str()}. Records are gone by retention or the topic "
            "was made anew. Look at the ledger for what is missing, then set the group's offsets."
        )
    if is_refused(error):
        raise KafkaRefused(f"Kafka refuses this client: {error.str()}. Check kafka_options (user, certificate, ACLs).")
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
