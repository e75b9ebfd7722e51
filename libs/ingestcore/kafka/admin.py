"""Topics and groups as the broker has them: create from the registry, check, describe, lag."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from ingestcore.kafka.clients import Admin
from ingestcore.settings import Platform
from ingestcore.stage import OperatorNeeded, Retriable
from ingestcore.topics import TOPICS, TopicSpec, replication, topic_name

_TIMEOUT_SECONDS = 20.0


class TopicMismatch(OperatorNeeded):
    """The broker's topic differs from the registry in a way that breaks keys or refuses messages."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker has it; `spec` as the registry wants it.

    end_offsets  by partition, read-uncommitted
    wanted_replication  copies the registry (or the setting) wants on as many brokers as there are
    """

    spec: TopicSpec
    name: str
    exists: bool
    topic_id: str
    partitions: int
    replication: int
    end_offsets: tuple[int, ...]
    config: Mapping[str, str]
    wanted_replication: int = 1


def open_admin(platform: Platform) -> Admin:
    return Admin(platform)


def url_safe(topic_id: object) -> str:
    """librdkafka prints topic ids in plain base64: `/` and `+` would make folders of them."""
    return str(topic_id).replace("/", "_").replace("+", "-")


def wanted_partitions(platform: Platform, spec: TopicSpec) -> int:
    return spec.partitions or platform.partitions


def wanted_replication(platform: Platform, brokers: int) -> int:
    return platform.replication_factor or replication(brokers)


def create_topics(platform: Platform) -> list[str]:
    """Create what is missing. -> names created. Raises Retriable (broker away), KafkaRefused."""
    admin = open_admin(platform)
    existing = admin.metadata()
    copies = wanted_replication(platform, len(existing.brokers))
    new = [
        NewTopic(
            topic_name(platform.topic_prefix, spec.name),
            num_partitions=wanted_partitions(platform, spec),
            replication_factor=copies,
            config=spec.broker_config(copies),
        )
        for spec in TOPICS.values()
        if topic_name(platform.topic_prefix, spec.name) not in existing.topics
    ]
    made = []
    for name, future in admin.create_topics(new).items() if new else ():
        try:
            future.result(_TIMEOUT_SECONDS)
            made.append(name)
        except (KafkaException, TimeoutError) as error:
            if not (isinstance(error, KafkaException) and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS):
                raise admin.failed(error, f"topic {name} can't be created") from error
    if made:
        _await_leaders(platform)
    return made


def _await_leaders(platform: Platform) -> None:
    """A new topic answers with "not leader" for a moment."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        try:
            describe(platform)
            return
        except Retriable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def describe(platform: Platform) -> dict[str, TopicState]:
    """-> state of every topic of the registry, by logical name. Raises Retriable, KafkaRefused."""
    admin = open_admin(platform)
    try:
        return _describe(platform, admin)
    except (KafkaException, TimeoutError) as error:
        raise admin.failed(error, "topics can't be described") from error


def _describe(platform: Platform, admin: Admin) -> dict[str, TopicState]:
    metadata = admin.metadata()
    found: dict[str, TopicState] = {}
    names = {spec.name: topic_name(platform.topic_prefix, spec.name) for spec in TOPICS.values()}
    present = [name for name in names.values() if name in metadata.topics]
    described = admin.describe_topics(TopicCollection(present)) if present else {}
    configs = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in present]) if present else {}
    settings = {resource.name: future.result(_TIMEOUT_SECONDS) for resource, future in configs.items()}
    copies = wanted_replication(platform, len(metadata.brokers))
    for logical, name in names.items():
        if name not in metadata.topics:
            found[logical] = TopicState(TOPICS[logical], name, False, "", 0, 0, (), {}, copies)
            continue
        topic = described[name].result(_TIMEOUT_SECONDS)
        count = len(topic.partitions)
        found[logical] = TopicState(
            TOPICS[logical],
            name,
            True,
            url_safe(topic.topic_id),
            count,
            len(topic.partitions[0].replicas) if count else 0,
            end_offsets(admin, name, count),
            {key: entry.value for key, entry in settings[name].items()},
            copies,
        )
    return found


