"""Whole fleets into a real Postgres: counts, kills, an outage, an operator's reset, revisions out of order."""

from __future__ import annotations

import random
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import psutil
import psycopg
import pytest

from devstack import Stack
from ingestcore.ledger import State
from ingestcore.testing.fleet import LocalFleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

SINK = "warehouse"
HALF_OPEN_SECONDS = 6
OUTAGE_SECONDS = 22
MEMORY_BYTES = 120 << 20
"""What the sink may grow by while its database is away: twice what a transaction may hold, and some."""


class Warehouse:
    """A fleet whose rows go into Postgres, two replicas of the sink."""

    def __init__(self, fleet: LocalFleet, postgres: Stack) -> None:
        self.fleet, self.postgres = fleet, postgres
        self.objects = 0
        place = {"schema": "house", "open_after": 3, "half_open_after": HALF_OPEN_SECONDS, "batch_size": 2_000}
        self.sql("DROP SCHEMA IF EXISTS house CASCADE")
        self.sql("CREATE SCHEMA house")
        fleet.up(
            {
                "sources": {fleet.name: fleet.source(route={"v*.csv": "versions", "*": "orders"})},
                "datasets": {
                    "orders": {"primary_key": ["id"], "fields": {"id": "integer", "amount": "decimal(10,2)"}},
                    "versions": {
                        "primary_key": ["id"],
                        "revision": "revision",
                        "fields": {"id": "integer", "revision": "integer"},
                    },
                },
                "sinks": {SINK: {"postgres": place}},
            },
            "--replicas",
            f"{SINK}=2",
        )

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.endpoints.postgres, autocommit=True) as connection:
            connection.execute("SET search_path TO house")
            done = connection.execute(text)
            return done.fetchall() if done.description else []

    def upload(self, key: str, lines: list[str]) -> None:
        self.fleet.upload(key, ("\n".join(lines) + "\n").encode())
        self.objects += 1

    def orders(self, key: str, first: int, count: int) -> None:
        self.upload(key, ["id,amount", *(f"{i},{i % 90_000}.25" for i in range(first, first + count))])

    def balanced(self) -> None:
        """Every object is accounted for to the last row, in Postgres too."""
        found = self.fleet.settled(self.objects)
        assert {o.state for o in found.objects} == {State.BALANCED}, found.objects

    def published(self) -> int:
        found = self.fleet.settled(self.objects)
        return sum(o.published for o in found.objects)

    def metric(self, name: str) -> float:
        """-> its highest value of all replicas of the sink."""
        with urllib.request.urlopen(f"{self.fleet.url()}/metrics", timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith(f"{name}{{")]
        return max((float(line.rpartition(" ")[2]) for line in lines if f'stage="{SINK}"' in line), default=0.0)

    def letters(self) -> list[tuple[Any, ...]]:
        found = self.fleet.letters(self.fleet.connection(), ("id", "reason", "audience"))
        return sorted(letter for letter in found if letter[2] == SINK)


@pytest.fixture(scope="module")
def warehouse(make_fleet: Callable[..., LocalFleet], postgres: Stack) -> Warehouse:
    return Warehouse(make_fleet(POSTGRES_URL=postgres.endpoints.postgres), postgres)


def eventually(what: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.3)


def test_every_published_row_is_in_its_table(warehouse: Warehouse) -> None:
    lines = ["id,amount", *(f"{i % 9_000},{i % 9_000}.50" for i in range(10_000)), "x,1", "5,many"]
    warehouse.upload("first.csv", lines)
    warehouse.balanced()
    assert warehouse.sql("SELECT count(*), count(DISTINCT id), sum(amount - id)::text FROM orders") == [
        (9_000, 9_000, "4500.00")
    ]
    assert warehouse.published() == 9_000
    assert warehouse.sql("SELECT DISTINCT _provenance ->> 'sourceUri' FROM orders") == [
        (f"s3://{warehouse.fleet.bucket}/raw/first.csv",)
    ]


def test_kill_9_under_load_loses_and_doubles_nothing(warehouse: Warehouse) -> None:
    chance = random.Random(3)
    for number in range(4):
        warehouse.orders(f"kill-{number}.csv", 100_000 + number * 15_000, 15_000)
        time.sleep(chance.uniform(0.5, 1.5))
        label = f"{SINK}-{number % 2}"
        warehouse.fleet.await_restart(label, warehouse.fleet.kill(label))
    warehouse.balanced()
    assert warehouse.sql("SELECT count(*), count(DISTINCT id) FROM orders WHERE id >= 100000") == [(60_000, 60_000)]


