"""The dev stack with real servers: what starts, what survives, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from botocore.exceptions import ClientError
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

import devstack
from devstack.seaweedfs import s3_client
from devstack.stack import last_record

GONE_WITHIN_SECONDS = 15.0
CLIENT_SECONDS = 30.0
EXTERNAL_VARIABLES = ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS", "S3_ENDPOINT_URL", "REDIS_URL", "POSTGRES_URL")


@pytest.fixture(scope="module", autouse=True)
def no_external_servers() -> Iterator[None]:
    """Whatever the caller's shell names, these tests are about local processes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in EXTERNAL_VARIABLES:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, no_external_servers: None) -> Iterator[devstack.Stack]:
    with devstack.start(tmp_path_factory.mktemp("first stack")) as running:
        yield running


def test_all_servers_run_and_are_remembered(stack: devstack.Stack) -> None:
    assert stack.running()
    assert stack.pids().keys() == {"kafka", "s3", "redis"}
    record = json.loads((stack.folder / "stack.json").read_text())
    assert record["ports"]["kafka"]["broker"] == int(stack.endpoints.kafka.rpartition(":")[2])
    assert (stack.folder / "stack.json").stat().st_mode & 0o077 == 0, "it holds keys"


def test_endpoints_become_environment_variables(stack: devstack.Stack) -> None:
    environ = stack.endpoints.environ()
    assert environ["KAFKA_BOOTSTRAP_SERVERS"] == environ["KAFKA_BROKERS"] == stack.endpoints.kafka
    assert environ["AWS_REGION"] == environ["AWS_DEFAULT_REGION"] == "us-east-1"
    assert environ["REDIS_URL"].startswith("redis://127.0.0.1:")


def test_kafka_commits_and_aborts_transactions(stack: devstack.Stack) -> None:
    create_topic(stack, "transactions")
    producer = Producer({"bootstrap.servers": stack.endpoints.kafka, "transactional.id": "devstack-test"})
    producer.init_transactions(CLIENT_SECONDS)
    for value, commit in (("kept", True), ("dropped", False), ("kept too", True)):
        producer.begin_transaction()
        producer.produce("transactions", value=value)
        producer.flush(CLIENT_SECONDS)
        (producer.commit_transaction if commit else producer.abort_transaction)(CLIENT_SECONDS)
    assert read_values(stack, "transactions", expected=2) == ["kept", "kept too"]


def test_kafka_takes_messages_of_32_mib(stack: devstack.Stack) -> None:
    create_topic(stack, "large")
    produce(stack, "large", b"x" * (32 * 1024 * 1024))
    assert [len(value) for value in read_values(stack, "large", expected=1)] == [32 * 1024 * 1024]


