"""Every answer that is no success, as a problem document (RFC 9457): what is wrong and what the producer does now."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

import orjson

TYPE: Final = "urn:ingest:problem:"
CONTENT_TYPE: Final = b"application/problem+json"


class Meaning(NamedTuple):
    """status; title; advice to the producer; whether the same post may succeed later."""

    status: int
    title: str
    advice: str
    retry: bool = False


class Kind(Enum):
    """By the last part of the problem's `type`."""

    EMPTY_BODY = Meaning(400, "The body is empty", "Send one JSON object")
    INVALID_JSON = Meaning(400, "The body is not valid JSON", "Send UTF-8 JSON as RFC 8259 says, without NaN")
    NOT_AN_OBJECT = Meaning(400, "The event is no JSON object", "Send {...}; lists go to .../batch")
    DUPLICATE_KEYS = Meaning(400, "A key stands twice in one object", "Send each key once: readers differ about it")
    TOO_DEEP = Meaning(400, "The JSON is nested too deeply", "Send a flatter event")
    BAD_ENCODING = Meaning(400, "The body can't be decompressed", "Send gzip or deflate as Content-Encoding says")
    BAD_KEY = Meaning(400, "An id can't be used", "Send an id of 1 to 255 printable ASCII characters")
    BAD_CLOUD_EVENT = Meaning(400, "Not a CloudEvent 1.0", "Send specversion 1.0, id, source and type")
    BAD_REQUEST = Meaning(400, "The request can't be read", "Mend the request line and headers")
    UNAUTHORIZED = Meaning(
        401,
        "The post is not proven to be yours",
        "Check the URL's source name, the secret, and that the raw body is signed as sent, with a clock that is right",
    )
    NOT_FOUND = Meaning(404, "Nothing is here", "POST to /v1/webhooks/{source} or /v1/webhooks/{source}/batch")
    METHOD = Meaning(405, "Only POST is taken here", "Send a POST")
    TIMEOUT = Meaning(408, "The request did not arrive in time", "Send it again, faster", retry=True)
    IN_FLIGHT = Meaning(409, "The same event is still being stored", "Send it again later", retry=True)
    TOO_LARGE = Meaning(413, "The request is too large", "Send less at once")
    MEDIA_TYPE = Meaning(415, "This media type is not taken", "Send application/json in UTF-8")
    KEY_REUSED = Meaning(422, "The id was used for another body", "Use a new id for a new event")
    RATE_LIMITED = Meaning(429, "Too many events", "Wait as Retry-After says", retry=True)
    HEADERS_TOO_LARGE = Meaning(431, "The headers are too large", "Send fewer or shorter headers")
    INTERNAL = Meaning(500, "The gateway failed", "Send it again later", retry=True)
    BUSY = Meaning(503, "The gateway is full", "Send it again as Retry-After says", retry=True)
    STORE_AWAY = Meaning(503, "The event could not be stored", "Send it again as Retry-After says", retry=True)
    DRAINING = Meaning(503, "The gateway takes nothing new", "Send it again as Retry-After says", retry=True)
    NOT_READY = Meaning(503, "The source is not ready", "Send it again as Retry-After says", retry=True)

    @property
    def slug(self) -> str:
        return self.name.lower().replace("_", "-")

    @property
    def status(self) -> int:
        return self.value.status


@dataclass(slots=True)
class Problem(Exception):
    """detail: what is wrong with this very request, without anything secret. retry_after: seconds, a whole number is
    sent. cause: for metrics, never told to the producer."""

    kind: Kind
    detail: str = ""
    retry_after: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    cause: str = ""

    def document(self, **more: Any) -> dict[str, Any]:
        meaning = self.kind.value
        detail = f"{self.detail}. {meaning.advice}" if self.detail else meaning.advice
        told = {"type": TYPE + self.kind.slug, "title": meaning.title, "status": meaning.status, "detail": detail}
        return told | {"retry": meaning.retry} | more

    def body(self) -> bytes:
        return orjson.dumps(self.document())

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        headers = list(self.headers)
        if self.retry_after is not None:
            headers.append((b"retry-after", str(max(1, round(self.retry_after + 0.499))).encode()))
        return headers