def check_topics(platform: Platform, names: tuple[str, ...]) -> None:
    """Raises TopicMismatch with one message per topic; Retriable while topics are missing or the broker is away."""
    states = describe(platform)
    problems = []
    for state in (states[name] for name in names):
        spec = state.spec
        if not state.exists:
            # A broker tells a user nothing of topics it may not see.
            raise Retriable(
                f"topic {state.name} does not exist yet, or this user may not see it: `ingest up` or `ingest topics "
                "--create` makes it"
            )
        want = wanted_partitions(platform, spec)
        if spec.keyed and state.partitions != want:
            problems.append(
                f"{state.name} has {state.partitions} partitions, the setting `partitions` says {want}: keys would "
                f"move to other owners. Set INGEST_PARTITIONS={state.partitions}, or make the topic anew."
            )
        limit = int(state.config.get("max.message.bytes", "0"))
        if limit < max(spec.max_bytes, 1 << 20):
            problems.append(
                f"{state.name} takes messages of {limit} bytes at most, {max(spec.max_bytes, 1 << 20)} are needed: "
                f"kafka-configs.sh --alter --topic {state.name} --add-config max.message.bytes="
                f"{spec.broker_config()['max.message.bytes']}"
            )
    if problems:
        raise TopicMismatch("\n".join(problems))


def set_retention(platform: Platform, topic: str, retention_ms: int) -> None:
    """Change how long a topic is kept; -1: for ever. Raises Retriable, KafkaRefused."""
    name = topic_name(platform.topic_prefix, topic)
    entry = ConfigEntry("retention.ms", str(retention_ms), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    # Held until it has answered: a client that is dropped gives up its calls.
    admin = open_admin(platform)
    try:
        admin.incremental_alter_configs([resource])[resource].result(_TIMEOUT_SECONDS)
    except (KafkaException, TimeoutError) as error:
        raise admin.failed(error, f"retention.ms of {name} can't be set to {retention_ms}") from error


def end_offsets(admin: Admin, name: str, partitions: int, *, readable: bool = False) -> tuple[int, ...]:
    """-> by partition. readable: the ends of what is committed, before the first transaction that is open.

    Raises Retriable, KafkaRefused."""
    wanted = {TopicPartition(name, p): OffsetSpec.latest() for p in range(partitions)}  # type: ignore[no-untyped-call]
    isolation = IsolationLevel.READ_COMMITTED if readable else IsolationLevel.READ_UNCOMMITTED
    futures = admin.list_offsets(wanted, isolation_level=isolation, request_timeout=_TIMEOUT_SECONDS)
    try:
        ends = {tp.partition: future.result(_TIMEOUT_SECONDS).offset for tp, future in futures.items()}
    except (KafkaException, TimeoutError) as error:
        raise admin.failed(error, f"the ends of {name} can't be read") from error
    return tuple(ends[p] for p in range(partitions))


def topic_id(admin: Admin, name: str) -> str:
    """-> URL-safe id. Raises Retriable: missing or broker away."""
    try:
        found = admin.describe_topics(TopicCollection([name]))[name].result(_TIMEOUT_SECONDS)
    except (KafkaException, TimeoutError) as error:
        raise admin.failed(error, f"topic {name} can't be described") from error
    return url_safe(found.topic_id)


def unwritable(platform: Platform, names: Iterable[str]) -> list[str]:
    """-> which of these topics (full names) this user may not write to. Raises Retriable, KafkaRefused."""
    admin = open_admin(platform)
    wanted = TopicCollection(sorted(names))
    try:
        found = {
            name: future.result(_TIMEOUT_SECONDS)
            for name, future in admin.describe_topics(wanted, include_authorized_operations=True).items()
        }
    except (KafkaException, TimeoutError) as error:
        raise admin.failed(error, "the rights of this user can't be read") from error
    return [name for name, topic in found.items() if AclOperation.WRITE not in (topic.authorized_operations or ())]


def committed(admin: Admin, group: str) -> dict[tuple[str, int], int]:
    """-> committed offset by (full topic name, partition); empty: the group is unknown."""
    request = [ConsumerGroupTopicPartitions(group)]
    try:
        result = admin.list_consumer_group_offsets(request)[group].result(_TIMEOUT_SECONDS)
    except (KafkaException, TimeoutError) as error:
        if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return {}
        raise admin.failed(error, f"offsets of {group} can't be read") from error
    return {(tp.topic, tp.partition): tp.offset for tp in result.topic_partitions if tp.offset >= 0}


def group_lag(platform: Platform, group: str, topic: str) -> int | None:
    """-> offsets between the group's commits and the ends of a logical topic; None: it has never committed. A service
    at rest commits past transaction markers within seconds, so a drained group shows 0."""
    admin = open_admin(platform)
    name = topic_name(platform.topic_prefix, topic)
    metadata = admin.metadata()
    if name not in metadata.topics:
        return None
    ends = end_offsets(admin, name, len(metadata.topics[name].partitions))
    done = committed(admin, group)
    if not done:
        return None
    return sum(max(0, end - done.get((name, p), 0)) for p, end in enumerate(ends))
