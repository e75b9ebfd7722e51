"""The gateway as it runs, on real Kafka and Redis: an event is answered when Kafka has it, once, and only if proven."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestcore.testing.gateway_world import SECRET, STANDARD, GatewayWorld, own_platform

pytestmark = pytest.mark.integration

SOURCES = {
    "shop": {"http": {"auth": STANDARD}, "dataset": "shop"},
    "hub": {"http": {"auth": {"scheme": "github", "secrets": ["hush"]}}},
    "open": {"http": {"auth": {"scheme": "open"}}},
    "later": {"http": {"auth": {"scheme": "standard-webhooks", "secrets": ["${NOT_SET_HERE:-}"]}}},
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


def test_a_source_without_its_secret_takes_nothing_and_says_why(world: GatewayWorld) -> None:
    reply = world.post("later", b"{}")
    assert (reply.status, reply.told["type"]) == (503, "urn:ingest:problem:not-ready")
    assert "NOT_SET_HERE" in world.service.health()["adapters"]["later"]["waiting"]


def test_sources_are_followed_live(world: GatewayWorld) -> None:
    assert world.post("new", b"{}").status == 401
    world.apply({"new": {"http": {"auth": {"scheme": "open"}}}})
    deadline = time.monotonic() + 10
    while (status := world.post("new", b'{"n": 1}').status) != 202:
        assert status in (401, 503) and time.monotonic() < deadline
        time.sleep(0.1)


def test_a_drain_takes_nothing_until_resumed(world: GatewayWorld) -> None:
    world.act("drain")
    deadline = time.monotonic() + 10
    while (reply := world.post("open", b'{"drain": 1}')).status != 503:
        assert time.monotonic() < deadline
    assert reply.told["type"] == "urn:ingest:problem:draining" and reply.headers["Retry-After"]
    world.act("resume")
    while world.post("open", b'{"drain": 1}').status != 202:
        assert time.monotonic() < deadline


def test_the_command_line_signs_and_posts(world: GatewayWorld, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text('{"from": "the command line"}')

    def send(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ingestcore.cli.main", "webhook", "send", *more, "--url", world.root]
        return subprocess.run(
            command, env=world.service.environ, capture_output=True, text=True, timeout=60, check=False
        )

    done = send("shop", str(file), "--id", "cli-1", "--no-follow")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"event_id": "cli-1", "duplicate": False}), done.stderr
    unknown = send("shp", str(file))
    assert unknown.returncode == 2 and "shop" in unknown.stderr
    file.write_text("[]")
    refused = send("shop", str(file))
    assert refused.returncode == 1 and "400" in refused.stderr and "Traceback" not in refused.stderr


def test_openapi_describes_what_runs(world: GatewayWorld) -> None:
    import urllib.request

    with urllib.request.urlopen(world.root + "/openapi.json") as answer:
        document = json.load(answer)
    assert set(document["paths"]) == {"/v1/webhooks/{source}", "/v1/webhooks/{source}/batch"}
