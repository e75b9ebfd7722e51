"""Pure core of the gateway: what makes two posts the same event, and which event a post is.

A key of idempotency is, in this order: the Idempotency-Key header, the id the producer's scheme gives, a CloudEvent's
source and id, the hash of the body. Where the body is signed and that id is not, the hash of the body counts too:
whoever saw a signed body can't have it stored again under a new id.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ingestcore.datasets.http_source import Scheme
from services.webhook_gateway.cloud_events import Attributes
from services.webhook_gateway.problems import Kind, Problem

_PRINTABLE: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_PLAIN_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
_TYPE: Final = re.compile(r"[\x21-\x7e]{1,200}")
DEFAULT_TYPE: Final = "webhook"

_UNSIGNED_IDS: Final = {Scheme.GITHUB: b"x-github-delivery", Scheme.SHOPIFY: b"x-shopify-webhook-id"}
_SIGNED_FIELDS: Final = {Scheme.STRIPE: "id", Scheme.SLACK: "event_id"}
_TYPE_HEADERS: Final = {
    Scheme.GITHUB: (b"x-github-event", "com.github."),
    Scheme.SHOPIFY: (b"x-shopify-topic", "com.shopify."),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """claims       what is claimed for the event, the deciding one first; each names it within its source
    identity     equal for deliveries of the same event: what the normalizer goes by
    event_id     what the producer is told
    fingerprint  of the body
    """

    claims: tuple[str, ...]
    identity: str
    event_id: str
    fingerprint: str


def idempotency_key(headers: Mapping[bytes, bytes]) -> str:
    """-> the header's value without its quotes; "": none. Raises Problem."""
    given = headers.get(b"idempotency-key")
    if given is None:
        return ""
    text = given.strip()
    if len(text) > 1 and text[:1] == text[-1:] == b'"':
        text = text[1:-1]
    return _printable(text, "Idempotency-Key")


def scheme_id(scheme: Scheme, headers: Mapping[bytes, bytes], event: Mapping[str, Any]) -> tuple[str, bool]:
    """-> the id that a scheme gives an event, and whether it is signed; "": none. Raises Problem."""
    if scheme is Scheme.STANDARD_WEBHOOKS:
        return _printable(headers[b"webhook-id"], "webhook-id"), True
    name = _UNSIGNED_IDS.get(scheme)
    if name is not None:
        given = headers.get(name)
        return ("", False) if given is None else (_printable(given, name.decode()), False)
    value = event.get(_SIGNED_FIELDS.get(scheme, ""))
    if isinstance(value, str) and _PLAIN_KEY.fullmatch(value):
        return value, True
    return "", False


def identify(
    tenant: str,
    source: str,
    scheme: Scheme,
    headers: Mapping[bytes, bytes],
    event: Mapping[str, Any],
    body: bytes,
    cloud: Attributes | None,
    item: int = 0,
) -> Identity:
    """Whose event it is.

    event, body  decoded and as bytes; of a batch: the item's
    item         number in its batch, from 1; 0: it came alone
    Raises Problem: an id is unusable.
    """
    digest = hashlib.sha256(body).hexdigest()
    by_body, of_batch = f"sha256:{digest}", f":{item}" if item else ""
    key = idempotency_key(headers)
    own, signed = scheme_id(scheme, headers, event)
    by_id = f"id:{own}{of_batch}" if own else ""
    by_cloud = f"ce:{cloud.source} {cloud.id}" if cloud else ""
    chosen = (f"key:{key}{of_batch}" if key else "") or by_id or by_cloud or by_body
    guard = (by_id if signed else by_body) if scheme.signs else chosen
    claims = (_short(chosen),) if chosen == guard else (_short(chosen), _short(guard))
    if cloud is not None:
        name = cloud.id
    elif own and chosen == by_id:
        name = own + of_batch
    else:
        name = hashlib.sha256(f"{tenant}\n{source}\n{chosen}".encode()).hexdigest()[:32]
    return Identity(claims, _short(guard), name, digest[:32])


def type_of(scheme: Scheme, headers: Mapping[bytes, bytes], event: Mapping[str, Any]) -> str:
    """-> CloudEvents type of an event that is none by itself."""
    name, prefix = _TYPE_HEADERS.get(scheme, (b"", ""))
    told = headers.get(name, b"").decode("latin-1") if name else event.get("type")
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