def test_s3_refuses_to_overwrite_when_asked(stack: devstack.Stack) -> None:
    stack.create_bucket("put-if-none-match")
    stack.create_bucket("put-if-none-match")
    client = s3_client(stack.endpoints.as_dict())
    client.put_object(Bucket="put-if-none-match", Key="claims/1", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refusal:
        client.put_object(Bucket="put-if-none-match", Key="claims/1", Body=b"second", IfNoneMatch="*")
    assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert client.get_object(Bucket="put-if-none-match", Key="claims/1")["Body"].read() == b"first"


def test_redis_keeps_an_append_only_file(stack: devstack.Stack) -> None:
    client = redis.Redis.from_url(stack.endpoints.redis)
    assert client.set("key", "value") and client.get("key") == b"value"
    assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_kafka_scripts_reach_this_stack(stack: devstack.Stack) -> None:
    create_topic(stack, "listed")
    brokers = stack.endpoints.kafka
    assert "listed" in script(stack, "kafka-topics.sh", "--list").split()
    assert "listed" in script(stack, "kafka-topics.sh", "--bootstrap-server", brokers, "--list").split()
    assert script(stack, "kafka-get-offsets.sh", "--topic", "listed").split() == ["listed:0:0"]


def test_kafka_consumer_groups_script_shows_and_resets_offsets(stack: devstack.Stack) -> None:
    create_topic(stack, "grouped")
    produce(stack, "grouped", b"one", b"two")
    assert len(read_values(stack, "grouped", expected=2, group="runbook")) == 2
    groups = ("kafka-consumer-groups.sh", "--bootstrap-server", stack.endpoints.kafka, "--group", "runbook")
    described = script(stack, *groups, "--describe").split()
    assert described[described.index("grouped") + 2] == "2"
    script(stack, *groups, "--topic", "grouped", "--reset-offsets", "--to-earliest", "--execute")
    described = script(stack, *groups, "--describe").split()
    assert described[described.index("grouped") + 2] == "0"


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        (["SET", "checkpoint:t:s", '{"scan": 7}'], "OK\n"),
        (["GET", "checkpoint:t:s"], '{"scan": 7}\n'),
        (["--no-raw", "GET", "checkpoint:t:s"], '"{\\"scan\\": 7}"\n'),
        (["--no-raw", "GET", "nothing"], "(nil)\n"),
        (["GET", "nothing"], "\n"),
        (["RPUSH", "list", "a", "b"], "2\n"),
        (["--no-raw", "LLEN", "list"], "(integer) 2\n"),
        (["LRANGE", "list", "0", "-1"], "a\nb\n"),
        (["--no-raw", "LRANGE", "list", "0", "-1"], '1) "a"\n2) "b"\n'),
        (["--no-raw", "LRANGE", "nothing", "0", "-1"], "(empty array)\n"),
        (["--no-raw", "LLEN", "checkpoint:t:s"], "(error) WRONGTYPE Operation against a key holding"),
        (["-n", "3", "DBSIZE"], "0\n"),
        (["--scan", "--pattern", "check*"], "checkpoint:t:s\n"),
        (["INFO", "keyspace"], "# Keyspace\ndb0:keys="),
        (["DEL", "checkpoint:t:s", "list"], "2\n"),
    ],
)
def test_redis_cli_prints_what_redis_cli_prints(stack: devstack.Stack, command: list[str], printed: str) -> None:
    assert script(stack, "redis-cli", *command).startswith(printed)


def test_redis_cli_says_when_there_is_no_server(stack: devstack.Stack) -> None:
    asked = subprocess.run([stack.bin / "redis-cli", "-p", "1", "PING"], capture_output=True, text=True, check=False)
    assert asked.returncode == 1
    assert asked.stderr == "Could not connect to Redis at 127.0.0.1:1: Connection refused\n"


def test_a_killed_kafka_comes_back_with_its_data_on_its_port(stack: devstack.Stack) -> None:
    create_topic(stack, "survivor")
    produce(stack, "survivor", b"before")
    before = stack.pids()["kafka"]
    stack.kill("kafka", signal.SIGKILL)
    eventually(lambda: not stack.running(), GONE_WITHIN_SECONDS)
    stack.restart("kafka")
    assert stack.running() and stack.pids()["kafka"] != before
    produce(stack, "survivor", b"after")
    assert read_values(stack, "survivor", expected=2) == ["before", "after"]


def test_a_killed_kafka_leaves_no_transaction_open_for_ever(stack: devstack.Stack) -> None:
    create_topic(stack, "in-doubt")
    options = {"bootstrap.servers": stack.endpoints.kafka, "transactional.id": "in-doubt", "log_level": 0}
    # Long enough that the broker is killed before it would abort it by itself, also on a slow machine.
    dying = Producer({**options, "transaction.timeout.ms": 4000})
    dying.init_transactions(CLIENT_SECONDS)
    dying.begin_transaction()
    dying.produce("in-doubt", b"never committed")
    dying.flush(CLIENT_SECONDS)
    stack.kill("kafka")
    time.sleep(4)  # as long as the transaction may take
    stack.restart("kafka", hard=True)
    produce(stack, "in-doubt", b"after")
    assert read_values(stack, "in-doubt", expected=1) == ["after"]


