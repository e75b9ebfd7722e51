"""What the runtime gives any stage, shown with a stage of ten lines on the real broker."""

from __future__ import annotations

import collections
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition

from ingestcore.kafka import admin, options
from ingestcore.kafka.reading import read_all
from ingestcore.messages.ledger import LedgerRecord
from ingestcore.settings import Platform
from ingestcore.stage import Fate, Retriable

pytestmark = pytest.mark.integration


class Bench:
    """Topics of one test and its copy processes."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.group = platform.group("copy")
        self.fed = 0
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        admin.create_topics(platform)
        self._producer = Producer(options.producer(platform))

    def feed(self, count: int, value: bytes | None = None) -> None:
        for number in range(self.fed, self.fed + count):
            self._producer.produce(
                self.platform.topic_prefix + "objects",
                value or b"v%d" % number,
                partition=number % self.platform.partitions,
                headers={"rows": "1"},
            )
        self._producer.flush()
        self.fed += count

    def start(self, replica: str, *how: str) -> subprocess.Popen[bytes]:
        environ = os.environ | {
            "INGEST_TOPIC_PREFIX": self.platform.topic_prefix,
            "INGEST_PARTITIONS": str(self.platform.partitions),
            "INGEST_SESSION_TIMEOUT_MS": str(self.platform.session_timeout_ms),
            "INGEST_TRANSACTION_TIMEOUT_MS": str(self.platform.transaction_timeout_ms),
        }
        command = [sys.executable, "-m", "ingestcore.testing.ten_line_stage", replica, *how]
        self.running[replica] = subprocess.Popen(command, env=environ)
        return self.running[replica]

    def drained(self, seconds: float = 180) -> None:
        deadline, said = time.monotonic() + seconds, ""
        while True:
            try:
                if admin.group_lag(self.platform, self.group, "objects") == 0:
                    return
            except Retriable as error:  # the group's coordinator may be loading
                said = str(error)
            assert time.monotonic() < deadline, f"the group did not get to the end {said}"
            time.sleep(0.2)

    def copied(self) -> collections.Counter[bytes]:
        return collections.Counter(i.value for i in read_all(self.platform, "blocks"))

    def stop(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.running.values():
            process.wait(20)


@pytest.fixture
def bench(platform: Callable[..., Platform]) -> Iterator[Bench]:
    bench = Bench(platform())
    yield bench
    bench.stop()


def every_value_once(bench: Bench) -> None:
    copied = bench.copied()
    assert len(copied) == bench.fed, "lost"
    assert copied.total() == bench.fed, "doubled"


def test_kill_9_again_and_again_loses_and_doubles_nothing(bench: Bench) -> None:
    rng = random.Random(1)
    for replica in ("0", "1"):
        bench.start(replica)
    for _ in range(8):
        bench.feed(2_000)
        time.sleep(rng.uniform(0.3, 1.0))
        victim = rng.choice(["0", "1"])
        bench.running[victim].kill()
        bench.running[victim].wait()
        bench.start(victim)
    bench.drained()
    every_value_once(bench)
    fates: collections.Counter[Fate] = collections.Counter()
    for record in read_all(bench.platform, "ledger"):
        for entry in LedgerRecord.decode(record.value).entries:
            fates.update({fate: rows for fate, (rows, _) in entry.fates.items()})
    assert fates == {Fate.EMITTED: bench.fed}


def test_a_worker_frozen_past_its_session_with_records_in_hand_is_refused(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "frozen"
    frozen = bench.start("0", "freeze", str(marker))
    bench.feed(4_000)
    deadline = time.monotonic() + 30
    while not marker.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    bench.start("1")
    time.sleep(bench.platform.session_timeout_ms / 1000 + 3)
    frozen.send_signal(signal.SIGCONT)
    bench.feed(2_000)
    bench.drained()
    every_value_once(bench)


def test_a_reset_to_earliest_is_accepted_within_seconds_of_a_stop_and_reads_all_again(bench: Bench) -> None:
    worker = bench.start("0")
    bench.feed(500)
    bench.drained()
    started = time.monotonic()
    worker.terminate()
    assert worker.wait(20) == 0
    topic = bench.platform.topic_prefix + "objects"
    parts = [TopicPartition(topic, p, 0) for p in range(bench.platform.partitions)]
    client = admin.open_admin(bench.platform)
    client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(bench.group, parts)])[bench.group].result(10)
    assert time.monotonic() - started < 10
    bench.start("0")
    bench.drained()
    assert set(bench.copied().values()) == {2}


def test_a_poison_input_is_dead_lettered_alone_and_the_rest_goes_on(bench: Bench) -> None:
    bench.feed(50)
    bench.feed(1, b"poison")
    bench.feed(50)
    bench.start("0")
    bench.drained()
    letters = list(read_all(bench.platform, "dlq"))
    assert [(letter.value, letter.headers["reason"]) for letter in letters] == [(b"poison", "INTERNAL_ERROR")]
    assert bench.copied().total() == 100


def test_an_input_that_kills_the_process_is_dead_lettered_after_three_tries_and_the_rest_goes_on(bench: Bench) -> None:
    bench.feed(40)
    bench.feed(1, b"deadly")
    bench.feed(40)
    deaths, deadline = 0, time.monotonic() + 150
    bench.start("0")
    while admin.group_lag(bench.platform, bench.group, "objects") != 0:
        assert time.monotonic() < deadline, f"not through after {deaths} deaths"
        if bench.running["0"].poll() is not None:
            assert bench.running["0"].returncode == -signal.SIGKILL
            deaths += 1
            bench.start("0")
        time.sleep(0.2)
    letters = list(read_all(bench.platform, "dlq"))
    assert [(letter.value, letter.headers["reason"]) for letter in letters] == [(b"deadly", "INTERNAL_ERROR")]
    assert "ended three times" in letters[0].headers["__dlq.errors.message"]
    assert 3 < deaths <= 9
    copied = bench.copied()
    assert copied.total() == len(copied) == 80


def test_ten_kills_of_a_long_input_dead_letter_nothing(bench: Bench) -> None:
    rng = random.Random(2)
    bench.feed(1, b"long 150")
    bench.feed(8)
    for _ in range(10):
        victim = bench.start("0")
        time.sleep(rng.uniform(1.5, 3.5))
        victim.kill()
        victim.wait()
    bench.start("0")
    bench.drained()
    assert list(read_all(bench.platform, "dlq")) == []
    copied = bench.copied()
    assert copied.total() == len(copied) == 9 and copied[b"long 150"] == 1


def test_of_two_processes_with_one_replica_id_one_exits(bench: Bench) -> None:
    elder = bench.start("0")
    bench.feed(100)
    bench.drained()
    both = [elder, bench.start("0")]
    deadline = time.monotonic() + 60
    while not (ended := [process for process in both if process.poll() is not None]):
        assert time.monotonic() < deadline, "both still run"
        bench.feed(100)
        time.sleep(0.3)
    assert len(ended) == 1 and ended[0].returncode not in (0, -signal.SIGKILL)
    bench.running["0"] = next(process for process in both if process not in ended)
    bench.drained()
    every_value_once(bench)
