"""CloudEvents 1.0 over HTTP: attributes of the binary and the structured mode. Pure.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from ingestcore.messages.events import JSON, SPEC_VERSION, STRUCTURED
from services.webhook_gateway.problems import Kind, Problem

BATCHED: Final = "application/cloudevents-batch+json"
_CORE: Final = ("specversion", "id", "source", "type", "time", "datacontenttype")
_PAYLOAD: Final = ("data", "data_base64")
_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TEXT_CHARACTERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Attributes:
    """Of one CloudEvent; `content_type` is that of the message: STRUCTURED where the envelope is the body."""

    id: str
    source: str
    type: str
    time: str = ""
    content_type: str = JSON
    more: Mapping[str, str] = field(default_factory=dict)


def is_binary(headers: Mapping[bytes, bytes]) -> bool:
    return b"ce-specversion" in headers or b"ce-id" in headers


def of_headers(headers: Mapping[bytes, bytes]) -> Attributes:
    """Binary mode. Raises Problem."""
    named = {name[3:].decode("latin-1"): value for name, value in headers.items() if name.startswith(b"ce-")}
    try:
        # As the binding says, what is no printable ASCII comes as UTF-8 in %XX.
        texts = {name: unquote(value.decode("ascii"), errors="strict") for name, value in named.items()}
    except UnicodeDecodeError:
        raise Problem(Kind.BAD_CLOUD_EVENT, "a ce- header is not ASCII with %XX for the rest") from None
    return _attributes(texts, JSON)


def of_envelope(event: Mapping[str, Any]) -> Attributes:
    """Structured mode, and each item of a batch. Raises Problem."""
    if "data_base64" in event:
        raise Problem(Kind.BAD_CLOUD_EVENT, "`data_base64` is not taken: send JSON in `data`")
    return _attributes({name: value for name, value in event.items() if name not in _PAYLOAD}, STRUCTURED)


def _attributes(named: Mapping[str, Any], content_type: str) -> Attributes:
    if named.get("specversion") != SPEC_VERSION:
        given = str(named.get("specversion"))[:20]
        raise Problem(Kind.BAD_CLOUD_EVENT, f"specversion is {given!r}, {SPEC_VERSION!r} is read")
    texts = {name: _text(name, value) for name, value in named.items() if value is not None}
    for name in ("id", "source", "type"):
        if not texts.get(name):
            raise Problem(Kind.BAD_CLOUD_EVENT, f"`{name}` is missing")
    more = {name: text for name, text in texts.items() if name not in _CORE and text}
    return Attributes(texts["id"], texts["source"], texts["type"], texts.get("time", ""), content_type, more)


def _text(name: str, value: Any) -> str:
    if not _NAME.fullmatch(name):
        raise Problem(Kind.BAD_CLOUD_EVENT, f"{name[:64]!r} is no attribute: lower-case letters and digits")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise Problem(Kind.BAD_CLOUD_EVENT, f"`{name}` is no text")
    if len(value) > _TEXT_CHARACTERS or _CONTROL.search(value):
        raise Problem(
            Kind.BAD_CLOUD_EVENT, f"`{name}` has control characters or more than {_TEXT_CHARACTERS} characters"
        )
    return value