def test_a_second_stack_runs_beside_the_first(stack: devstack.Stack, tmp_path: Path) -> None:
    stack.create_bucket("only-in-first")
    with devstack.start(tmp_path) as second:
        assert second.running() and stack.running()
        assert set(second.pids().values()).isdisjoint(stack.pids().values())
        buckets = s3_client(second.endpoints.as_dict()).list_buckets()["Buckets"]
        assert "only-in-first" not in [bucket["Name"] for bucket in buckets]
        processes = family(second)
        second.stop()
        assert alive(processes) == []
        assert not second.running() and second.pids() == {}
    assert stack.running()


def test_one_folder_has_one_stack(stack: devstack.Stack) -> None:
    with pytest.raises(devstack.StackError, match="already running"):
        devstack.start(stack.folder, servers=["redis"])
    assert stack.running()


def test_unknown_servers_are_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(devstack.StackError, match="no such server: mongo; there are kafka, s3, redis"):
        devstack.start(tmp_path, servers=["redis", "mongo"])


def test_a_server_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "data" / "redis" / "appendonlydir"
    broken.parent.mkdir(parents=True)
    broken.write_text("a file where the server wants a folder")
    with pytest.raises(devstack.StackError, match=r"redis ended with exit code 1(.|\n)*appendonlydir"):
        devstack.start(tmp_path, servers=["redis"])
    assert last_record(tmp_path).state == "stopped"


def test_data_and_ports_survive_a_stop_and_start(tmp_path: Path) -> None:
    with devstack.start(tmp_path, servers=["s3", "redis"]) as first:
        first.create_bucket("durable")
        s3_client(first.endpoints.as_dict()).put_object(Bucket="durable", Key="k", Body=b"v")
        redis.Redis.from_url(first.endpoints.redis).set("k", "v")
    with devstack.start(tmp_path, servers=["s3", "redis"]) as second:
        assert second.endpoints == first.endpoints
        assert s3_client(second.endpoints.as_dict()).get_object(Bucket="durable", Key="k")["Body"].read() == b"v"
        assert redis.Redis.from_url(second.endpoints.redis).get("k") == b"v"


