"""Bad input over the wire: the documented status, a problem document, no traceback, no event stored or exactly one."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
from collections.abc import Iterator

import pytest

from ingestcore.testing.gateway_world import STANDARD, GatewayWorld, own_platform

pytestmark = pytest.mark.integration

BODY = b'{"type": "t", "n": 1}'
SOURCES = {
    "shop": {"http": {"auth": STANDARD}},
    "open": {"http": {"auth": {"scheme": "open"}}},
    "hub": {"http": {"auth": {"scheme": "github", "secrets": ["hush"]}, "challenge": {}}},
    "slow": {"http": {"auth": {"scheme": "open"}, "rate_limit": {"max_per_second": 0.5, "burst_size": 3}}},
    "twice": {"http": {"auth": {"scheme": "open"}, "idempotency": {"enabled": False}}},
}


@pytest.fixture(scope="module")
def world(endpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayWorld]:
    folder = tmp_path_factory.mktemp("gateway")
    environ = {"INGEST_WEBHOOK_GATEWAY_HEADER_SECONDS": "1", "INGEST_WEBHOOK_GATEWAY_BODY_SECONDS": "1"}
    world = GatewayWorld(own_platform(folder), folder, SOURCES, **environ)
    world.start()
    yield world
    world.stop()
    assert "Traceback" not in world.service.told()


def stored(world: GatewayWorld, source: str) -> list[bytes]:
    return [event.body for event in world.events() if event.object.source == source]


def raw(world: GatewayWorld, *parts: bytes, pause: float = 0.0, close: bool = False) -> bytes:
    """Send bytes as they are. -> what comes back until the server closes or says nothing for 3 s."""
    with socket.create_connection(("127.0.0.1", world.port()), timeout=3) as made:
        for part in parts:
            made.sendall(part)
            time.sleep(pause)
        if close:
            made.shutdown(socket.SHUT_WR)
        told = b""
        try:
            while piece := made.recv(65536):
                told += piece
                if told.partition(b"\r\n\r\n")[2].endswith(b"}"):
                    break
        except TimeoutError:
            pass
        return told


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST /v1/webhooks/{path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


# -- proofs


def altered(world: GatewayWorld, how: str) -> dict[str, str]:
    now = time.time()
    good = world.signed("shop", BODY, f"bad-{how}")
    return {
        "missing": {},
        "wrong": {**good, "webhook-signature": "v1," + "A" * 44},
        "expired": world.signed("shop", BODY, "bad-expired", now - 400),
        "future": world.signed("shop", BODY, "bad-future", now + 400),
        "other id": {**good, "webhook-id": "bad-other"},
        "garbage": {**good, "webhook-signature": "\xff" * 50},
    }[how]


@pytest.mark.parametrize("how", ["missing", "wrong", "expired", "future", "other id", "garbage"])
def test_what_is_not_proven_is_refused_like_an_unknown_source(world: GatewayWorld, how: str) -> None:
    headers = altered(world, how)
    mine, stranger = world.post("shop", BODY, headers), world.post("no-such", BODY, headers)
    assert mine.status == stranger.status == 401
    assert mine.body == stranger.body
    assert dict(mine.headers) == dict(stranger.headers)
    assert not [event for event in world.events() if event.id.startswith("bad-")]


def test_of_two_signatures_one_is_right(world: GatewayWorld) -> None:
    headers = world.signed("shop", BODY, "two-1")
    headers["webhook-signature"] = "v1,AAAA " + headers["webhook-signature"]
    assert world.post("shop", BODY, headers).status == 202


def test_a_replayed_request_is_a_duplicate_also_under_a_new_key(world: GatewayWorld) -> None:
    headers = world.signed("shop", BODY, "replay-1")
    assert world.post("shop", BODY, headers).told == {"event_id": "replay-1", "duplicate": False}
    for more in ({}, {"Idempotency-Key": "new"}):
        reply = world.post("shop", BODY, {**headers, **more})
        assert (reply.status, reply.told["duplicate"]) == (202, True)
    assert sum(event.id == "replay-1" for event in world.events()) == 1


def test_a_captured_body_of_github_is_a_duplicate_under_new_ids(world: GatewayWorld) -> None:
    body = b'{"ref": "main", "n": 1}'
    first = world.send("hub", body, "d-1")
    assert (first.status, first.told["duplicate"]) == (202, False)
    for more in ({"X_GitHub_Delivery": "d-2"}, {"Idempotency_Key": "k-2"}):
        again = world.send("hub", body, "d-3", **more)
        assert again.told == {"event_id": first.told["event_id"], "duplicate": True}
    assert stored(world, "hub") == [body]
    assert world.send("hub", b'{"ref": "other"}', "d-1").status == 422


# -- bodies


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "empty-body"),
        (b"{", 400, "invalid-json"),
        (b"[1]", 400, "not-an-object"),
        (b"7", 400, "not-an-object"),
        (b'{"a": 1, "a": 2}', 400, "duplicate-keys"),
        (b'{"a": NaN}', 400, "invalid-json"),
        (b'{"a": "\\ud800"}', 400, "invalid-json"),
        (b'{"a": "\x00"}', 400, "invalid-json"),
        (b'{"a": "\xff"}', 400, "invalid-json"),
        (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, "too-deep"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', 413, "too-large"),
    ],
)
def test_bodies_that_are_refused(world: GatewayWorld, body: bytes, status: int, kind: str) -> None:
    before = len(stored(world, "open"))
    reply = world.post("open", body, {"Idempotency-Key": "refused"})
    assert (reply.status, reply.told["type"]) == (status, f"urn:ingest:problem:{kind}")
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert {"title", "status", "detail", "retry"} <= set(reply.told)
    assert len(stored(world, "open")) == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "\\u0000"}',
        b'{"a": "' + b"y" * 1_000_000 + b'"}',
        b'{"url": "http://127.0.0.1:1/", "x": "file:///etc/passwd"}',
    ],
    ids=["escaped NUL", "a million characters", "URLs"],
)
def test_bodies_that_are_stored_as_they_are(world: GatewayWorld, body: bytes) -> None:
    assert world.post("open", body).status == 202
    assert stored(world, "open").count(body) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "application/x-ndjson"}, 415),
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "gzip"}, 400),
        ({"Idempotency-Key": "a\tb"}, 400),
        ({"Idempotency-Key": "x" * 300}, 400),
        ({"ce-id": "1"}, 400),
        ({"ce-specversion": "1.0", "ce-id": "a%0D%0AX-Evil: 1", "ce-source": "/s", "ce-type": "t"}, 400),
        ({"X-Big": "x" * 40_000}, 431),
    ],
)
def test_headers_that_are_refused(world: GatewayWorld, headers: dict[str, str], status: int) -> None:
    before = len(stored(world, "open"))
    assert world.post("open", BODY, headers).status == status
    assert len(stored(world, "open")) == before


def test_a_bomb_does_not_unfold(world: GatewayWorld) -> None:
    for bomb in (gzip.compress(b'{"a": "' + b" " * (1 << 26) + b'"}'), gzip.compress(gzip.compress(bytes(1 << 26)))):
        reply = world.post("open", bomb, {"Content-Encoding": "gzip"})
        assert reply.status in (413, 400), reply.body
    good = b'{"compressed": 1}'
    assert world.post("open", gzip.compress(good), {"Content-Encoding": "gzip"}).status == 202
    assert stored(world, "open").count(good) == 1


# -- the wire


def test_chunked_bodies_are_taken(world: GatewayWorld) -> None:
    text = head("open", "Content-Type: application/json", "Transfer-Encoding: chunked")
    told = raw(world, text, b'9\r\n{"chunk":\r\n', b"2\r\n1}\r\n", b"0\r\n\r\n", pause=0.05)
    assert told.startswith(b"HTTP/1.1 202"), told
    assert stored(world, "open").count(b'{"chunk":1}') == 1


def test_a_body_shorter_than_it_says_stores_nothing(world: GatewayWorld) -> None:
    before = len(stored(world, "open"))
    assert not raw(world, head("open", "Content-Length: 100") + b'{"a": 1}', close=True).startswith(b"HTTP/1.1 2")
    told = raw(world, head("open", "Content-Length: 100") + b'{"a": 1}')
    assert told.startswith(b"HTTP/1.1 408"), told
    assert b"connection: close" in told
    assert len(stored(world, "open")) == before


def test_a_body_longer_than_it_says_stores_what_it_says(world: GatewayWorld) -> None:
    body = b'{"longer": 1}'
    told = raw(world, head("open", f"Content-Length: {len(body)}") + body + b"garbage\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 202"), told
    assert stored(world, "open").count(body) == 1


@pytest.mark.parametrize(
    "bad",
    [
        b"NONSENSE\r\n\r\n",
        head("open", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("open", "Content-Length: -1") + b"{}",
        head("open", "Content-Length: 2", "Content-Length: 8") + b"{}",
        head("open", "Bad Header: x", "Content-Length: 2") + b"{}",
        b"POST /v1/webhooks/open HTTP/1.1\r\nHost: x\r\nX: \x00\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_what_is_no_http_is_refused(world: GatewayWorld, bad: bytes) -> None:
    before = len(stored(world, "open"))
    told = raw(world, bad)
    assert told.startswith(b"HTTP/1.1 400"), told
    assert b"application/problem+json" in told
    assert len(stored(world, "open")) == before


def test_slow_headers_and_bodies_are_not_waited_for(world: GatewayWorld) -> None:
    began = time.monotonic()
    told = raw(world, b"POST /v1/webhooks/open HTTP/1.1\r\n")
    assert told.startswith(b"HTTP/1.1 408"), told
    drip = [bytes([byte]) for byte in b"X-A:"]
    assert raw(world, head("open")[:-2], *drip, pause=0.2).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 6


def test_a_body_that_does_not_come_in_time_is_answered_and_counted(world: GatewayWorld) -> None:
    drip = [b'{"a":', b" ", b" ", b" ", b" "]
    told = raw(world, head("open", "Content-Length: 100"), *drip, pause=0.4)
    assert told.startswith(b"HTTP/1.1 408") and b"the body was not complete after 1 s" in told
    counts = [line for line in world.metrics().splitlines() if line.startswith("ingest_webhook_requests_total")]
    assert any('outcome="timeout"' in line and 'source="open"' in line for line in counts), counts


def test_a_body_that_nobody_waits_for_any_more_is_not_waited_for(world: GatewayWorld) -> None:
    with socket.create_connection(("127.0.0.1", world.port()), timeout=30) as made:
        made.sendall(b"PUT /v1/webhooks/open HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        told = b""
        while piece := made.recv(65536):
            told += piece
    assert told.startswith(b"HTTP/1.1 405") and told.count(b"HTTP/1.1") == 1


def test_headers_without_an_end_are_cut_off(world: GatewayWorld) -> None:
    told = raw(world, b"POST /v1/webhooks/open HTTP/1.1\r\n" + b"X-A: " + b"b" * 50_000)
    assert told.startswith(b"HTTP/1.1 431"), told


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head("open", f"Content-Length: {1 << 26}"), b"413"),
        (head("open", "Transfer-Encoding: chunked") + b"4000000\r\n", b"413"),
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"POST /v1/webhooks/open HTTP/1.1\r\nX-A: ", b"431"),
    ],
    ids=["declared", "chunked", "no HTTP", "headers"],
)
def test_a_producer_that_sends_all_before_it_reads_is_told_why(
    world: GatewayWorld, request_head: bytes, status: bytes
) -> None:
    told = raw(world, request_head, bytes([120]) * (1 << 26))
    assert told.startswith(b"HTTP/1.1 " + status), told


def test_a_producer_that_never_stops_sending_is_cut_off(world: GatewayWorld) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", world.port()), timeout=3) as made:
        made.sendall(head("open", f"Content-Length: {1 << 30}"))
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 20:
                made.sendall(b"x")
                time.sleep(0.01)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("open", "PUT", 405),
        ("open", "GET", 405),
        ("no-such", "GET", 405),
        ("open/other", "POST", 404),
        ("../../health", "POST", 404),
        ("", "POST", 404),
        ("x" * 5000, "POST", 404),
    ],
)
def test_other_paths_and_methods(world: GatewayWorld, path: str, method: str, status: int) -> None:
    reply = world.post(path, BODY, method=method)
    assert reply.status == status
    assert reply.told["status"] == status


# -- repeats, rates, batches


def test_a_key_used_for_another_body_is_refused(world: GatewayWorld) -> None:
    assert world.post("open", b'{"v": 1}', {"Idempotency-Key": "same"}).status == 202
    assert world.post("open", b'{"v": 1}', {"Idempotency-Key": '"same"'}).told["duplicate"] is True
    reply = world.post("open", b'{"v": 2}', {"Idempotency-Key": "same"})
    assert (reply.status, reply.told["type"]) == (422, "urn:ingest:problem:key-reused")


def test_a_source_may_leave_repeats_to_the_normalizer(world: GatewayWorld) -> None:
    replies = [world.post("twice", BODY).told for _ in range(2)]
    assert replies[0] == replies[1] and replies[0]["duplicate"] is False
    assert len({event.identity for event in world.events() if event.object.source == "twice"}) == 1


def test_a_source_has_its_rate(world: GatewayWorld) -> None:
    replies = [world.post("slow", json.dumps({"n": n}).encode()) for n in range(5)]
    assert [reply.status for reply in replies][:3] == [202] * 3
    late = replies[4]
    assert late.status == 429
    assert int(late.headers["Retry-After"]) >= 1
    assert (late.headers["RateLimit-Limit"], late.headers["RateLimit-Remaining"]) == ("3", "0")
    batch = world.post("slow/batch", b'[{"n":1},{"n":2},{"n":3},{"n":4}]')
    assert batch.status == 413


def test_a_batch_is_answered_item_by_item(world: GatewayWorld) -> None:
    body = b'[{"i": 1},  {"i": 2, "i": 3}, 7, {"i":   4}, {"i": 1}]'
    reply = world.post("open/batch", body)
    assert reply.status == 207
    assert [item["status"] for item in reply.told["items"]] == [202, 400, 400, 202, 202]
    assert (reply.told["accepted"], reply.told["refused"]) == (3, 2)
    assert reply.told["items"][4]["duplicate"] is True
    assert [stored(world, "open").count(text) for text in (b'{"i": 1}', b'{"i":   4}')] == [1, 1]


def test_a_batch_of_lines_and_of_cloud_events(world: GatewayWorld) -> None:
    lines = world.post("open/batch", b'{"l": 1}\n{"l": 2}\n', {"Content-Type": "application/x-ndjson"})
    assert (lines.status, lines.told["accepted"]) == (202, 2)
    event = {"specversion": "1.0", "source": "/a", "type": "made", "data": {}}
    many = json.dumps([{**event, "id": f"ce-{n}"} for n in range(3)]).encode()
    for accepted in (False, True):
        reply = world.post("open", many, {"Content-Type": "application/cloudevents-batch+json"})
        assert [item["duplicate"] for item in reply.told["items"]] == [accepted] * 3
    found = [event for event in world.events() if event.id.startswith("ce-")]
    assert {(event.source, event.type, event.content_type) for event in found} == {
        ("/a", "made", "application/cloudevents+json")
    }


def test_a_binary_cloud_event_keeps_its_names(world: GatewayWorld) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "bin-1", "ce-source": "/s", "ce-type": "t", "ce-subject": "x"}
    assert world.post("open", b'{"data": 1}', headers).told["event_id"] == "bin-1"
    (event,) = [event for event in world.events() if event.id == "bin-1"]
    assert (event.source, event.type, event.attributes) == ("/s", "t", {"subject": "x"})


def test_a_handshake_is_answered_if_it_is_proven(world: GatewayWorld) -> None:
    body = b'{"type": "url_verification", "challenge": "c1"}'
    reply = world.send("hub", body, "h-1")
    assert (reply.status, reply.body) == (200, b"c1")
    assert world.post("hub", body).status == 401
    assert body not in stored(world, "hub")
