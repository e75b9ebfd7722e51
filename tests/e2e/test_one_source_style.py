"""The one-source style of JSON configurations, as it was written elsewhere, on servers that `ingest up` starts itself:
files and events come out in Postgres, and an event is followed from the post to its row and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingestcore.fleet.calls import answer
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import read_record
from ingestcore.stores.s3 import open_store
from ingestcore.testing.own_servers import own_servers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "one-source.json"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CSV = b"id,timestamp,note\n1,10,a\n1,10,again\n1,11,b\n2,10,c\n"
SECONDS = 120.0


class Fleet:
    """Everything embedded; `port` of the gateway is a free one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder / "fleet", [EXAMPLE, folder / "warehouse.json"]
        self.files[1].write_text(json.dumps({"sinks": {"warehouse": {"postgres": {}}}}))
        with own_servers():
            self.environ = {**os.environ, "HTTP_WEBHOOK_SECRET": SECRET, "INGEST_WEBHOOK_GATEWAY_PORT": "0"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ingestcore.cli.main", *arguments]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=300, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def ingest(self, *arguments: str) -> str:
        done = self.run(*arguments, "--dir", str(self.folder))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def reach(self) -> dict[str, str]:
        return dict(read_record(Layout.of(self.folder)).environment)

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.reach["POSTGRES_URL"], autocommit=True) as connection:
            return connection.execute(text.encode()).fetchall()

    def gateway(self) -> str:
        rows = [row for row in read_record(Layout.of(self.folder)).rows() if row.service == "webhook-gateway"]
        reply = answer(rows[0].admin_port, "/health/detailed", 10)
        assert reply is not None
        return str(reply.told()["adapters"]["http"]["url"]).partition("/v1/")[0]

    def send(self, file: Path, *more: str) -> subprocess.CompletedProcess[str]:
        return self.run("webhook", "send", "http", str(file), "--url", self.gateway(), "--dir", str(self.folder), *more)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("example"))
    fleet.ingest("up", *map(str, fleet.files), "--detach", "--port", "0")
    yield fleet
    fleet.ingest("down")


def test_validate_says_that_up_brings_a_postgres(fleet: Fleet) -> None:
    done = fleet.run("validate", *map(str, fleet.files))
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert "`ingest up` then starts a Postgres of its own" in " ".join(told.split())
    assert "HTTP_WEBHOOK_SECRET" in told


def test_files_come_out_in_postgres_once_by_the_key_fields(fleet: Fleet) -> None:
    reach = fleet.reach
    keys = reach["AWS_REGION"], None, reach["AWS_ACCESS_KEY_ID"], reach["AWS_SECRET_ACCESS_KEY"]
    open_store(reach["S3_ENDPOINT_URL"], *keys).put("intelgraph-data-lake", "raw/a.csv", CSV)
    deadline = time.monotonic() + SECONDS
    rows: list[tuple[Any, ...]] = []
    while len(rows) < 3:
        assert time.monotonic() < deadline, rows
        time.sleep(0.5)
        if fleet.sql("SELECT to_regclass('public.s3csv')") != [(None,)]:
            rows = fleet.sql("SELECT id, timestamp FROM s3csv ORDER BY 1, 2")
    assert rows == [("1", "10"), ("1", "11"), ("2", "10")]
    ((key,),) = fleet.sql("SELECT encode(_key, 'hex') FROM s3csv WHERE timestamp = '11'")
    (row,) = json.loads(fleet.ingest("trace", key, "--json"))["rows"]
    assert (row["fate"], row["uri"], row["row"]) == ("published", "s3://intelgraph-data-lake/raw/a.csv", 3)
    assert row["raw"]["data"] == "1,11,b\n" and [table["table"] for table in row["tables"]] == ["public.s3csv"]


def test_an_event_is_followed_to_its_row_and_traced_back_from_it(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    file.write_text('{"type": "order.paid", "number": 7}')
    done = fleet.send(file, "--id", "order-7", "--deadline", str(SECONDS))
    assert done.returncode == 0, done.stdout + done.stderr
    first, *steps = done.stdout.splitlines()
    assert json.loads(first) == {"event_id": "order-7", "duplicate": False}
    assert [step.split()[2] for step in steps] == ["accepted", "parsed", "published", "in"], done.stdout
    assert "public.http where _key = " in steps[-1]

    ((key, body_hash),) = fleet.sql("SELECT encode(_key, 'hex'), _provenance ->> 'contentHash' FROM http")
    for name in ("order-7", key):
        (row,) = json.loads(fleet.ingest("trace", name, "--json"))["rows"]
        assert (row["fate"], row["notes"], row["key"]) == ("published", [], key)
        assert row["event"]["id"] == "order-7" and row["raw"]["data"] == file.read_text()
        assert row["hash"]["recorded"] == body_hash
        assert [table["table"] for table in row["tables"]] == ["public.http"]
    assert "in Postgres  public.http where" in fleet.ingest("trace", "order-7")

    again = fleet.send(file, "--id", "order-7", "--deadline", str(SECONDS), "--json")
    told = json.loads(again.stdout)
    assert (again.returncode, told["answer"]["duplicate"]) == (0, True)
    assert told["events"][0]["event"] == row["event"] and told["events"][0]["tables"]
    assert fleet.sql("SELECT count(*) FROM http") == [(1,)]


def test_an_event_that_is_no_row_is_followed_to_its_dead_letter(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text('{"text": "\\u0000"}')
    done = fleet.send(file, "--id", "bad-1", "--deadline", str(SECONDS))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "dead letter" in done.stdout and "VALIDATION_FAIL by event-parser" in done.stdout
    (row,) = json.loads(fleet.ingest("trace", "bad-1", "--json"))["rows"]
    assert (row["fate"], row["why"], row["tables"]) == ("dead letter", "VALIDATION_FAIL", [])


def test_an_event_that_does_not_arrive_is_said_with_where_it_is(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "late.json"
    file.write_text('{"type": "late"}')
    fleet.ingest("stop", "warehouse")
    done = fleet.send(file, "--id", "late-1", "--deadline", "10")
    assert done.returncode == 1 and "in Postgres" not in done.stdout
    assert "late-1 was published and went no further within 10 s" in " ".join(done.stderr.split()), done.stderr
    assert "not in Postgres of sink warehouse: its group is at offset" in " ".join(done.stderr.split())
    fleet.ingest("start", "warehouse")
    done = fleet.send(file, "--id", "late-1", "--deadline", str(SECONDS))
    assert done.returncode == 0 and "in Postgres" in done.stdout, done.stdout + done.stderr