def test_an_outage_under_load_opens_the_circuit_and_all_rows_land_after(warehouse: Warehouse) -> None:
    pids = [warehouse.fleet.processes()[f"{SINK}-{n}"].pid for n in (0, 1)]
    before = [psutil.Process(pid).memory_info().rss for pid in pids]
    warehouse.postgres.kill("postgres")
    begun = time.monotonic()
    grown = [0, 0]
    number = 0
    opened = False
    while time.monotonic() - begun < OUTAGE_SECONDS:
        warehouse.orders(f"outage-{number}.csv", 1_000_000 + number * 20_000, 20_000)
        number += 1
        time.sleep(1.5)
        opened = opened or warehouse.metric("ingest_circuit_open") == 1
        grown = [max(g, psutil.Process(p).memory_info().rss - b) for g, p, b in zip(grown, pids, before, strict=True)]
    assert opened and max(grown) < MEMORY_BYTES, (opened, grown)
    warehouse.postgres.restart("postgres")
    eventually(lambda: warehouse.metric("ingest_circuit_open") == 0, 3 * HALF_OPEN_SECONDS)
    warehouse.balanced()
    assert [warehouse.fleet.processes()[f"{SINK}-{n}"].pid for n in (0, 1)] == pids, "no restart"
    assert warehouse.sql("SELECT count(*), count(DISTINCT id) FROM orders WHERE id >= 1000000") == [
        (number * 20_000, number * 20_000)
    ]
    assert warehouse.letters() == []


def test_every_row_ends_at_its_highest_revision(warehouse: Warehouse) -> None:
    versions = [(i, r) for i in range(1_000) for r in range(1, 6)]
    random.Random(7).shuffle(versions)
    for number in range(5):
        part = versions[number * 1_000 : (number + 1) * 1_000]
        warehouse.upload(f"v{number}.csv", ["id,revision", *(f"{i},{r}" for i, r in part)])
        if number == 2:
            warehouse.fleet.await_restart(f"{SINK}-1", warehouse.fleet.kill(f"{SINK}-1"))
    warehouse.balanced()
    assert warehouse.sql("SELECT revision, count(*) FROM versions GROUP BY 1") == [(5, 1_000)]
    # Every row is settled; those that came after a higher one have a letter.
    found = warehouse.fleet.settled(warehouse.objects)
    tallies = [o.sinks[SINK] for o in found.objects if o.origin.dataset.startswith("versions")]
    assert sum(t.delivered + t.stale for t in tallies) == 5_000 and sum(t.stale for t in tallies) > 0
    warehouse.fleet.quiet()
    assert {reason for _, reason, _ in warehouse.letters()} == {"OLDER_REVISION"}


def test_a_reset_brings_deleted_rows_back_and_nothing_else(warehouse: Warehouse) -> None:
    fleet = warehouse.fleet
    fleet.quiet()
    letters = warehouse.letters()
    fleet.ingest("stop", SINK)
    everything = "SELECT *, xmin::text FROM {} WHERE id NOT BETWEEN 100 AND 199 ORDER BY id"
    gone = "SELECT id, amount, _row, _key FROM orders WHERE id BETWEEN 100 AND 199 ORDER BY id"
    before = [warehouse.sql(everything.format(table)) for table in ("orders", "versions")]
    missing = warehouse.sql(gone)
    warehouse.sql("DELETE FROM orders WHERE id BETWEEN 100 AND 199")
    fleet.reset(SINK, "normalized")
    fleet.ingest("start", SINK)
    fleet.quiet()
    assert warehouse.sql(gone) == missing and len(missing) == 100
    assert [warehouse.sql(everything.format(table)) for table in ("orders", "versions")] == before
    assert warehouse.letters() == letters and len(letters) == len({letter[0] for letter in letters})
    warehouse.balanced()


def test_a_row_the_database_refuses_is_a_letter_for_this_sink(warehouse: Warehouse) -> None:
    before = warehouse.letters()
    warehouse.sql("ALTER TABLE orders ADD CONSTRAINT positive CHECK (amount > 0)")
    warehouse.upload("poison.csv", ["id,amount", *(f"{i},{-1 if i % 100 == 7 else 1}" for i in range(-2_000, 0))])
    warehouse.balanced()
    warehouse.fleet.quiet()
    new = [letter for letter in warehouse.letters() if letter not in before]
    assert [reason for _, reason, _ in new] == ["CONSTRAINT_VIOLATION"] * 20
    assert warehouse.sql("SELECT count(*) FROM orders WHERE id < 0") == [(1_980,)]
    told = warehouse.fleet.letters(warehouse.fleet.connection(), ("reason", "message"))
    assert any('violates check constraint "positive"' in message for reason, message in told if "CONS" in reason)
