"""Content-Type of a post: what kind of body it announces. Pure."""

from __future__ import annotations

from enum import Enum, auto
from functools import lru_cache
from typing import Final

from ingestcore.messages.events import STRUCTURED
from services.webhook_gateway.cloud_events import BATCHED
from services.webhook_gateway.problems import Kind, Problem

NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_ACCEPTED: Final = ((b"accept-post", b"application/json, application/cloudevents+json, application/x-ndjson"),)
_UTF_8: Final = ("", "utf-8", "utf8", "us-ascii")


class Media(Enum):
    JSON = auto()
    CLOUD_EVENT = auto()
    CLOUD_EVENTS = auto()
    LINES = auto()


@lru_cache(maxsize=256)
def media_of(content_type: bytes) -> Media:
    """No Content-Type is taken for JSON. Raises Problem."""
    text, *parameters = content_type.decode("latin-1").split(";")
    name = text.strip().lower()
    named = (parameter.partition("=") for parameter in parameters)
    charset = next(
        (value.strip().strip('"').lower() for key, _, value in named if key.strip().lower() == "charset"), ""
    )
    if charset not in _UTF_8:
        raise Problem(Kind.MEDIA_TYPE, f"charset {charset[:40]!r} is not taken", headers=_ACCEPTED)
    if name == STRUCTURED:
        return Media.CLOUD_EVENT
    if name == BATCHED:
        return Media.CLOUD_EVENTS
    if name in NDJSON:
        return Media.LINES
    if name in ("", "application/json", "text/json") or (name.startswith("application/") and name.endswith("+json")):
        return Media.JSON
    raise Problem(Kind.MEDIA_TYPE, f"Content-Type {name[:60]!r} is not taken", headers=_ACCEPTED)
