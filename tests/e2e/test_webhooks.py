"""Webhooks from the gateway to Postgres on a whole fleet: kills, a thousand at once, revisions, an outage, a reset.
Longer forms: tests/faults/test_webhooks.py."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

import devstack
from devstack import Stack
from ingestcore.testing.events_world import GATEWAY, SINK, VERSIONS, EventsWorld
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.own_servers import own_servers
from ingestcore.testing.warehouse import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

HALF_OPEN_SECONDS = 3
OUTAGE_SECONDS = 12.0
OUTAGE_EVENTS = 3_000
MEMORY_BYTES = 120 << 20
"""What a process may grow by while the database is away: twice what a transaction may hold, and some."""
PRODUCERS = 5
REVISIONS = 5
ENTITIES = 1_000


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """-> a Redis that may be killed."""
    with own_servers(), devstack.start(tmp_path_factory.mktemp("redis"), servers=["redis"]) as stack:
        yield stack


@pytest.fixture(scope="module")
def world(make_fleet: Callable[..., LocalFleet], postgres: Stack, redis: Stack) -> EventsWorld:
    settings = {
        "POSTGRES_URL": postgres.endpoints.postgres,
        "REDIS_URL": redis.endpoints.redis,
        "INGEST_WEBHOOK_GATEWAY_RETRY_AFTER_SECONDS": "1",
        # On a busy machine a thousand wait long for the first of them.
        "INGEST_WEBHOOK_GATEWAY_WAIT_SECONDS": "30",
    }
    return EventsWorld(
        make_fleet(**settings),
        postgres,
        replicas={"normalizer": 3, SINK: 2},
        place={"open_after": 3, "half_open_after": HALF_OPEN_SECONDS},
    )


def test_every_event_posted_three_times_under_kills_is_there_once(world: EventsWorld, redis: Stack) -> None:
    draw = random.Random(11)
    posts = [world.payment(number) for number in range(600)] * 3
    draw.shuffle(posts)
    with world.posting(posts, clients=50) as producers:
        producers.let_go(600)
        killed = [(label, world.kill(label)) for label in (f"{GATEWAY}-0", "event-parser-0")]
        producers.let_go(600)
        redis.kill("redis")
        world.warehouse.postgres.kill("postgres")
        killed.append(("normalizer-1", world.kill("normalizer-1")))
        producers.let_go(300)
        redis.restart("redis")
        world.warehouse.postgres.restart("postgres")
        for label, pid in killed:
            world.fleet.await_restart(label, pid)
        told = producers.finish()
    assert told.accepted.keys() == {post.id for post in posts}
    world.check_payments(posts, told)
    world.check_deaths()


def test_one_event_posted_a_thousand_times_at_once_is_one_row(world: EventsWorld) -> None:
    post = world.payment(1_000_000)
    with world.posting([post] * 1_000, clients=1_000) as producers:
        told = producers.finish()
    assert told.statuses == Counter({202: 1_000})
    world.fleet.quiet()
    assert world.warehouse.sql("SELECT event, n FROM payments WHERE n >= 1000000") == [("evt-1000000", 1_000_000)]


def test_every_entity_ends_at_its_highest_revision(world: EventsWorld) -> None:
    draw = random.Random(5)
    posts = [world.version(id, revision) for id in range(ENTITIES) for revision in range(1, REVISIONS + 1)]
    draw.shuffle(posts)
    with world.posting(posts, clients=PRODUCERS) as producers:
        producers.let_go(len(posts) // 2)
        killed = [(label, world.kill(label)) for label in ("normalizer-0", f"{SINK}-1")]
        told = producers.finish()
    assert not told.final and told.accepted.keys() == {post.id for post in posts}
    for label, pid in killed:
        world.fleet.await_restart(label, pid)
    days = world.balanced(VERSIONS)
    assert world.warehouse.sql("SELECT revision, count(*) FROM versions GROUP BY 1") == [(REVISIONS, ENTITIES)]
    tallies = [day.sinks[SINK] for day in days]
    assert sum(tally.delivered + tally.stale for tally in tallies) == ENTITIES * REVISIONS
    late = len(world.late())
    assert sum(tally.stale for tally in tallies) >= late > 0, "whoever was late is stale"
    assert world.warehouse.metric("ingest_records_total", 'fate="stale"') > 0
    world.check_letters()
    world.check_deaths()


def test_an_outage_of_postgres_opens_the_circuit_and_all_rows_land_after(world: EventsWorld) -> None:
    posts = [world.payment(number) for number in range(2_000_000, 2_000_000 + OUTAGE_EVENTS)]
    found = world.outage(posts, OUTAGE_SECONDS)
    assert found.opened and not found.told.final
    assert found.told.statuses[202] == OUTAGE_EVENTS
    assert max(found.memory.grown.values()) < MEMORY_BYTES, found.memory.grown
    eventually(lambda: world.warehouse.metric("ingest_circuit_open") == 0, 20 * HALF_OPEN_SECONDS)
    world.fleet.quiet()
    landed = world.warehouse.sql("SELECT count(*), count(DISTINCT event) FROM payments WHERE n >= 2000000")
    assert landed == [(OUTAGE_EVENTS, OUTAGE_EVENTS)]
    rows, pids = world.fleet.processes(), found.memory.pids
    assert {label: rows[label].pid for label in pids} == pids, "no process was started again"


def test_a_reset_brings_deleted_rows_back_and_nothing_else(world: EventsWorld) -> None:
    fleet, sql, first = world.fleet, world.warehouse.sql, 5_000_000
    ours = range(first, first + 200)
    posts = [world.payment(number) for number in ours]
    posts += [world.version(id, revision) for id in ours for revision in range(1, REVISIONS + 1)]
    random.Random(7).shuffle(posts)
    with world.posting(posts, clients=PRODUCERS) as producers:
        assert producers.finish().accepted.keys() == {post.id for post in posts}
    fleet.quiet()
    letters = world.warehouse.letters()
    fleet.ingest("stop", SINK)
    deleted = {"payments": f"n BETWEEN {first} AND {first + 99}", "versions": f"id BETWEEN {first} AND {first + 99}"}
    columns = {"payments": "event, n, amount, _key", "versions": "id, revision, _key"}
    kept = {
        table: f"SELECT *, xmin::text FROM {table} WHERE NOT {gone} ORDER BY _key" for table, gone in deleted.items()
    }
    gone = {
        table: f"SELECT {columns[table]} FROM {table} WHERE {where} ORDER BY _key" for table, where in deleted.items()
    }
    before = {table: (sql(kept[table]), sql(gone[table])) for table in deleted}
    for table, where in deleted.items():
        sql(f"DELETE FROM {table} WHERE {where}")
    fleet.reset(SINK, "normalized")
    fleet.ingest("start", SINK)
    fleet.quiet()
    assert {table: (sql(kept[table]), sql(gone[table])) for table in deleted} == before
    assert {table: len(rows) for table, (_, rows) in before.items()} == dict.fromkeys(deleted, 100)
    assert world.warehouse.letters() == letters and len(letters) == len({letter[0] for letter in letters})
    world.balanced(VERSIONS)
    world.check_letters()
