"""Whole fleets into a real Postgres: counts, kills, an outage, revisions out of order."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from devstack import Stack
from ingestcore.ledger import State
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.warehouse import Memory, Warehouse, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

SINK = "warehouse"
HALF_OPEN_SECONDS = 6
OUTAGE_SECONDS = 22
MEMORY_BYTES = 120 << 20
"""What the sink may grow by while its database is away: twice what a transaction may hold, and some."""


class House:
    """A fleet whose rows go into Postgres, two replicas of the sink."""

    def __init__(self, fleet: LocalFleet, postgres: Stack) -> None:
        self.fleet, self.postgres = fleet, postgres
        self.objects = 0
        self.warehouse = Warehouse(fleet, postgres, SINK, "house")
        self.sql, self.metric, self.letters = self.warehouse.sql, self.warehouse.metric, self.warehouse.letters
        place = {"schema": "house", "open_after": 3, "half_open_after": HALF_OPEN_SECONDS, "batch_size": 2_000}
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


@pytest.fixture(scope="module")
def house(make_fleet: Callable[..., LocalFleet], postgres: Stack) -> House:
    return House(make_fleet(POSTGRES_URL=postgres.endpoints.postgres), postgres)


def test_every_published_row_is_in_its_table(house: House) -> None:
    lines = ["id,amount", *(f"{i % 9_000},{i % 9_000}.50" for i in range(10_000)), "x,1", "5,many"]
    house.upload("first.csv", lines)
    house.balanced()
    assert house.sql("SELECT count(*), count(DISTINCT id), sum(amount - id)::text FROM orders") == [
        (9_000, 9_000, "4500.00")
    ]
    assert house.published() == 9_000
    assert house.sql("SELECT DISTINCT _provenance ->> 'sourceUri' FROM orders") == [
        (f"s3://{house.fleet.bucket}/raw/first.csv",)
    ]


def test_kill_9_under_load_loses_and_doubles_nothing(house: House) -> None:
    chance = random.Random(3)
    for number in range(4):
        house.orders(f"kill-{number}.csv", 100_000 + number * 15_000, 15_000)
        time.sleep(chance.uniform(0.5, 1.5))
        label = f"{SINK}-{number % 2}"
        house.fleet.await_restart(label, house.fleet.kill(label))
    house.balanced()
    assert house.sql("SELECT count(*), count(DISTINCT id) FROM orders WHERE id >= 100000") == [(60_000, 60_000)]


def test_an_outage_under_load_opens_the_circuit_and_all_rows_land_after(house: House) -> None:
    memory = Memory(house.fleet, [f"{SINK}-{n}" for n in (0, 1)])
    house.postgres.kill("postgres")
    begun = time.monotonic()
    number = 0
    opened = False
    while time.monotonic() - begun < OUTAGE_SECONDS:
        house.orders(f"outage-{number}.csv", 1_000_000 + number * 20_000, 20_000)
        number += 1
        time.sleep(1.5)
        opened = opened or house.metric("ingest_circuit_open") == 1
        memory.look()
    assert opened and max(memory.grown.values()) < MEMORY_BYTES, (opened, memory.grown)
    house.postgres.restart("postgres")
    eventually(lambda: house.metric("ingest_circuit_open") == 0, 3 * HALF_OPEN_SECONDS)
    house.balanced()
    rows = house.fleet.processes()
    assert {label: rows[label].pid for label in memory.pids} == memory.pids, "no restart"
    assert house.sql("SELECT count(*), count(DISTINCT id) FROM orders WHERE id >= 1000000") == [
        (number * 20_000, number * 20_000)
    ]
    assert house.letters() == []


def test_every_row_ends_at_its_highest_revision(house: House) -> None:
    versions = [(i, r) for i in range(1_000) for r in range(1, 6)]
    random.Random(7).shuffle(versions)
    for number in range(5):
        part = versions[number * 1_000 : (number + 1) * 1_000]
        house.upload(f"v{number}.csv", ["id,revision", *(f"{i},{r}" for i, r in part)])
        if number == 2:
            house.fleet.await_restart(f"{SINK}-1", house.fleet.kill(f"{SINK}-1"))
    house.balanced()
    assert house.sql("SELECT revision, count(*) FROM versions GROUP BY 1") == [(5, 1_000)]
    # Every row is settled; those that came after a higher one have a letter.
    found = house.fleet.settled(house.objects)
    tallies = [o.sinks[SINK] for o in found.objects if o.origin.dataset.startswith("versions")]
    assert sum(t.delivered + t.stale for t in tallies) == 5_000 and sum(t.stale for t in tallies) > 0
    house.fleet.quiet()
    assert {reason for _, reason, _ in house.letters()} == {"OLDER_REVISION"}


def test_a_row_the_database_refuses_is_a_letter_for_this_sink(house: House) -> None:
    before = house.letters()
    house.sql("ALTER TABLE orders ADD CONSTRAINT positive CHECK (amount > 0)")
    house.upload("poison.csv", ["id,amount", *(f"{i},{-1 if i % 100 == 7 else 1}" for i in range(-2_000, 0))])
    house.balanced()
    house.fleet.quiet()
    new = [letter for letter in house.letters() if letter not in before]
    assert [reason for _, reason, _ in new] == ["CONSTRAINT_VIOLATION"] * 20
    assert house.sql("SELECT count(*) FROM orders WHERE id < 0") == [(1_980,)]
    told = house.fleet.letters(house.fleet.connection(), ("reason", "message"))
    assert any('violates check constraint "positive"' in message for reason, message in told if "CONS" in reason)
