"""What makes two posts the same event."""

from __future__ import annotations

from typing import Any

import pytest

from ingestcore.datasets.http_source import Scheme
from services.webhook_gateway.cloud_events import Attributes
from services.webhook_gateway.problems import Kind, Problem
from services.webhook_gateway.stage import Identity, Names, type_in_headers, type_of

BODY = b'{"id": "evt_1", "event_id": "Ev1", "type": "paid"}'
EVENT = {"id": "evt_1", "event_id": "Ev1", "type": "paid"}


def of(scheme: Scheme, headers: dict[bytes, bytes] | None = None, body: bytes = BODY, **more: Any) -> Identity:
    return Names("t", "s", scheme, headers or {}).of(EVENT, body, more.get("cloud"), more.get("item", 0))


KEY = {b"idempotency-key": b"k1"}


@pytest.mark.parametrize(
    ("scheme", "headers", "first"),
    [
        (Scheme.STANDARD_WEBHOOKS, {b"webhook-id": b"m1"}, "id:m1"),
        (Scheme.STANDARD_WEBHOOKS, {b"webhook-id": b"m1", **KEY}, "key:k1"),
        (Scheme.STRIPE, {}, "id:evt_1"),
        (Scheme.SLACK, {}, "id:Ev1"),
        (Scheme.GITHUB, {b"x-github-delivery": b"d1"}, "id:d1"),
        (Scheme.SHOPIFY, {b"x-shopify-webhook-id": b"w1"}, "id:w1"),
        (Scheme.HMAC, {}, "sha256:"),
        (Scheme.OPEN, {}, "sha256:"),
        (Scheme.OPEN, KEY, "key:k1"),
        (Scheme.BEARER, {b"idempotency-key": b'"quoted one"'}, "key:"),
    ],
)
def test_the_key_is_the_header_else_the_schemes_id_else_the_bodys_hash(
    scheme: Scheme, headers: dict[bytes, bytes], first: str
) -> None:
    assert of(scheme, headers).keys[0].startswith(first)


def test_a_cloud_event_is_known_by_source_and_id() -> None:
    cloud = Attributes("7", "/shop", "order")
    found = of(Scheme.OPEN, cloud=cloud)
    assert found.keys == of(Scheme.OPEN, body=b"{}", cloud=cloud).keys
    assert found.event_id == "7"
    assert found.keys != of(Scheme.OPEN, cloud=Attributes("7", "/other", "order")).keys


@pytest.mark.parametrize("scheme", [Scheme.GITHUB, Scheme.SHOPIFY, Scheme.HMAC])
def test_a_captured_body_can_not_come_again_under_another_id(scheme: Scheme) -> None:
    ids = {b"x-github-delivery": b"d%d", b"x-shopify-webhook-id": b"d%d", b"idempotency-key": b"d%d"}
    first, second = (of(scheme, {name: value % n for name, value in ids.items()}) for n in (1, 2))
    assert first.keys[0] != second.keys[0]
    assert first.keys[1] == second.keys[1] and first.identity == second.identity


def test_a_signed_id_can_not_be_evaded_by_a_header() -> None:
    signed = {b"webhook-id": b"m1"}
    assert of(Scheme.STANDARD_WEBHOOKS, signed).identity == of(Scheme.STANDARD_WEBHOOKS, {**signed, **KEY}).identity


def test_the_same_event_has_the_same_id_in_every_process_and_another_source_another() -> None:
    assert of(Scheme.OPEN, KEY) == of(Scheme.OPEN, KEY)
    other = Names("t", "s2", Scheme.OPEN, KEY).of(EVENT, BODY)
    assert other.event_id != of(Scheme.OPEN, KEY).event_id


def test_items_of_a_batch_are_told_apart() -> None:
    signed = {b"webhook-id": b"m1"}
    names = {of(Scheme.STANDARD_WEBHOOKS, signed, item=n).event_id for n in (1, 2, 3)}
    assert names == {"m1:1", "m1:2", "m1:3"}


@pytest.mark.parametrize("value", [b"", b'""', b" ", b"a\tb", b"a\r\nb", b"\xc3\xbc", b"x" * 256, b"a\x00b"])
def test_ids_that_are_refused(value: bytes) -> None:
    with pytest.raises(Problem) as raised:
        of(Scheme.OPEN, {b"idempotency-key": value})
    assert raised.value.kind is Kind.BAD_KEY


def test_keys_are_fit_for_redis_and_headers() -> None:
    found = of(Scheme.OPEN, cloud=Attributes("ü " * 200, "/shop", "order"))
    assert all(claim.isascii() and len(claim) < 220 and " " not in claim for claim in (*found.keys, found.identity))


def test_the_type_of_an_event() -> None:
    assert type_in_headers(Scheme.GITHUB, {b"x-github-event": b"push"}) == "com.github.push"
    assert (
        type_in_headers(Scheme.GITHUB, {}) == type_in_headers(Scheme.GITHUB, {b"x-github-event": b"a b"}) == "webhook"
    )
    assert type_in_headers(Scheme.STRIPE, {}) is None
    assert type_of(EVENT) == "paid"
    assert type_of({"type": "a b"}) == type_of({}) == "webhook"
