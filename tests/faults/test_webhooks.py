"""Webhooks into Postgres under random kills, and through a minute without Postgres. Short forms: tests/e2e."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devstack import seaweedfs
from devstack.commands import write_commands
from ingestcore.testing.events_world import GATEWAY, SINK, EventsWorld
from ingestcore.testing.faults.event_kills import EVENT_FAULTS
from ingestcore.testing.faults.gauntlet import drawn
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.warehouse import eventually

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(1800)]

EVENTS = 10_000
IN_BATCHES = 1_000
"""Of these events, by BATCH."""
BATCH = 20
TIMES = 3
CLIENTS = 50
SLICE_SECONDS = 8.0
"""In which a fault's share of the posts is sent, so that there is load also while it is got over."""
LONGEST_PAUSE_SECONDS = 3.0
OUTAGE_SECONDS = 60.0
OUTAGE_EVENTS = 20_000
HALF_OPEN_SECONDS = 30
MEMORY_BYTES = 64 << 20
"""What a process may grow by in the minute without a database."""
SETTINGS = {
    "INGEST_WEBHOOK_GATEWAY_ACK_SECONDS": "3",
    "INGEST_WEBHOOK_GATEWAY_RETRY_AFTER_SECONDS": "1",
    "INGEST_SESSION_TIMEOUT_MS": "3000",
    "INGEST_TRANSACTION_TIMEOUT_MS": "5000",
    "INGEST_PARTITIONS": "4",
}
TWICE = {GATEWAY: 2, "event-parser": 2, "normalizer": 2, SINK: 2}


@pytest.fixture
def world(servers, folder: Path) -> Iterator[EventsWorld]:  # type: ignore[no-untyped-def]
    write_commands(folder, servers.stack.endpoints)
    with ExitStack() as stack:
        fleet = LocalFleet(
            folder / "ingest",
            f"events-{time.time_ns() % 10**8}",
            # Past the proxy before S3: while DuckDB waits this process's threads stand still, the proxy's among them.
            {**servers.stack.endpoints.environ(), **SETTINGS},
            folder / "bin",
            lambda bucket: seaweedfs.create_bucket(servers.stack.endpoints.as_dict(), bucket),
        )
        stack.callback(fleet.down)
        yield EventsWorld(fleet, servers.stack, replicas=TWICE, place={"half_open_after": HALF_OPEN_SECONDS})


def test_events_posted_three_times_under_random_kills(
    world: EventsWorld,
    servers,  # type: ignore[no-untyped-def]
    request: pytest.FixtureRequest,
    say: Callable[[str], None],
) -> None:
    option = request.config.getoption
    given, only, count = option("--fault-seed"), option("--fault-only"), option("--fault-count")
    seed = time.time_ns() % 10**6 if given is None else int(given)
    again = f"pytest {request.node.nodeid.partition('::')[0]} -m long -k random_kills --fault-seed {seed}"
    say(f"\nseed {seed}; again: {again}")
    faults = [fault for fault in EVENT_FAULTS if not only or fault.name in only.split(",")]
    count = count or 2 * len(faults)
    draw = random.Random(seed)
    posts = [world.payment(number) for number in range(EVENTS - IN_BATCHES)]
    posts += [world.payments(first, BATCH) for first in range(EVENTS - IN_BATCHES, EVENTS, BATCH)]
    posts *= TIMES
    draw.shuffle(posts)
    began = time.monotonic()
    with world.posting(posts, clients=CLIENTS, seed=seed) as producers:
        for number, fault in zip(range(1, count + 1), drawn(faults, seed), strict=False):
            producers.let_go(-(-len(posts) // count), SLICE_SECONDS)
            time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
            done = fault.strike(world, servers.stack, random.Random(f"{seed} {number}"))
            say(f"{number:3}/{count} {fault.name}: {done}; answers so far {dict(producers.told.statuses)}")
        told = producers.finish()
    seconds = time.monotonic() - began
    assert told.accepted.keys() == {event for post in posts for event in post.events}, again
    assert min(told.accepted.values()) >= TIMES, again
    try:
        days = world.check_payments(posts, told)
    except AssertionError as failure:
        failure.add_note(f"seed {seed}; again: {again}")
        raise
    read, published = sum(day.read for day in days), sum(day.published for day in days)
    say(
        f"    whole: {len(posts)} posts in {seconds:.0f} s, answers {dict(told.statuses)}, {told.duplicates} told as "
        f"repeats; {read} events in Kafka, {published} rows in Postgres and in the lake"
    )
    assert published == EVENTS
    world.check_deaths()


def test_a_minute_without_postgres(world: EventsWorld, say: Callable[[str], None]) -> None:
    posts = [world.payment(number) for number in range(OUTAGE_EVENTS)]
    with world.posting(posts[:2_000], clients=CLIENTS) as producers:
        producers.finish()
    world.fleet.quiet()
    found = world.outage(posts, OUTAGE_SECONDS, CLIENTS)
    grown = {label: f"{nbytes >> 20} MiB" for label, nbytes in found.memory.grown.items()}
    say(f"\n    away for {found.seconds:.0f} s: answers {dict(found.told.statuses)}; grown by {grown}")
    assert found.opened
    assert set(found.told.statuses) == {202}, "producers do not feel it"
    assert max(found.memory.grown.values()) < MEMORY_BYTES, grown
    eventually(lambda: world.warehouse.metric("ingest_circuit_open") == 0, 3 * HALF_OPEN_SECONDS)
    world.check_payments(posts, found.told)
    assert world.warehouse.sql("SELECT count(*) FROM payments") == [(OUTAGE_EVENTS,)]
    world.check_deaths()
