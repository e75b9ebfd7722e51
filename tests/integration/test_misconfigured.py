"""What only an operator can mend ends a service with exit code 2 and one clear message; what may come is waited for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from ingestcore.kafka import admin
from ingestcore.kafka.config_topic import publish
from ingestcore.settings import Platform

pytestmark = pytest.mark.integration


def environ(platform: Platform, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "INGEST_TOPIC_PREFIX": platform.topic_prefix,
        "INGEST_PARTITIONS": str(platform.partitions),
        "INGEST_STATE_DIR": str(platform.state_dir),
        **more,
    }


def run(arguments: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingestcore.cli.main", "run", *arguments]
    return subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=60, check=False)


def says(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    told = done.stdout + done.stderr
    assert done.returncode == 2, told
    assert "Traceback" not in told
    for part in parts:
        assert part in told, told


@pytest.fixture(scope="module")
def ready(endpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """Topics, and a sink whose bucket is missing."""
    platform = Platform(
        topic_prefix=f"mis{os.getpid()}x{time.time_ns() % 10**9}.",
        partitions=2,
        state_dir=tmp_path_factory.mktemp("state"),
    )
    admin.create_topics(platform)
    sink = b'{"parquet": {"uri": "s3://no-such-bucket/x/"}}'
    source = b'{"s3": {"bucket": "no-such-bucket"}}'
    publish(platform, [SimpleNamespace(key="sink/lake", value=sink), SimpleNamespace(key="source/s", value=source)])
    return platform


@pytest.mark.parametrize(
    ("arguments", "settings", "parts"),
    [
        (["no-such-service"], {}, ("no-such-service", "csv-parser")),
        (["parquet-sink"], {}, ("--sink",)),
        (["csv-parser"], {"INGEST_COMMIT_BYTES": "much"}, ("commit_bytes", "16MiB")),
        (["csv-parser"], {"INGEST_CSV_PARSER_GATHER_BYTES": "-"}, ("gather_bytes",)),
        (["csv-parser"], {"LOG_LEVEL": "LOUD"}, ("LOG_LEVEL", "DEBUG")),
        (["chunk-downloader"], {"INGEST_CHUNK_DOWNLOADER_MEMORY_BUDGET": "64MiB"}, ("memory_budget", "×")),
        (["csv-parser"], {"INGEST_PARTITIONS": "3"}, ("has 2 partitions", "INGEST_PARTITIONS=2")),
        (["parquet-sink", "--sink", "lake"], {}, ("no-such-bucket",)),
        (
            ["parquet-sink", "--sink", "lake"],
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            ("no-such-bucket", "credentials"),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_ends_the_service_with_one_message(
    ready: Platform, arguments: list[str], settings: dict[str, str], parts: tuple[str, ...]
) -> None:
    says(run(arguments, environ(ready, **settings)), *parts)


def test_a_topic_that_takes_too_small_messages_is_refused(platform: Callable[..., Platform]) -> None:
    small = platform(partitions=2)
    admin.create_topics(small)
    name = small.topic_prefix + "blocks"
    entry = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    client = admin.open_admin(small)
    for future in client.incremental_alter_configs([change]).values():
        future.result(20)
    says(run(["csv-parser"], environ(small)), name, "100000", "max.message.bytes")


def test_an_admin_port_in_use_is_said(ready: Platform) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        says(run(["csv-parser"], environ(ready, INGEST_ADMIN_PORT=str(port))), str(port), "in use")


@pytest.mark.parametrize(
    "settings",
    [{"INGEST_TOPIC_PREFIX": "not-made-yet."}, {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}],
    ids=["topics not made yet", "no broker"],
)
def test_what_may_still_come_is_waited_for_and_said_once(ready: Platform, settings: dict[str, str]) -> None:
    command = [sys.executable, "-m", "ingestcore.cli.main", "run", "csv-parser"]
    process = subprocess.Popen(
        command, env=environ(ready, **settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    time.sleep(12)
    assert process.poll() is None
    process.terminate()
    told, _ = process.communicate(timeout=40)
    assert process.returncode == 0, told
    assert told.count('"waiting"') == 1, told
