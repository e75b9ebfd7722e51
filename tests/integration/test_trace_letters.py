"""Dead letters of events are traced for as long as they are kept: in their topic, then in the lake."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer, TopicPartition

from devstack import Stack
from ingestcore.kafka import admin
from ingestcore.messages.events import Event, day_of
from ingestcore.testing.fleet import LocalFleet

pytestmark = pytest.mark.integration

SCHEMA = "trace_letters"
DATASET = {"fields": {"n": "integer"}}
BODIES = {"good-1": b'{"n": 1}', "bad-1": b'{"n": "one"}', "refused-1": b'{"n": 1000}'}


def event(fleet: LocalFleet, id: str) -> Event:
    received = "2026-01-02T10:00:00.250Z"
    day = day_of(tenant="default", source=fleet.name, dataset="items@1", received=received, provenance={})
    return Event(
        id=id,
        source="https://till.example",
        type="item",
        body=BODIES[id],
        object=day,
        received=received,
        client="192.0.2.1",
    )


def produce(fleet: LocalFleet, id: str) -> None:
    producer = Producer({"bootstrap.servers": fleet.environ()["KAFKA_BOOTSTRAP_SERVERS"]})
    made = event(fleet, id)
    headers: Any = list(made.headers().items())
    producer.produce(f"{fleet.name}.events", made.body, made.key(), headers=headers)
    assert producer.flush(30) == 0
    fleet.quiet()


def traced(fleet: LocalFleet, name: str) -> dict[str, Any]:
    (row,) = json.loads(fleet.ingest("trace", name, "--json"))["rows"]
    return dict(row)


def forget(fleet: LocalFleet, *topics: str) -> None:
    """As retention does."""
    client, states = admin.open_admin(fleet.platform()), admin.describe(fleet.platform())
    for topic in topics:
        ends = [TopicPartition(states[topic].name, p, -1) for p in range(states[topic].partitions)]
        for future in client.delete_records(ends).values():
            future.result(20)


@pytest.fixture(scope="module")
def fleet(make_fleet: Callable[..., LocalFleet], postgres: Stack) -> LocalFleet:
    """One event became a row, one is none, one's row is refused by Postgres."""
    url = postgres.endpoints.postgres
    fleet = make_fleet(POSTGRES_URL=url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE".encode())
        connection.execute(f"CREATE SCHEMA {SCHEMA}".encode())
        config = {
            "sources": {fleet.name: {"http": {"auth": {"scheme": "open"}}, "dataset": "items"}},
            "datasets": {"items": DATASET},
            "sinks": {"warehouse": {"postgres": {"schema": SCHEMA}}},
        }
        fleet.up(config, "--replicas", "webhook-gateway=0")
        produce(fleet, "good-1")
        connection.execute(f"ALTER TABLE {SCHEMA}.items ADD CHECK (n < 1000)".encode())
    for id in ("bad-1", "refused-1"):
        produce(fleet, id)
    return fleet


def test_from_their_topic_from_the_lake_and_when_the_event_is_forgotten_too(fleet: LocalFleet) -> None:
    bad, refused = traced(fleet, "bad-1"), traced(fleet, "refused-1")
    assert (bad["fate"], bad["why"]) == ("dead letter", "VALIDATION_FAIL")
    (by_parser,), (by_sink,) = bad["letters"], refused["letters"]
    assert (by_sink["reason"], by_sink["stage"]) == ("CONSTRAINT_VIOLATION", "postgres-sink")
    assert {"partition", "offset"} <= by_parser.keys() & by_sink.keys()

    forget(fleet, "dlq")
    for name, before in (("bad-1", bad), ("refused-1", refused), (refused["key"], refused)):
        row = traced(fleet, name)
        ((letter,), (known,)) = row["letters"], before["letters"]
        assert letter.pop("file").startswith(f"{fleet.uri}dlq/tenant=default/")
        assert letter.items() <= known.items() and len(letter) == 4
        assert (row["fate"], row["why"], row["event"]) == (before["fate"], before["why"], before["event"])
    assert traced(fleet, "good-1")["letters"] == []

    forget(fleet, "events", "typed", "normalized")
    row = traced(fleet, "bad-1")
    assert (row["fate"], row["why"], row["uri"]) == ("dead letter", "VALIDATION_FAIL", bad["uri"])
    assert (row["event"], row["raw"]["data"]) == (bad["event"], BODIES["bad-1"].decode())
    assert row["letters"][0]["id"] == by_parser["id"] and "retention has removed the event" in row["notes"][0]
    row = traced(fleet, refused["key"])
    assert (row["fate"], row["why"]) == ("published", "and refused by sink warehouse")
    assert (row["letters"][0]["id"], row["key"], row["uri"]) == (by_sink["id"], refused["key"], refused["uri"])
    assert "by postgres-sink" in fleet.ingest("trace", refused["key"])
    done = fleet.ran("trace", "nobody-1")
    assert done.returncode == 2 and "retention has removed the beginning of events" in " ".join(done.stderr.split())
