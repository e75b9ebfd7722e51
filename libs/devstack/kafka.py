"""Apache Kafka: broker and controller in one process (KRaft)."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from pathlib import Path

from devstack.java import find_java
from devstack.kafka_jars import install, jars_folder
from devstack.ports import listening
from devstack.process import run_tied
from devstack.server import HOST, Place, StackError

HEAP = "-Xmx512m"
FORMAT_TIMEOUT_SECONDS = 120.0
# An Arrow or block message of 32 MiB and its overhead.
MESSAGE_MAX_BYTES = 34 * 1024 * 1024
# 14 days: longer than the longest topic retention (7 days), so that a group never loses its place to data
# that is still there.
OFFSETS_RETENTION_MINUTES = 14 * 24 * 60
INTERNAL_PARTITIONS = 8
NODE_ID = 1
_STARTED = "Kafka Server started"

_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": NODE_ID,
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "message.max.bytes": MESSAGE_MAX_BYTES,
    "replica.fetch.max.bytes": MESSAGE_MAX_BYTES,
    "offsets.retention.minutes": OFFSETS_RETENTION_MINUTES,
    # One broker: no internal topic can have a second replica.
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "offsets.topic.num.partitions": INTERNAL_PARTITIONS,
    "transaction.state.log.num.partitions": INTERNAL_PARTITIONS,
    "share.coordinator.state.topic.num.partitions": INTERNAL_PARTITIONS,
    # Quick groups and quick fault tests: members may be declared dead after a second, a transaction that
    # timed out is aborted half a second later instead of ten.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "group.consumer.min.session.timeout.ms": 1000,
    "group.consumer.min.heartbeat.interval.ms": 200,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
    # A killed broker that comes back waits until its old registration has expired.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
    # The default buffer of 128 MiB would take a quarter of the heap.
    "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
}


class Kafka:
    name = "kafka"
    ports = ("broker", "controller")
    grace_seconds = 10.0  # enough to close its logs; a killed broker has to recover them at its next start

    def external(self, environ: Mapping[str, str]) -> dict[str, str] | None:
        brokers = environ.get("KAFKA_BOOTSTRAP_SERVERS") or environ.get("KAFKA_BROKERS")
        return {"kafka": brokers} if brokers else None

    def endpoint(self, place: Place) -> dict[str, str]:
        return {"kafka": f"{HOST}:{place.ports['broker']}"}

    def prepare(self, place: Place) -> None:
        install()
        _properties_file(place).write_text(_properties(place))
        if not (place.data / "log" / "meta.properties").exists():
            self._format(place)

    def command(self, place: Place) -> list[str]:
        return [*_jvm(), HEAP, *_log_options("info"), "kafka.Kafka", str(_properties_file(place))]

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        return dict(inherited)

    def cleanup(self, place: Place) -> None:
        pass

    def ready(self, place: Place) -> bool:
        # The line comes after the broker was unfenced, that is when clients can produce and consume.
        return _STARTED in place.fresh_log() and listening(place.ports["broker"])

    def _format(self, place: Place) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        options = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *_log_options("warn")]
        # A leading dash would be taken for an option.
        arguments = ["format", f"--cluster-id={cluster_id}", "--config", str(_properties_file(place))]
        run_tied(
            [*_jvm(), *options, "kafka.tools.StorageTool", *arguments],
            what="formatting Kafka's storage",
            timeout_seconds=FORMAT_TIMEOUT_SECONDS,
        )
        if not (place.data / "log" / "meta.properties").exists():
            raise StackError(f"formatting Kafka's storage left no meta.properties in {place.data / 'log'}")


def _jvm() -> list[str]:
    return [find_java(), "-Xshare:auto", "-cp", f"{jars_folder()}/*"]


def _log_options(level: str) -> list[str]:
    logger = "-Dorg.slf4j.simpleLogger"
    return [
        f"{logger}.defaultLogLevel={level}",
        f"{logger}.showDateTime=true",
        f"{logger}.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
    ]


def _properties_file(place: Place) -> Path:
    return place.data / "server.properties"


def _properties(place: Place) -> str:
    broker, controller = place.ports["broker"], place.ports["controller"]
    # A static list of voters, since it is read anew at each start: the ports may differ from the last time.
    own = {
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller}",
        "listeners": f"PLAINTEXT://{HOST}:{broker},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{broker}",
        "log.dirs": json.dumps(str(place.data / "log"))[1:-1],
    }
    return "".join(f"{key}={value}\n" for key, value in {**_PROPERTIES, **own}.items())
