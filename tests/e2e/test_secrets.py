"""Known secrets in every place that takes one, wrong ones too: none of them is told anywhere."""

from __future__ import annotations

import json
import secrets
import stat
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from ingestcore.kafka.reading import read_all
from ingestcore.testing.fleet import LocalFleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROWS = 200


class Secrets:
    """Values nobody may see but the servers. `all`: by what they are."""

    def __init__(self, folder: Path, endpoints: dict[str, str]) -> None:
        self._folder = folder
        self.all = {"s3": endpoints["AWS_SECRET_ACCESS_KEY"]}

    def make(self, name: str) -> str:
        """-> a new value."""
        self.all[name] = f"hush-{name}-{secrets.token_hex(8)}"
        return self.all[name]

    def file(self, name: str, value: str) -> Path:
        path = self._folder / name
        path.write_text(value + "\n")
        return path

    def told_in(self, text: str) -> list[str]:
        """-> which of them the text holds."""
        return [name for name, value in self.all.items() if value in text]


@pytest.fixture
def hidden(tmp_path: Path, endpoints: dict[str, str]) -> Secrets:
    return Secrets(tmp_path, endpoints)


@pytest.fixture
def redis_url(endpoints: dict[str, str], hidden: Secrets) -> Iterator[str]:
    """-> an address with a user and password of its own."""
    operator = redis.Redis.from_url(endpoints["REDIS_URL"])
    password = hidden.make("redis")
    operator.execute_command("ACL", "SETUSER", "guest", "on", f">{password}", "~*", "+@all")
    place = urlsplit(endpoints["REDIS_URL"])
    yield f"redis://guest:{password}@{place.hostname}:{place.port}/0"
    operator.execute_command("ACL", "DELUSER", "guest")


def rows(first: int) -> bytes:
    return b"id,text\n" + b"".join(b"%d,t%d\n" % (n, n) for n in range(first, first + ROWS))


def said_by(fleet: LocalFleet) -> str:
    """-> everything the fleet tells: logs, health, metrics, commands, the configuration topic, dead letters."""
    parts = [path.read_text(errors="replace") for path in fleet.folder.rglob("logs/*") if path.is_file()]
    for row in fleet.processes().values():
        for path in ("/health/detailed", "/metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{row.admin_port}{path}", timeout=10) as answer:
                parts.append(answer.read().decode())
    for arguments in (["status"], ["status", "--json"], ["ledger"], ["topics"]):
        parts.append(fleet.ingest(*arguments))
    for topic in ("config", "dlq", "ledger", "objects"):
        parts += [f"{i.headers} {i.value.decode(errors='replace')}" for i in read_all(fleet.platform(), topic)]
    return "\n".join(parts)


def waits_for(fleet: LocalFleet, label: str, *words: str) -> None:
    deadline = time.monotonic() + 90
    while True:
        row = fleet.processes()[label]
        if row.state == "waiting" and all(word in row.reason for word in words):
            return
        assert time.monotonic() < deadline, row
        time.sleep(0.2)


def test_no_secret_is_told_and_wrong_ones_are_waited_for(
    make_fleet: Callable[..., LocalFleet], endpoints: dict[str, str], hidden: Secrets, redis_url: str
) -> None:
    right = endpoints["AWS_SECRET_ACCESS_KEY"]
    secret = hidden.file("s3-secret", right)
    kafka = hidden.file("kafka-password", hidden.make("kafka"))
    fleet = make_fleet(
        REDIS_URL=redis_url,
        # Not asked for by a broker without SASL, but handed to every client.
        INGEST_KAFKA_OPTIONS=json.dumps({"sasl.username": "u", "sasl.password": f"${{file:{kafka}}}"}),
        INGEST_PRODUCER_OPTIONS=f"ssl.key.password={hidden.make('key')}",
        KEY_ID=endpoints["AWS_ACCESS_KEY_ID"],
        LOG_LEVEL="DEBUG",
    )
    access: dict[str, Any] = {"access_key_id": "${KEY_ID}", "secret_access_key": f"${{file:{secret}}}"}
    source = fleet.source(route={"*": "things"})
    source["s3"] |= access
    kept = {"parquet": {"uri": f"{fleet.uri}kept/", "max_age": "1s", **access}}
    fleet.up({"sources": {fleet.name: source}, "datasets": {"things": {}}, "sinks": {"kept": kept}})
    fleet.upload("one.csv", rows(0))
    fleet.settled(1)

    secret.write_text(hidden.make("wrong"))
    waits_for(fleet, "s3-lister-0", "secret access key is wrong")
    assert hidden.told_in(said_by(fleet)) == []
    secret.write_text(right)
    fleet.upload("two.csv", rows(ROWS))
    fleet.settled(2)
    assert fleet.rows(fleet.connection(), "things").count("id").fetchone() == (2 * ROWS,)
    assert hidden.told_in(said_by(fleet)) == []

    record = fleet.folder / "fleet.json"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    fleet.down()
    logs = "\n".join(path.read_text(errors="replace") for path in fleet.folder.rglob("logs/*") if path.is_file())
    assert hidden.told_in(logs) == [] and "Traceback" not in logs
