"""A real broker with TLS, passwords and permissions: what gets in, and what a service says that does not."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation, ResourceType  # type: ignore[attr-defined]

from ingestcore.kafka import admin, options
from ingestcore.kafka.reading import read_all
from ingestcore.settings import Platform
from ingestcore.testing.one_service import OneService
from ingestcore.testing.secured import SecuredKafka
from ingestcore.testing.tls import Authority

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

PASSWORD, PLAIN_PASSWORD = "scram-secret-1", "plain-secret-2"
PREFIX = "safe."
SETTINGS = {
    "INGEST_TOPIC_PREFIX": PREFIX,
    "INGEST_PARTITIONS": "2",
    "INGEST_SESSION_TIMEOUT_MS": "3000",
    "INGEST_TRANSACTION_TIMEOUT_MS": "3000",
}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    secured = SecuredKafka(tmp_path_factory.mktemp("secured"), {"plainuser": PLAIN_PASSWORD})
    try:
        admin.create_topics(ruler(secured))
        yield secured
    finally:
        secured.stop()


def ruler(kafka: SecuredKafka) -> Platform:
    """-> the platform as the super user reaches it."""
    return Platform(kafka_bootstrap=kafka.plain, topic_prefix=PREFIX, partitions=2, transaction_timeout_ms=3000)


def scram(kafka: SecuredKafka, user: str, password: str, **more: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(kafka.authority.file),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": password,
        **more,
    }


class Copy(OneService):
    """The ten-line stage, run as a service is, by one user of the broker."""

    def __init__(self, kafka: SecuredKafka, user: str, folder: Path, settings: dict[str, str]) -> None:
        environ = {
            **SETTINGS,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.secure,
            "INGEST_KAFKA_OPTIONS": json.dumps(scram(kafka, user, PASSWORD)),
            "INGEST_STATE_DIR": str(folder / "state"),
            **settings,
        }
        super().__init__(folder, environ, "ingestcore.testing.ten_line_stage", "0", "service")
        self.kafka, self.fed = kafka, 0

    def feed(self, count: int, partition: int | None = None, **headers: str) -> None:
        producer = Producer(options.producer(ruler(self.kafka)))
        for number in range(self.fed, self.fed + count):
            producer.produce(
                PREFIX + "objects",
                b"v%d" % number,
                partition=number % 2 if partition is None else partition,
                headers={"rows": "1", "format": "1", **headers},
            )
        producer.flush()
        self.fed += count

    def copied(self) -> collections.Counter[bytes]:
        return collections.Counter(i.value for i in read_all(ruler(self.kafka), "blocks"))

    def drained(self, seconds: float = 60) -> None:
        """Wait until everything fed was read, and see that it came out once."""
        platform = ruler(self.kafka)
        deadline = time.monotonic() + seconds
        while admin.group_lag(platform, platform.group("copy"), "objects") != 0:
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.2)


@pytest.fixture
def copies(kafka: SecuredKafka, tmp_path: Path) -> Iterator[Any]:
    """-> makes copies, stopped at the end."""
    made: list[Copy] = []

    def make(user: str = "copyuser", **settings: str) -> Copy:
        folder = tmp_path / str(len(made))
        kafka.set_password(user, PASSWORD)
        kafka.allow(user, PREFIX)
        made.append(Copy(kafka, user, folder, settings))
        return made[-1]

    yield make
    for copy in made:
        copy.stop()


def moves(copy: Copy, count: int = 40) -> None:
    """Everything fed from now on comes out once."""
    before = copy.copied()
    copy.feed(count)
    copy.drained()
    new = copy.copied() - before
    assert new.total() == count, new


# -- what gets in
def test_scram_over_tls_with_the_password_in_a_file(kafka: SecuredKafka, copies: Any, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    wanted = scram(kafka, "copyuser", f"${{file:{secret}}}")
    copy = copies(INGEST_KAFKA_OPTIONS=json.dumps(wanted))
    copy.start()
    moves(copy)
    copy.wait_until("ready")


def test_plain_over_tls_with_the_password_in_a_variable(kafka: SecuredKafka, copies: Any) -> None:
    pairs = (
        f"security.protocol=SASL_SSL,ssl.ca.location={kafka.authority.file},"
        "sasl.mechanism=PLAIN,sasl.username=plainuser,sasl.password=${KAFKA_PASSWORD}"
    )
    kafka.allow("plainuser", PREFIX)
    copy = copies(INGEST_KAFKA_OPTIONS=pairs, KAFKA_PASSWORD=PLAIN_PASSWORD)
    copy.start()
    moves(copy)


def test_oauthbearer_with_unsecured_tokens(kafka: SecuredKafka, copies: Any) -> None:
    """Kafka takes unsigned tokens where nothing better is set up: for development, as its documentation says."""
    wanted = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(kafka.authority.file),
        "sasl.mechanism": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": "principal=tokenuser",
    }
    kafka.allow("tokenuser", PREFIX)
    copy = copies(INGEST_KAFKA_OPTIONS=json.dumps(wanted))
    copy.start()
    moves(copy)


def test_commands_take_the_same_options(kafka: SecuredKafka, copies: Any) -> None:
    copy = copies()
    done = cli(copy, "topics")
    assert done.returncode == 0, done.stderr
    assert PREFIX + "objects" in done.stdout


def test_kafkas_own_tools_reach_it_with_a_properties_file(kafka: SecuredKafka, copies: Any, tmp_path: Path) -> None:
    copies()
    properties = tmp_path / "client.properties"
    properties.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\n"
        f"ssl.truststore.type=PEM\nssl.truststore.location={kafka.authority.file}\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="copyuser" password="{PASSWORD}";\n'
    )
    tool = kafka.stack.bin / "kafka-consumer-groups.sh"
    command = [str(tool), "--bootstrap-server", kafka.secure, "--command-config", str(properties), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


def cli(copy: Copy, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingestcore.cli.main", *arguments]
    return subprocess.run(command, env=copy.environ, capture_output=True, text=True, timeout=90, check=False)


# -- wrong from the start
def test_a_wrong_password_ends_a_service_with_one_message(kafka: SecuredKafka, copies: Any) -> None:
    copy = copies(INGEST_KAFKA_OPTIONS=json.dumps(scram(kafka, "copyuser", "not-the-password")))
    copy.start()
    copy.stopped_for_an_operator("Authentication failed", "sasl.password", "INGEST_KAFKA_OPTIONS")
    assert "not-the-password" not in copy.told()
    done = cli(copy, "topics")
    assert done.returncode == 2
    assert "Authentication failed" in done.stderr and "Traceback" not in done.stderr
    assert "not-the-password" not in done.stderr + done.stdout


def test_an_unknown_authority_ends_a_service_with_one_message(kafka: SecuredKafka, copies: Any, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other").file
    wanted = scram(kafka, "copyuser", PASSWORD) | {"ssl.ca.location": str(stranger)}
    copy = copies(INGEST_KAFKA_OPTIONS=json.dumps(wanted))
    copy.start()
    copy.stopped_for_an_operator("certificate", "ssl.ca.location")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sasl.pasword": PASSWORD}, ("sasl.pasword",)),
        ({"sasl.mechanism": "SCRAM-SHA-1"}, ("SCRAM-SHA-1",)),
        ({"ssl.ca.location": "/no/such/file"}, ("ssl.ca.location", "INGEST_KAFKA_OPTIONS")),
        ({"sasl.password": "${KAFKA_PASSWORD_NOT_SET}"}, ("sasl.password", "KAFKA_PASSWORD_NOT_SET")),
        ({"sasl.password": "${file:/no/such/secret}"}, ("sasl.password", "/no/such/secret")),
    ],
    ids=["unknown option", "unknown mechanism", "no such file", "variable not set", "secret file missing"],
)
def test_options_that_can_not_be_right_are_named(
    kafka: SecuredKafka, copies: Any, change: dict[str, str], words: tuple[str, ...]
) -> None:
    copy = copies(INGEST_KAFKA_OPTIONS=json.dumps(scram(kafka, "copyuser", PASSWORD) | change))
    copy.start()
    copy.stopped_for_an_operator(*words)
    assert PASSWORD not in copy.told()


def test_a_user_that_may_not_write_is_told_the_topic(kafka: SecuredKafka, copies: Any) -> None:
    copy = copies("readeruser")
    kafka.forbid("readeruser", AclOperation.WRITE, PREFIX + "blocks")
    copy.feed(1)
    copy.start()
    copy.stopped_for_an_operator(PREFIX + "blocks", "Topic authorization failed", "docs/security.md")
    kafka.relent("readeruser", AclOperation.WRITE, PREFIX + "blocks")
    copy.start()
    copy.drained()


def test_a_user_that_may_not_join_the_group_is_told(kafka: SecuredKafka, copies: Any) -> None:
    copy = copies()
    kafka.set_password("loneruser", PASSWORD)
    kafka.allow("loneruser", PREFIX, ResourceType.TOPIC, ResourceType.TRANSACTIONAL_ID)
    copy.environ["INGEST_KAFKA_OPTIONS"] = json.dumps(scram(kafka, "loneruser", PASSWORD))
    copy.start()
    copy.stopped_for_an_operator("authorization failed", "docs/security.md")


# -- while it runs
@pytest.mark.long
def test_a_permission_taken_away_is_waited_for(kafka: SecuredKafka, copies: Any) -> None:
    copy = copies("fickleuser")
    copy.start()
    moves(copy)
    before = copy.copied()
    kafka.forbid("fickleuser", AclOperation.WRITE, PREFIX + "blocks")
    copy.feed(20)
    copy.wait_until("waiting", PREFIX + "blocks", "Topic authorization failed")
    time.sleep(8)
    copy.wait_until("waiting", PREFIX + "blocks")
    kafka.relent("fickleuser", AclOperation.WRITE, PREFIX + "blocks")
    copy.wait_until("ready")
    copy.drained()
    assert (copy.copied() - before).total() == 20
    said = [line["reason"] for line in copy.lines("waiting")]
    assert len(said) == len(set(said)), "nothing is said twice"
    assert len(copy.lines("going on")) == 1, copy.told()
    assert "Traceback" not in copy.told()


@pytest.mark.long
def test_an_expired_certificate_is_waited_for_and_said_once(kafka: SecuredKafka, copies: Any) -> None:
    copy = copies()
    copy.start()
    moves(copy)
    before = copy.copied()
    kafka.present(expired=True)
    try:
        copy.feed(20)
        reason = copy.wait_until("waiting", "certificate")
        assert "expired" in reason and "INGEST_KAFKA_OPTIONS" in reason, reason
        time.sleep(5)
        late = copies()
        late.start()
        late.stopped_for_an_operator("certificate has expired")
    finally:
        kafka.present(expired=False)
    copy.feed(40)
    copy.drained()
    copy.wait_until("ready")
    new = copy.copied() - before
    assert new.total() == 60 and set(new.values()) == {1}, new
    said = [line["reason"] for line in copy.lines("waiting")]
    assert len([reason for reason in said if "certificate" in reason]) == 1, said
    assert "Traceback" not in copy.told()


@pytest.mark.long
def test_a_new_password_is_waited_for(kafka: SecuredKafka, copies: Any, tmp_path: Path) -> None:
    """Changed at the broker first, then written into the file: the service goes on without a restart."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    copy = copies("rotateuser", INGEST_KAFKA_OPTIONS=json.dumps(scram(kafka, "rotateuser", f"${{file:{secret}}}")))
    copy.start()
    moves(copy)
    kafka.set_password("rotateuser", "the-next-one")
    kafka.stack.restart("kafka")
    before = copy.copied()
    copy.feed(20)
    copy.wait_until("waiting", "Authentication failed")
    secret.write_text("the-next-one")
    copy.drained()
    copy.wait_until("ready")
    assert (copy.copied() - before).total() == 20
    assert "Traceback" not in copy.told() and PASSWORD not in copy.told() and "the-next-one" not in copy.told()


# -- a newer format
def test_a_newer_format_stops_its_reader_and_an_upgraded_one_goes_on(kafka: SecuredKafka, copies: Any) -> None:
    copy = copies()
    before = copy.copied()
    copy.feed(10, partition=0)
    copy.feed(1, partition=0, format="2")
    copy.feed(10, partition=0)
    copy.feed(10, partition=1)
    copy.start()
    assert copy.ends() == 3, copy.told()
    stopped = copy.lines("stopped")
    assert len(stopped) == 1, copy.told()
    said = stopped[0]["reason"]
    for word in (f"{PREFIX}objects[0]@", "format 2", "up to 1", "upgrade"):
        assert word in said, said
    copy.start("reads", "2")
    copy.drained()
    new = copy.copied() - before
    assert new.total() == 31 and set(new.values()) == {1}, new
