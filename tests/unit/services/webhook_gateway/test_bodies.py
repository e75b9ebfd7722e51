"""What a body may be: JSON, compressed, batches, CloudEvents, handshakes. Every refusal is a problem with a status."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingestcore.datasets.http_source import Challenge
from services.webhook_gateway import challenge, cloud_events, payload
from services.webhook_gateway.encoding import decoded
from services.webhook_gateway.media import Media, media_of
from services.webhook_gateway.problems import Kind, Problem


def refused(call: Callable[[], Any]) -> Kind:
    with pytest.raises(Problem) as raised:
        call()
    document = raised.value.document()
    assert document["status"] == raised.value.kind.status and document["detail"]
    return raised.value.kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"", Kind.EMPTY_BODY),
        (b" \n", Kind.EMPTY_BODY),
        (b"{", Kind.INVALID_JSON),
        (b'{"a": NaN}', Kind.INVALID_JSON),
        (b'{"a": Infinity}', Kind.INVALID_JSON),
        (b'{"a": "\\ud800"}', Kind.INVALID_JSON),
        (b'{"a": "\xed\xa0\x80"}', Kind.INVALID_JSON),
        (b'{"a": "\xff"}', Kind.INVALID_JSON),
        (b'{"a": 1}\x00', Kind.INVALID_JSON),
        (b'{"a": "\x00"}', Kind.INVALID_JSON),
        (b"\xef\xbb\xbf{}", Kind.INVALID_JSON),
        ('{"a": 1}'.encode("utf-16"), Kind.INVALID_JSON),
        (b'{"a": 1} {"b": 2}', Kind.INVALID_JSON),
        (b"[1]", Kind.NOT_AN_OBJECT),
        (b'"text"', Kind.NOT_AN_OBJECT),
        (b"7", Kind.NOT_AN_OBJECT),
        (b"null", Kind.NOT_AN_OBJECT),
        (b'{"a": 1, "a": 2}', Kind.DUPLICATE_KEYS),
        (b'{"x": [{"a": 1, "\\u0061": 2}]}', Kind.DUPLICATE_KEYS),
        (b'{"a":' * 65 + b"1" + b"}" * 65, Kind.TOO_DEEP),
        (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", Kind.TOO_DEEP),
    ],
)
def test_what_is_no_event(text: bytes, kind: Kind) -> None:
    assert refused(lambda: payload.read_object(text, 64)) is kind


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b'{"a": "\\u0000"}',
        b'{"a":' * 64 + b"1" + b"}" * 64,
        b'{"a": [' + b"[],{}," * 200 + b"1]}",
        b'{"a": "' + b"x" * 1_000_000 + b'"}',
        b'{"a": {"b": 1}, "b": {"a": 1}}',
        '{"a": "ü\U0001f600"}'.encode(),
    ],
)
def test_what_is_an_event(text: bytes) -> None:
    assert payload.read_object(text, 64) == json.loads(text)


def test_batches_keep_the_bytes_of_each_item() -> None:
    assert payload.items_of_array(b' [ {"a":  1.0} , {"b":"\\u00e9"}]', 5) == [b'{"a":  1.0}', b'{"b":"\\u00e9"}']
    assert payload.items_of_lines(b'{"a": 1}\r\n\n{"b": 2}', 5) == [b'{"a": 1}\r', b'{"b": 2}']


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"", Kind.EMPTY_BODY),
        (b"[]", Kind.EMPTY_BODY),
        (b"{}", Kind.INVALID_JSON),
        (b"[1,", Kind.INVALID_JSON),
        (b"[" * 100_000, Kind.INVALID_JSON),
        (b"[1,2,3,4,5,6]", Kind.TOO_LARGE),
    ],
)
def test_what_is_no_batch(text: bytes, kind: Kind) -> None:
    assert refused(lambda: payload.items_of_array(text, 5)) is kind


# -- compressed


def inflate(body: bytes, encoding: bytes) -> bytes:
    return decoded(body, encoding, max_bytes=1 << 20, max_ratio=100)


def test_compressed_bodies_are_read() -> None:
    text = b'{"a": 1}' * 50
    raw = zlib.compressobj(wbits=-15)
    assert inflate(gzip.compress(text), b"gzip") == text
    assert inflate(gzip.compress(text[:8]) + gzip.compress(text[8:]), b"x-gzip") == text
    assert inflate(zlib.compress(text), b"deflate") == text
    assert inflate(raw.compress(text) + raw.flush(), b"deflate") == text
    assert inflate(text, b"identity") == text


@pytest.mark.parametrize(
    ("body", "encoding", "kind"),
    [
        (gzip.compress(bytes(1 << 24)), b"gzip", Kind.TOO_LARGE),
        (gzip.compress(bytes(1 << 19)), b"gzip", Kind.TOO_LARGE),
        (b"".join(gzip.compress(bytes(1 << 16)) for _ in range(20)), b"gzip", Kind.TOO_LARGE),
        (zlib.compress(bytes(1 << 24)), b"deflate", Kind.TOO_LARGE),
        (b"not gzip", b"gzip", Kind.BAD_ENCODING),
        (gzip.compress(b"{}")[:-3], b"gzip", Kind.BAD_ENCODING),
        (zlib.compress(b"{}") + b"more", b"deflate", Kind.BAD_ENCODING),
        (b"{}", b"br", Kind.MEDIA_TYPE),
        (b"{}", b"gzip, gzip", Kind.MEDIA_TYPE),
    ],
    # Packed bytes hold the time they were packed at: two workers that collect a second apart would differ.
    ids=[
        "bomb",
        "within the size, beyond the ratio",
        "many members",
        "zlib bomb",
        "not gzip",
        "cut",
        "more behind it",
        "unknown encoding",
        "packed twice",
    ],
)
def test_bombs_and_damage(body: bytes, encoding: bytes, kind: Kind) -> None:
    assert refused(lambda: inflate(body, encoding)) is kind


# -- media types


@pytest.mark.parametrize(
    ("content_type", "media"),
    [
        (b"", Media.JSON),
        (b"application/json", Media.JSON),
        (b'Application/JSON; charset="UTF-8"', Media.JSON),
        (b"application/vnd.shop.order+json", Media.JSON),
        (b"application/cloudevents+json", Media.CLOUD_EVENT),
        (b"application/cloudevents-batch+json", Media.CLOUD_EVENTS),
        (b"application/x-ndjson", Media.LINES),
    ],
)
def test_media_types_that_are_taken(content_type: bytes, media: Media) -> None:
    assert media_of(content_type) is media


@pytest.mark.parametrize(
    "content_type", [b"text/plain", b"application/xml", b"application/json; charset=latin-1", b"\xff"]
)
def test_media_types_that_are_not(content_type: bytes) -> None:
    assert refused(lambda: media_of(content_type)) is Kind.MEDIA_TYPE


# -- CloudEvents


def test_a_binary_cloud_event() -> None:
    headers = {
        b"ce-specversion": b"1.0", b"ce-id": b"7", b"ce-source": b"/shop", b"ce-type": b"order",
        b"ce-subject": b"Z%C3%BCrich", b"ce-time": b"2026-01-02T03:04:05Z", b"content-type": b"application/json",
    }  # fmt: skip
    assert cloud_events.is_binary(headers)
    found = cloud_events.of_headers(headers)
    assert (found.id, found.source, found.type, found.time) == ("7", "/shop", "order", "2026-01-02T03:04:05Z")
    assert found.more == {"subject": "Zürich"}


def test_a_structured_cloud_event() -> None:
    event = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order", "sequence": 3, "data": {"a": 1}}
    found = cloud_events.of_envelope(event)
    assert (found.id, found.content_type, found.more) == ("7", "application/cloudevents+json", {"sequence": "3"})


@pytest.mark.parametrize(
    "change",
    [
        {"specversion": "0.3"}, {"specversion": None}, {"id": ""}, {"id": None}, {"source": None}, {"type": None},
        {"id": "a\r\nX-Evil: 1"}, {"id": "\ud800"}, {"id": {"a": 1}}, {"Bad-Name": "x"}, {"subject": "x" * 2000},
        {"data_base64": "AAAA"},
    ],
)  # fmt: skip
def test_what_is_no_cloud_event(change: dict[str, Any]) -> None:
    event = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order", **change}
    assert refused(lambda: cloud_events.of_envelope(event)) is Kind.BAD_CLOUD_EVENT


# -- handshakes


def test_a_handshake_in_the_body() -> None:
    slack = Challenge()
    assert challenge.of_body(slack, {"type": "url_verification", "challenge": "abc"}) == (
        b"text/plain; charset=utf-8",
        b"abc",
    )
    assert challenge.of_body(slack, {"type": "event_callback", "challenge": "abc"}) is None
    assert challenge.of_body(None, {"type": "url_verification", "challenge": "abc"}) is None


def test_a_handshake_in_the_query() -> None:
    hub = Challenge(method="GET", name="hub.challenge", when={"hub.mode": "subscribe", "hub.verify_token": "t"})
    assert challenge.of_query(hub, b"hub.mode=subscribe&hub.verify_token=t&hub.challenge=42") == (
        b"text/plain; charset=utf-8",
        b"42",
    )
    for query in (b"hub.mode=subscribe&hub.verify_token=x&hub.challenge=42", b"", b"hub.challenge=42"):
        assert challenge.of_query(hub, query) is None
    assert challenge.of_query(hub, b"hub.mode=subscribe&hub.verify_token=t&hub.challenge=%0D%0AX") is None
    assert challenge.of_query(Challenge(), b"challenge=42&type=url_verification") is None


def test_the_producers_page_lists_every_problem_and_no_other() -> None:
    page = (Path(__file__).parents[4] / "docs" / "webhooks.md").read_text()
    _, _, answers = page.partition("### Answers\n")
    shown = [line for line in answers.partition("\n## ")[0].splitlines() if re.match(r"\| \d", line)]
    meant = [
        f"| {m.status} | `{kind.slug}` | {m.title} | {m.advice} | {'yes' if m.retry else 'no'} |"
        for kind in Kind
        for m in (kind.value,)
    ]
    assert shown == meant
