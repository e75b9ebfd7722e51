"""Apache Kafka: broker and controller in one process (KRaft)."""

from __future__ import annotations

import base64
import json
import signal
import uuid
from collections.abc import Mapping
from pathlib import Path

from devstack import kafka_fencing
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
EXTRA_PROPERTIES = "kafka.properties"
_LISTENER_LISTS = ("listeners", "advertised.listeners", "listener.security.protocol.map")
_STARTED = "Kafka Server started"
# A stack lives for minutes: a second compiler and a concurrent collector would take more than they save (half of the
# broker's CPU over 400 MB, measured with and without).
_SHORT_LIVED = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

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
    # A broker that lives must not be declared dead because the machine is busy (see kafka_fencing).
    "broker.session.timeout.ms": 30_000,
    "broker.heartbeat.interval.ms": 500,
    # The default buffer of 128 MiB would take a quarter of the heap.
    "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
}


class Kafka:
    name = "kafka"
    ports = ("broker", "controller", "secure")
    stop_signal = signal.SIGTERM
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
        elif kafka_fencing.was_killed(place.data / "log"):
            self._fence(place)

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
        options = _log_options("warn")
        # A leading dash would be taken for an option.
        arguments = ["format", f"--cluster-id={cluster_id}", "--config", str(_properties_file(place))]
        run_tied(
            [*_jvm(), *options, "kafka.tools.StorageTool", *arguments],
            what="formatting Kafka's storage",
            timeout_seconds=FORMAT_TIMEOUT_SECONDS,
        )
        if not (place.data / "log" / "meta.properties").exists():
            raise StackError(f"formatting Kafka's storage left no meta.properties in {place.data / 'log'}")

    def _fence(self, place: Place) -> None:
        properties = place.data / "controller.properties"
        properties.write_text(_controller_properties(place))
        command = [*_jvm(), HEAP, *_log_options("info"), "kafka.Kafka", str(properties)]
        kafka_fencing.fence(command, place.log.with_name("kafka-fencing.log"))


def _jvm() -> list[str]:
    return [find_java(), "-Xshare:auto", *_SHORT_LIVED, "-cp", f"{jars_folder()}/*"]


def _log_options(level: str) -> list[str]:
    logger = "-Dorg.slf4j.simpleLogger"
    return [
        f"{logger}.defaultLogLevel={level}",
        f"{logger}.showDateTime=true",
        f"{logger}.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
    ]


def _properties_file(place: Place) -> Path:
    return place.data / "server.properties"


def extra_properties(folder: Path) -> Path:
    """-> the file of a stack's folder whose broker properties are added to ours; it need not exist."""
    return folder / EXTRA_PROPERTIES


def _read_extra(place: Place) -> dict[str, str]:
    """-> `name=value` lines, `{secure}` in them replaced by the port kept free for a further listener."""
    try:
        text = extra_properties(place.folder).read_text()
    except FileNotFoundError:
        return {}
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    port = str(place.ports["secure"])
    return {name.strip(): value.strip().replace("{secure}", port) for name, _, value in pairs}


def _properties(place: Place) -> str:
    broker = place.ports["broker"]
    own = {
        "listeners": f"PLAINTEXT://{HOST}:{broker},{_controller_listener(place)}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{broker}",
    }
    merged = {name: str(value) for name, value in {**_PROPERTIES, **_common(place), **own}.items()}
    for name, value in _read_extra(place).items():
        # A further listener stands beside ours, which this stack's own tools use.
        merged[name] = f"{merged[name]},{value}" if name in _LISTENER_LISTS else value
    return _text(merged)


def _controller_properties(place: Place) -> str:
    """Of the same node as a controller only."""
    shared = {name: value for name, value in _PROPERTIES.items() if name != "inter.broker.listener.name"}
    own = {
        "process.roles": "controller",
        "listeners": _controller_listener(place),
        "broker.session.timeout.ms": kafka_fencing.SESSION_MS,
        "broker.heartbeat.interval.ms": kafka_fencing.SESSION_MS // 5,
    }
    return _text({**shared, **_common(place), **own})


def _controller_listener(place: Place) -> str:
    return f"CONTROLLER://{HOST}:{place.ports['controller']}"


def _common(place: Place) -> dict[str, object]:
    return {
        # A static list of voters, since it is read anew at each start: the ports may differ from the last time.
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{place.ports['controller']}",
        "log.dirs": json.dumps(str(place.data / "log"))[1:-1],
    }


def _text(properties: Mapping[str, object]) -> str:
    return "".join(f"{key}={value}\n" for key, value in properties.items())
