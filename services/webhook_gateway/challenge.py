"""Handshakes: a producer asks whether this URL is willing before it sends events. Pure."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from ingestcore.datasets.http_source import Challenge

_VALUE_CHARACTERS: Final = 1024
_PLAIN: Final = re.compile(r"[\x20-\x7e]+")


def of_body(challenge: Challenge | None, event: Mapping[str, Any]) -> tuple[bytes, bytes] | None:
    """-> content type and body of the answer; None: this is an event."""
    if challenge is None or challenge.method != "POST":
        return None
    return _answer(challenge, {name: value for name, value in event.items() if isinstance(value, str)})


def of_query(challenge: Challenge | None, query: bytes) -> tuple[bytes, bytes] | None:
    """-> content type and body of the answer; None: refused."""
    if challenge is None or challenge.method != "GET":
        return None
    return _answer(challenge, dict(parse_qsl(query.decode("latin-1"), max_num_fields=50)))


def _answer(challenge: Challenge, given: Mapping[str, str]) -> tuple[bytes, bytes] | None:
    matches = [hmac.compare_digest(given.get(k, "").encode(), v.encode()) for k, v in challenge.when.items()]
    value = given.get(challenge.name, "")
    # Printable only, and never as a page: what a stranger sends comes back as nothing a browser acts on.
    if not all(matches) or len(value) > _VALUE_CHARACTERS or not _PLAIN.fullmatch(value):
        return None
    if challenge.answer == "json":
        return b"application/json", orjson.dumps({challenge.name: value})
    return b"text/plain; charset=utf-8", value.encode()
