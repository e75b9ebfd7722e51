"""A disk that is full: the service says so, waits, loses nothing and goes on by itself once there is room."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from confluent_kafka import Producer

from devstack.seaweedfs import create_bucket
from ingestcore.kafka import admin, options
from ingestcore.kafka.config_topic import publish
from ingestcore.kafka.reading import read_all
from ingestcore.messages.rows import KEY, read, write
from ingestcore.settings import Platform
from ingestcore.stage import Input
from ingestcore.testing import lake
from ingestcore.testing.fleet import Keys
from ingestcore.testing.one_service import OneService
from ingestcore.testing.sink_world import normalized, object_facts
from ingestcore.testing.typed_rows import facts_of, typed_batch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

DISK_BYTES = 1 << 20
ROWS, MESSAGES = 2_000, 12


class Disk:
    """A file system of a mebibyte in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        why = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        why = str(error)
    if why:
        print(f"\nno file system of a fixed size can be mounted here: {why}")
        pytest.skip(f"mount: {why}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def running(platform: Callable[..., Platform], disk: Disk, tmp_path: Path) -> Iterator[Callable[..., OneService]]:
    """-> makes a service whose local state lies on the small disk; its log does not."""
    made: list[OneService] = []

    def make(settings: Platform, *arguments: str, **more: str) -> OneService:
        environ = {
            "INGEST_TOPIC_PREFIX": settings.topic_prefix,
            "INGEST_PARTITIONS": str(settings.partitions),
            "INGEST_STATE_DIR": str(disk.folder / "state"),
            **more,
        }
        made.append(OneService.named(tmp_path / "service", environ, *arguments))
        return made[-1]

    yield make
    for service in made:
        service.stop()


def prepare(settings: Platform) -> None:
    """Topics, and the dataset that the typed messages name."""
    admin.create_topics(settings)
    publish(settings, [SimpleNamespace(key="dataset/items@1", value=b'{"primary_key": ["text"]}')])


def produce(settings: Platform, topic: str, value: bytes, headers: dict[str, str]) -> None:
    producer = Producer(options.producer(settings))
    producer.produce(settings.topic_prefix + topic, value, partition=0, headers={"format": "1", **headers})
    assert producer.flush(30) == 0


def drained(settings: Platform, instance: str, topic: str, service: OneService) -> None:
    deadline = time.monotonic() + 60
    while admin.group_lag(settings, settings.group(instance), topic) != 0:
        assert time.monotonic() < deadline, service.told()
        time.sleep(0.2)


def typed(number: int) -> bytes:
    keys = [f"{number:08}{row:08}".encode() for row in range(ROWS)]
    return bytes(write(typed_batch(keys, [facts_of("a.csv")] * ROWS)))


def published(settings: Platform) -> list[bytes]:
    return [key for input in read_all(settings, "normalized") for key in keys_of(input)]


def keys_of(input: Input) -> list[bytes]:
    return [bytes(key) for key in read(input.value).column(KEY).to_pylist()]


def test_the_normalizers_state(
    platform: Callable[..., Platform], disk: Disk, running: Callable[..., OneService]
) -> None:
    settings = platform(partitions=1)
    prepare(settings)
    service = running(settings, "normalizer", INGEST_NORMALIZER_MEMTABLE_KEYS=str(ROWS))
    service.start()
    for number in range(MESSAGES):
        if number == MESSAGES // 3:
            drained(settings, "normalizer", "typed", service)
            disk.fill()
        produce(settings, "typed", typed(number), {"rows": str(ROWS), "dataset": "items@1"})
    reason = service.wait_until("waiting", str(disk.folder), "free")
    time.sleep(3)
    assert service.wait_until("waiting") == reason
    disk.empty()
    drained(settings, "normalizer", "typed", service)
    service.wait_until("ready")
    found = published(settings)
    assert len(found) == len(set(found)) == ROWS * MESSAGES
    assert len(service.lines("waiting")) == len(service.lines("going on")) == 1, service.told()
    assert "Traceback" not in service.told()


def test_the_sinks_files(
    platform: Callable[..., Platform], disk: Disk, running: Callable[..., OneService], endpoints: dict[str, str]
) -> None:
    settings = platform(partitions=1)
    admin.create_topics(settings)
    keys = Keys.of(endpoints)
    bucket = f"disk-{time.time_ns()}"
    create_bucket(asdict(keys), bucket)
    spec = b'{"parquet": {"uri": "s3://%s/", "max_age": "1s"}}' % bucket.encode()
    publish(settings, [SimpleNamespace(key="sink/lake", value=spec)])
    # A row group a message: each is written to the disk at once.
    service = running(settings, "parquet-sink", "--sink", "lake", INGEST_PARQUET_SINK_ROW_GROUP_BYTES="1KiB")
    service.start()
    service.wait_until("ready")
    disk.fill()
    facts = [object_facts("orders.csv")]
    for number in range(MESSAGES):
        ids = range(number * ROWS, (number + 1) * ROWS)
        columns = pa.table({"id": pa.array(ids, pa.int64()), "text": [f"{n * 7919:x}" * 8 for n in ids]})
        message = normalized(number, columns, facts, first_row=ids[0] + 1)
        produce(settings, "normalized", message.value, dict(message.headers))
    service.wait_until("waiting", "no space left", "free some")
    left = list((disk.folder / "state").rglob("*.tmp"))
    assert len(left) <= 1, f"half files stay behind on the full disk: {left}"
    time.sleep(3)
    service.wait_until("waiting", "no space left")
    disk.empty()
    drained(settings, "lake", "normalized", service)
    service.wait_until("ready")
    connection = lake.connect(keys)
    found = lake.rows(connection, f"s3://{bucket}/", "orders").project("id").fetchall()
    assert sorted(row[0] for row in found) == list(range(ROWS * MESSAGES))
    assert len(service.lines("waiting")) == len(service.lines("going on")) == 1, service.told()
    assert "Traceback" not in service.told()


def test_a_service_that_starts_on_a_full_disk_waits(
    platform: Callable[..., Platform], disk: Disk, running: Callable[..., OneService]
) -> None:
    settings = platform(partitions=1)
    prepare(settings)
    disk.fill()
    service = running(settings, "normalizer", INGEST_NORMALIZER_MEMTABLE_KEYS="1")
    service.start()
    produce(settings, "typed", typed(0), {"rows": str(ROWS), "dataset": "items@1"})
    deadline = time.monotonic() + 60
    while "could not be written" not in service.told():
        assert time.monotonic() < deadline, service.told()
        time.sleep(0.2)
    # Only the next input has to wait: what was committed is safe in the changelog.
    produce(settings, "typed", typed(1), {"rows": str(ROWS), "dataset": "items@1"})
    service.wait_until("waiting", str(disk.folder))
    disk.empty()
    drained(settings, "normalizer", "typed", service)
    assert len(published(settings)) == 2 * ROWS


def test_a_log_that_can_not_be_written_ends_nothing(platform: Callable[..., Platform], tmp_path: Path) -> None:
    settings = platform(partitions=1)
    prepare(settings)
    environ = {
        "INGEST_TOPIC_PREFIX": settings.topic_prefix,
        "INGEST_PARTITIONS": "1",
        "INGEST_STATE_DIR": str(tmp_path / "state"),
        "LOG_LEVEL": "DEBUG",
    }
    service = OneService.named(tmp_path, environ, "normalizer")
    service.log.unlink(missing_ok=True)
    service.log.symlink_to("/dev/full")
    service.start()
    try:
        service.wait_until("ready")
        produce(settings, "typed", typed(0), {"rows": str(ROWS), "dataset": "items@1"})
        deadline = time.monotonic() + 60
        while admin.group_lag(settings, settings.group("normalizer"), "typed") != 0:
            assert time.monotonic() < deadline and service.running()
            time.sleep(0.2)
    finally:
        service.stop()
    assert len(published(settings)) == ROWS
