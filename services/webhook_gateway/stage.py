"""Pure core of the gateway: what makes two posts the same event, and which event a post is.

A key of idempotency is, in this order: the Idempotency-Key header, the id the producer's scheme gives, a CloudEvent's
source and id, the hash of the body. Where the body is signed and that id is not, the hash of the body counts too:
whoever saw a signed body can't have it stored again under a new id.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ingestcore.datasets.http_source import Scheme
from services.webhook_gateway.cloud_events import Attributes
from services.webhook_gateway.problems import Kind, Problem

_PRINTABLE: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_PLAIN_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
_TYPE: Final = re.compile(r"[\x21-\x7e]{1,200}")
DEFAULT_TYPE: Final = "webhook"

_ID_HEADERS: Final = {
    Scheme.STANDARD_WEBHOOKS: b"webhook-id",
    Scheme.GITHUB: b"x-github-delivery",
    Scheme.SHOPIFY: b"x-shopify-webhook-id",
}
_ID_FIELDS: Final = {Scheme.STRIPE: "id", Scheme.SLACK: "event_id"}
_UNSIGNED: Final = (Scheme.GITHUB, Scheme.SHOPIFY)
"""Schemes whose id stands beside what is signed."""
_TYPE_HEADERS: Final = {
    Scheme.GITHUB: (b"x-github-event", "com.github."),
    Scheme.SHOPIFY: (b"x-shopify-topic", "com.shopify."),
}


class Identity(NamedTuple):
    """keys         what is claimed for the event, the deciding one first; each names it within its source
    fingerprint  of the body
    identity     equal for deliveries of the same event: what the normalizer goes by
    event_id     what the producer is told
    """

    keys: tuple[str, ...]
    fingerprint: str
    identity: str
    event_id: str


def idempotency_key(headers: Mapping[bytes, bytes]) -> str:
    """-> the header's value without its quotes; "": none. Raises Problem."""
    given = headers.get(b"idempotency-key")
    if given is None:
        return ""
    text = given.strip()
    if len(text) > 1 and text[:1] == text[-1:] == b'"':
        text = text[1:-1]
    return _printable(text, "Idempotency-Key")


class Names:
    """Names the events of one post. Raises Problem: an id is unusable."""

    def __init__(
        self, tenant: str, source: str, scheme: Scheme, headers: Mapping[bytes, bytes], prefix: str = ""
    ) -> None:
        """prefix: of all keys."""
        self._prefix = prefix
        self._place, self._signs = f"{tenant}\n{source}\n", scheme.signs
        self._field_name = _ID_FIELDS.get(scheme)
        self._key = idempotency_key(headers)
        header = _ID_HEADERS.get(scheme)
        given = headers.get(header) if header else None
        self._own = "" if header is None or given is None else _printable(given, header.decode())
        self._own_is_signed = scheme not in _UNSIGNED

    def of(self, event: Mapping[str, Any], body: bytes, cloud: Attributes | None = None, item: int = 0) -> Identity:
        """event, body  decoded and as bytes; of a batch: the item's
        item         number in its batch, from 1; 0: it came alone
        """
        digest = hashlib.sha256(body).hexdigest()
        by_body, of_batch = f"sha256:{digest}", f":{item}" if item else ""
        own = self._own or self._field(event)
        by_id = f"id:{own}{of_batch}" if own else ""
        by_cloud = f"ce:{cloud.source} {cloud.id}" if cloud else ""
        chosen = (f"key:{self._key}{of_batch}" if self._key else "") or by_id or by_cloud or by_body
        guard = chosen
        if self._signs:
            guard = by_id if own and self._own_is_signed else by_body
        identity = _short(guard)
        last = self._prefix + identity
        keys = (last,) if chosen == guard else (self._prefix + _short(chosen), last)
        if cloud is not None:
            name = cloud.id
        elif own and chosen == by_id:
            name = own + of_batch
        else:
            name = hashlib.sha256(f"{self._place}{chosen}".encode()).hexdigest()[:32]
        return Identity(keys, digest[:32], identity, name)

    def _field(self, event: Mapping[str, Any]) -> str:
        """-> the id that the scheme gives an event within its body; "": none."""
        if self._field_name is None:
            return ""
        value = event.get(self._field_name)
        return value if isinstance(value, str) and _PLAIN_KEY.fullmatch(value) else ""


def type_in_headers(scheme: Scheme, headers: Mapping[bytes, bytes]) -> str | None:
    """-> CloudEvents type that a scheme's header gives all events of a post; None: the scheme has no such header."""
    header, prefix = _TYPE_HEADERS.get(scheme, (b"", ""))
    return _type(headers.get(header, b"").decode("latin-1"), prefix) if header else None


def type_of(event: Mapping[str, Any]) -> str:
    """-> CloudEvents type of an event that is none by itself."""
    return _type(event.get("type"))


def _type(told: Any, prefix: str = "") -> str:
    return prefix + told if isinstance(told, str) and _TYPE.fullmatch(told) else DEFAULT_TYPE


def _printable(value: bytes, name: str) -> str:
    if not _PRINTABLE.fullmatch(value):
        raise Problem(Kind.BAD_KEY, f"{name} is empty, too long or not printable ASCII")
    return value.decode("ascii")


def _short(key: str) -> str:
    """-> fit for a Redis key that people read, and for a header."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    kind = key.partition(":")[0]
    return f"{kind}:{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
