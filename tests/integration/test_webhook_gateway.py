"""The gateway as it runs, on real Kafka and Redis: an event is answered when Kafka has it, once, and only if proven."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ingestcore.testing.gateway_world import SECRET, STANDARD, GatewayWorld, own_platform

pytestmark = pytest.mark.integration

SOURCES = {
    "shop": {"http": {"auth": STANDARD}, "dataset": "shop"},
    "hub": {"http": {"auth": {"scheme": "github", "secrets": ["hush"]}}},
    "open": {"http": {"auth": {"scheme": "open"}, "rate_limit": {"max_per_second": 1, "burst_size": 3}}},
}


@pytest.fixture(scope="module")
def world(endpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayWorld]:
    folder = tmp_path_factory.mktemp("gateway")
    world = GatewayWorld(own_platform(folder), folder, SOURCES)
    world.start()
    yield world
    world.stop()


def test_a_signed_event_is_stored_untouched_and_a_repeat_is_told_so(world: GatewayWorld) -> None:
    body = b'{"type": "order.created",  "id": 7}'
    first = world.send("shop", body, "evt-1")
    assert (first.status, first.told) == (202, {"event_id": "evt-1", "duplicate": False}), first.body
    again = world.send("shop", body, "evt-1")
    assert (again.status, again.told) == (202, {"event_id": "evt-1", "duplicate": True})
    assert again.headers["Idempotent-Replayed"] == "true"
    (event,) = [event for event in world.events() if event.id == "evt-1"]
    assert (event.body, event.type, event.object.source) == (body, "order.created", "shop")
    assert (event.object.dataset, event.client) == ("shop@1", "127.0.0.1")


def test_an_unknown_source_and_a_wrong_signature_have_the_same_answer(world: GatewayWorld) -> None:
    body = b'{"a": 1}'
    wrong = {**world.signed("shop", body, "evt-2"), "webhook-signature": "v1,AAAA"}
    replies = [world.post("shop", body, wrong), world.post("nobody", body, wrong), world.post("shop", body)]
    assert {(reply.status, reply.body) for reply in replies} == {(401, replies[0].body)}
    assert replies[0].headers["Content-Type"] == "application/problem+json"
    assert SECRET not in world.service.told()
    assert "evt-2" not in {event.id for event in world.events()}
    assert 'ingest_webhook_signature_failures_total{cause="wrong",source="shop"}' in world.metrics()


def test_openapi_describes_what_runs(world: GatewayWorld) -> None:
    import urllib.request

    with urllib.request.urlopen(world.root + "/openapi.json") as answer:
        document = json.load(answer)
    assert set(document["paths"]) == {"/v1/webhooks/{source}", "/v1/webhooks/{source}/batch"}
