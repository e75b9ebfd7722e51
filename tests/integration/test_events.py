"""Events on real Kafka, from the topic to the lake: written by hand with the codec, parsed, deduplicated, accounted
for, while processes are killed and an operator resets the parser."""

from __future__ import annotations

import collections
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import Producer

from ingestcore.ledger import State
from ingestcore.messages.events import Event, day_of
from ingestcore.testing.fleet import LocalFleet

pytestmark = pytest.mark.integration

DATASET = {
    "primary_key": ["id"],
    "fields": {
        "id": {"from": "payment.id", "type": "integer"},
        "amount": {"from": "payment.amount", "type": "decimal(12,2)"},
        "first": {"from": "payment.lines[0].name", "required": False},
        "event": {"from": "$event_id"},
        "body": {"from": "$", "type": "json"},
    },
}
BAD = {
    b"": "empty",
    b"[1]": "not_an_object",
    b'{"payment": {"id": 1, "id": 2}}': "duplicate_name",
    b'{"payment": {"id": NaN}}': "not_a_number",
    b'{"payment": {"id": "\\ud800"}}': "lone_surrogate",
    b'{"payment": {"id": "\\u0000"}}': "nul",
    b'{"payment":' + b"[" * 10_000 + b"]" * 10_000 + b"}": "too_deep",
    b'{"payment": {"id": 1e400, "amount": 1}}': "number_out_of_range",
    b'{"payment": {"id": "seven", "amount": 1}}': "",
    b'{"payment": {"amount": 1}}': "",
    b"\xff\x00\xfe": "not_utf8",
}
"""Bodies and their faults; "": they break the dataset's fields."""
SOURCES = ("shop", "till")
DAYS = ("2026-01-01", "2026-01-02")
GOOD = 1500


def posts(name: str) -> list[Event]:
    """Every event is posted three times, shuffled; each source has ids of its own."""
    chance = random.Random(7)
    made = []
    for number in range(GOOD + 10 * len(BAD)):
        source, day = f"{name}-{SOURCES[number % 2]}", DAYS[number // 2 % 2]
        received = f"{day}T10:{number % 60:02}:{number // 60 % 60:02}.250Z"
        payment = {"id": number, "amount": number / 4, "lines": [{"name": f"n{number}"}] * (number % 2)}
        body = json.dumps({"payment": payment}).encode()
        if number >= GOOD:
            body = list(BAD)[number % len(BAD)]
        made.append(
            Event(
                id=f"e{number // 2}",
                source=f"https://{source}.example",
                type="payment",
                body=body,
                object=day_of(tenant="default", source=source, dataset="payments@1", received=received, provenance={}),
                received=received,
                time="2025-12-31T23:59:59.5Z" if number % 3 else "",
                entity=str(number) if number % 5 else "",
                idempotency=f"key-{number}" if number % 7 == 0 else "",
                client="192.0.2.1",
            )
        )
    thrice = made * 3
    chance.shuffle(thrice)
    return thrice


def produce(fleet: LocalFleet, events: Sequence[Event]) -> None:
    producer = Producer({"bootstrap.servers": fleet.environ()["KAFKA_BOOTSTRAP_SERVERS"], "enable.idempotence": True})
    for event in events:
        headers: Any = list(event.headers().items())
        producer.produce(f"{fleet.name}.events", event.body, event.key(), headers=headers)
    assert producer.flush(30) == 0


def test_events_are_rows_once_or_dead_letters_whatever_is_killed(make_fleet: Callable[..., LocalFleet]) -> None:
    fleet = make_fleet(INGEST_EVENT_PARSER_GATHER_EVENTS="200", INGEST_COMMIT_SECONDS="0.2s")
    sources = {
        f"{fleet.name}-{name}": {"http": {"auth": {"scheme": "open"}}, "dataset": "payments"} for name in SOURCES
    }
    twice = ("--replicas", "event-parser=2", "--replicas", "webhook-gateway=0")
    fleet.up({"sources": sources, "datasets": {"payments": DATASET}}, *twice)
    events = posts(fleet.name)
    for number, part in enumerate(events[i : i + 500] for i in range(0, len(events), 500)):
        produce(fleet, part)
        if number in (2, 5):
            label = ("event-parser-0", "normalizer-0")[number > 2]
            fleet.await_restart(label, fleet.kill(label))
    fleet.quiet()
    judge(fleet, events, replayed=0)

    fleet.ingest("stop", "event-parser")
    fleet.reset("event-parser", "events")
    fleet.ingest("start", "event-parser")
    fleet.quiet()
    judge(fleet, events, replayed=len(events))
    shown = fleet.ingest("ledger")
    assert f"webhook://{fleet.name}-shop/{DAYS[0]}" in shown
    (shown,) = fleet.ingest("tap", "events", "--limit", "1").splitlines()
    assert json.loads(shown)["headers"]["ce_type"] == json.loads(shown)["value"]["type"] == "payment"


def judge(fleet: LocalFleet, events: Sequence[Event], replayed: int) -> None:
    """Rows, letters and ledger against what was posted."""
    distinct = {(e.object.source, e.identity): e for e in events}
    good = [e for e in distinct.values() if e.body not in BAD]
    bad = [e for e in distinct.values() if e.body in BAD]

    connection = fleet.connection()
    rows = fleet.rows(connection, "payments").project(
        "id, amount::varchar, first, event, body, _provenance.sourceType, _provenance.sourceId, "
        "_provenance.contentHash, _provenance.ingestedAt, _provenance.observedAt"
    )
    wanted = []
    for event in good:
        payment = json.loads(event.body)["payment"]
        first = payment["lines"][0]["name"] if payment["lines"] else None
        observed = event.time and "2025-12-31T23:59:59.500000Z"
        content_hash = hashlib.sha256(event.body).hexdigest()
        row = (payment["id"], f"{payment['amount']:.2f}", first, event.id, json.loads(event.body), "HTTP")
        wanted.append((*row, event.object.source, content_hash, event.received, observed or None))
    found = [(*row[:4], json.loads(row[4]), *row[5:]) for row in rows.fetchall()]
    assert len(found) == len(wanted) == GOOD
    assert sorted(found, key=lambda row: row[0]) == sorted(wanted, key=lambda row: row[0])

    letters = fleet.letters(connection, ("source", "raw", "reason", "stage", "facts"))
    told = collections.Counter((s, bytes(raw), json.loads(facts)["event_id"]) for s, raw, _, _, facts in letters)
    assert told == collections.Counter((e.object.source, e.body, e.id) for e in bad)
    for _, raw, reason, stage, facts in letters:
        assert stage == "event-parser"
        assert reason == ("SCHEMA_DRIFT" if bytes(raw) == b'{"payment": {"amount": 1}}' else "VALIDATION_FAIL")
        assert json.loads(facts).get("fault", "") == BAD[bytes(raw)]
        assert json.loads(json.loads(facts)["headers"])["ce_type"] == "payment"

    by_day = {o.origin.uri: o for o in fleet.settled(4).objects}
    assert set(by_day) == {e.object.uri for e in events}
    for uri, account in by_day.items():
        posted = [e for e in events if e.object.uri == uri]
        assert account.state is State.BALANCED, account
        assert account.read == len(posted)
        assert account.dead == sum(e.body in BAD for e in posted)
        assert account.published == sum(e.object.uri == uri for e in good) == account.sinks["lake"].delivered
        assert account.read == account.published + account.duplicates + account.dead
        assert (account.replayed > 0) is (replayed > 0)
    assert sum(account.read for account in by_day.values()) == len(events)