def test_servers_named_in_the_environment_replace_local_ones(
    stack: devstack.Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.endpoints.environ().items():
        monkeypatch.setenv(name, value)
    with devstack.start(tmp_path) as guest:
        assert guest.endpoints == stack.endpoints
        assert guest.running() and guest.pids() == {}
        assert "PONG" in script(guest, "redis-cli", "PING")
        with pytest.raises(devstack.StackError, match="not a server of this stack"):
            guest.restart("redis")
    assert stack.running()


def test_s3_from_the_environment_needs_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(devstack.StackError, match="AWS_ACCESS_KEY_ID"):
        devstack.start(tmp_path, servers=["s3"])


def test_a_detached_stack_outlives_its_starter_until_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = json.loads(command_line("up", tmp_path, "--detach", "--json", "--servers", "redis"))
    detached = devstack.connect(tmp_path)
    assert detached is not None and detached.running()
    assert detached.endpoints.redis == shown["endpoints"]["redis"]
    processes = family(detached)
    exported = command_line("env", tmp_path)
    assert f"export REDIS_URL={detached.endpoints.redis}" in exported
    assert "process" in command_line("status", tmp_path)
    command_line("down", tmp_path)
    assert alive(processes) == []
    assert devstack.connect(tmp_path) is None
    # The address this folder had, still exported in the shell, must not keep it from starting again.
    monkeypatch.setenv("REDIS_URL", detached.endpoints.redis)
    with devstack.start(tmp_path, servers=["redis"]) as again:
        assert again.pids().keys() == {"redis"}


@pytest.mark.parametrize(
    ("number", "servers"),
    [
        (signal.SIGKILL, ["kafka", "s3", "redis"]),
        (signal.SIGTERM, ["s3", "redis"]),
        (signal.SIGINT, ["s3", "redis"]),
    ],
)
def test_nothing_stays_when_the_starter_is_gone(tmp_path: Path, number: signal.Signals, servers: list[str]) -> None:
    starter = foreground_stack(tmp_path, servers)
    running = devstack.connect(tmp_path)
    assert running is not None
    processes = family(running)
    assert len(alive(processes)) == 1 + len(servers)
    starter.send_signal(number)
    starter.wait(GONE_WITHIN_SECONDS)
    eventually(lambda: alive(processes) == [], GONE_WITHIN_SECONDS)


def test_nothing_stays_when_the_keeper_is_killed(tmp_path: Path) -> None:
    with devstack.start(tmp_path) as doomed:
        processes = family(doomed)
        assert len(alive(processes)) == 4
        os.kill(doomed.keeper_pid, signal.SIGKILL)
        eventually(lambda: alive(processes) == [], GONE_WITHIN_SECONDS)
        assert not doomed.running()
        with pytest.raises(devstack.StackError, match="does not answer"):
            doomed.restart("redis")


KEEPER_ON_ANOTHER_PLATFORM = """
import os, subprocess, sys
shim = sys.argv[1]
pretend = "import runpy, sys; sys.platform = 'other'; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
command = [sys.executable, "-c", pretend, shim, str(os.getpid()), "sleep", "60"]
pipe, only_mine = os.pipe()
print(subprocess.Popen(command, stdin=pipe, start_new_session=True).pid, flush=True)
sys.stdin.read()
"""


def test_a_watcher_kills_the_server_where_the_kernel_would_not() -> None:
    shim = Path(devstack.__file__).with_name("exec_shim.py")
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER_ON_ANOTHER_PLATFORM, str(shim)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert keeper.stdout is not None
    server = psutil.Process(int(keeper.stdout.readline()))
    eventually(lambda: server.name() == "sleep", GONE_WITHIN_SECONDS)
    watchers = server.children()
    assert len(watchers) == 1
    keeper.kill()
    keeper.wait()
    eventually(lambda: alive([server, *watchers]) == [], GONE_WITHIN_SECONDS)


def create_topic(stack: devstack.Stack, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": stack.endpoints.kafka})
    admin.create_topics([NewTopic(name, 1, config={"max.message.bytes": str(34 * 1024 * 1024)})])[name].result(
        CLIENT_SECONDS
    )


def produce(stack: devstack.Stack, topic: str, *values: bytes) -> None:
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    settings = {"bootstrap.servers": stack.endpoints.kafka, "message.max.bytes": 34 * 1024 * 1024}
    producer = Producer(settings)
    for value in values:
        producer.produce(topic, value, on_delivery=delivered)
    assert producer.flush(CLIENT_SECONDS) == 0 and failures == []


def read_values(stack: devstack.Stack, topic: str, *, expected: int, group: str | None = None) -> list[str]:
    """Committed values from the beginning of partition 0; commits the position for a named group."""
    settings = {"group.id": group or f"read-{topic}", "isolation.level": "read_committed"}
    consumer = Consumer({"bootstrap.servers": stack.endpoints.kafka, "enable.auto.commit": False, **settings})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[str] = []
    deadline = time.monotonic() + CLIENT_SECONDS
    while len(values) < expected and time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is not None:
            assert message.error() is None
            values.append((message.value() or b"").decode())
    if group:
        consumer.commit(offsets=consumer.position([TopicPartition(topic, 0)]), asynchronous=False)
    consumer.close()
    return values


def script(stack: devstack.Stack, name: str, *arguments: str) -> str:
    return subprocess.run([stack.bin / name, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def command_line(command: str, folder: Path, *options: str) -> str:
    line = [sys.executable, "-m", "devstack", command, "--dir", str(folder), *options]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def foreground_stack(folder: Path, servers: list[str]) -> subprocess.Popen[bytes]:
    """`up` without --detach in a process of its own; returns once the stack is ready."""
    line = [sys.executable, "-m", "devstack", "up", "--dir", str(folder), "--servers", ",".join(servers)]
    starter = subprocess.Popen(line)
    eventually(lambda: starter.poll() is not None or devstack.connect(folder) is not None, 120.0)
    assert starter.poll() is None
    return starter


def family(stack: devstack.Stack) -> list[psutil.Process]:
    """The keeper, its servers and whatever these have started."""
    keeper = psutil.Process(stack.keeper_pid)
    return [keeper, *keeper.children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie has ended and only waits for its parent to notice."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def eventually(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(0.1)
