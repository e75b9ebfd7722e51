"""The codec of `ingest.events`: what stands in headers, what is read back, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ingestcore.messages.events import Event, day_of
from ingestcore.messages.objects import ObjectFacts

RECEIVED = "2026-01-02T23:59:59.999Z"
DAY = day_of(tenant="acme", source="shop", dataset="orders@3", received=RECEIVED, provenance={"purpose": "p"})
LEAST = Event(id="e1", source="/shop", type="t", body=b'{"a": 1 }\n', object=DAY, received=RECEIVED)
MOST = replace(
    LEAST,
    time="2026-01-01T00:00:00Z",
    content_type="application/json; charset=utf-8",
    attributes={"subject": "order/1", "myext": "x"},
    entity="Ünï",
    idempotency="k-1",
    client="192.0.2.1",
    item=3,
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)


@pytest.mark.parametrize("event", [LEAST, MOST])
def test_an_event_is_read_back_as_it_was_written(event: Event) -> None:
    assert Event.of(event.body, event.headers()) == event


def test_the_least_event_carries_no_empty_headers() -> None:
    assert all(LEAST.headers().values())
    assert {"ce_time", "entity", "client", "item"}.isdisjoint(LEAST.headers())


def test_headers_are_those_of_the_cloudevents_binding_and_ours() -> None:
    headers = MOST.headers()
    assert {name: text for name, text in headers.items() if name.startswith("ce_")} == {
        "ce_specversion": "1.0",
        "ce_id": "e1",
        "ce_source": "/shop",
        "ce_type": "t",
        "ce_time": "2026-01-01T00:00:00Z",
        "ce_subject": "order/1",
        "ce_myext": "x",
    }
    ours = {"rows": "1", "format": "1", "sources": "shop", "dataset": "orders@3", "first_seen": RECEIVED}
    assert {name: headers[name] for name in ours} == ours
    assert ObjectFacts.decode(headers["object"]) == DAY


def test_the_record_key_is_the_entity_where_there_is_one() -> None:
    assert (LEAST.key(), MOST.key()) == (b"e1", "Ünï".encode())


def test_events_of_one_day_belong_to_one_object() -> None:
    def day(**other: Any) -> ObjectFacts:
        named: dict[str, Any] = {"tenant": "acme", "source": "shop", "dataset": "orders@3", "received": RECEIVED}
        return day_of(**(named | other), provenance={})

    assert (DAY.uri, DAY.first_seen) == ("webhook://shop/2026-01-02", "2026-01-02T00:00:00Z")
    assert day(received="2026-01-02T00:00:00Z").id == day(dataset="orders@4").id == DAY.id
    others = {day(tenant="b").id, day(source="b").id, day(dataset="b@3").id, day(received="2026-01-03T00:00:00Z").id}
    assert len(others | {DAY.id}) == 5


def test_what_makes_two_deliveries_the_same_event() -> None:
    assert replace(LEAST, body=b"", received="2026-02-01T00:00:00Z", item=4).identity == LEAST.identity
    others = [replace(LEAST, id="e2"), replace(LEAST, source="/other"), replace(LEAST, idempotency="k")]
    assert len({event.identity for event in (LEAST, *others)}) == 4
    assert replace(LEAST, id="e2", idempotency="k").identity == replace(LEAST, idempotency="k").identity


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": ""}, "`ce_id`"),
        ({"source": ""}, "`ce_source`"),
        ({"type": ""}, "`ce_type`"),
        ({"received": ""}, "`first_seen`"),
        ({"received": "yesterday"}, "no moment"),
        ({"received": "2026-01-02T03:04:05+01:00"}, "no moment"),
        ({"received": "2026-13-02T03:04:05Z"}, "no moment"),
        ({"id": "a\r\nx: y"}, "control characters"),
        ({"source": "a\nb"}, "control characters"),
        ({"type": "a\x00"}, "control characters"),
        ({"id": "\ud800"}, "lone surrogates"),
        ({"idempotency": "a\nb"}, "control characters"),
        ({"client": "a\nb"}, "control characters"),
        ({"attributes": {"subject": "\x7f"}}, "control characters"),
        ({"attributes": {"Sub-ject": "x"}}, "attribute"),
        ({"attributes": {"id": "x"}}, "attribute"),
    ],
)
def test_what_can_be_no_event_is_refused_when_it_is_written(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(LEAST, **change).headers()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.pop("ce_id"), "'ce_id' is missing"),
        (lambda h: h.pop("object"), "'object' is missing"),
        (lambda h: h.pop("first_seen"), "'first_seen' is missing"),
        (lambda h: h.update(object="{}"), "not object facts"),
        (lambda h: h.update(object="[1]"), "not object facts"),
        (lambda h: h.update(object=h["object"].replace("webhook:", "s3:")), "no day of a source"),
        (lambda h: h.update(object=h["object"].replace("shop/2026-01", "shop/2026-13")), "no day of a source"),
        (lambda h: h.update(ce_specversion="0.3"), "'0.3' is not read"),
        (lambda h: h.update(ce_type=""), "`ce_type`"),
        (lambda h: h.update(item="x"), "invalid literal"),
        (lambda h: h.update({"ce_a-b": "x"}), "attribute"),
    ],
)
def test_headers_that_are_none_of_an_event_are_refused(change: Callable[[dict[str, str]], Any], words: str) -> None:
    headers = MOST.headers()
    change(headers)
    with pytest.raises(ValueError, match=words):
        Event.of(b"{}", headers)


def test_headers_nobody_knows_are_ignored() -> None:
    assert Event.of(LEAST.body, LEAST.headers() | {"colour": "red"}) == LEAST
