"""Proofs of origin, over the raw body, in constant time. Pure: the time is given.

Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks (v1, symmetric). GitHub, Stripe, Slack and
Shopify: as their documentation of webhooks says.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from ingestcore.datasets.http_source import Auth, Scheme

Headers = Mapping[bytes, bytes]
"""By lower-case name; the values of a header that came twice are joined with a comma."""

CANDIDATES: Final = 16
"""Signatures of one post that are looked at."""
DEFAULT_HEADER: Final = "X-Signature"
_STANDARD_PREFIX: Final = "whsec_"
_DIGITS: Final = 15


class Cause(StrEnum):
    """Why a proof does not count. For metrics and logs: a producer is not told, nor is an attacker."""

    MISSING = "missing"
    MALFORMED = "malformed"
    WRONG = "wrong"
    EXPIRED = "expired"
    FUTURE = "future"
    UNKNOWN_SOURCE = "unknown_source"


Check = Callable[[Headers, bytes, float], "Cause | None"]
"""Headers, raw body, seconds since 1970 -> None: proven."""


class UnusableSecret(ValueError):
    """A secret is not what its scheme wants. The message holds none of it."""


def checker(auth: Auth) -> Check:
    """-> what judges the posts of a source whose references are resolved. Raises UnusableSecret."""
    texts = [secret.encode() for secret in auth.secrets]
    match auth.scheme:
        case Scheme.OPEN:
            return lambda headers, body, now: None
        case Scheme.BEARER:
            return _one_of([b"bearer " + text for text in texts])
        case Scheme.BASIC:
            user = (auth.username or "").encode()
            return _one_of([b"basic " + base64.b64encode(user + b":" + text) for text in texts])
        case Scheme.STANDARD_WEBHOOKS:
            return _standard([_standard_key(secret) for secret in auth.secrets], auth.tolerance)
        case Scheme.STRIPE:
            return _stripe(texts, auth.tolerance)
        case Scheme.SLACK:
            return _slack(texts, auth.tolerance)
        case Scheme.GITHUB:
            return _body_alone(texts, b"x-hub-signature-256", b"sha256=", "hex", "sha256")
        case Scheme.SHOPIFY:
            return _body_alone(texts, b"x-shopify-hmac-sha256", b"", "base64", "sha256")
        case Scheme.HMAC:
            header = (auth.header or DEFAULT_HEADER).lower().encode()
            return _body_alone(texts, header, auth.prefix.encode(), auth.encoding, auth.algorithm)


def pretend(body: bytes) -> None:
    """Do for a source that does not exist what is done for one that does."""
    hmac.compare_digest(hmac.digest(b"no such source", body, "sha256"), bytes(32))


def _standard_key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_STANDARD_PREFIX), validate=True)
    except binascii.Error:
        raise UnusableSecret("a secret of standard-webhooks is base64, with or without `whsec_` before it") from None
    if not key:
        raise UnusableSecret("a secret of standard-webhooks is empty")
    return key


def _standard(keys: Sequence[bytes], tolerance: float) -> Check:
    def check(headers: Headers, body: bytes, now: float) -> Cause | None:
        name, moment = headers.get(b"webhook-id"), headers.get(b"webhook-timestamp")
        given = headers.get(b"webhook-signature")
        if not name or not moment or not given:
            return Cause.MISSING
        signatures = [s[3:] for s in given.replace(b",v1,", b" v1,").split()[:CANDIDATES] if s.startswith(b"v1,")]
        if not signatures:
            return Cause.MALFORMED
        signed = b"%b.%b.%b" % (name, moment, body)
        if not _any_equal(signatures, (base64.b64encode(hmac.digest(key, signed, "sha256")) for key in keys)):
            return Cause.WRONG
        return _late(moment, now, tolerance)

    return check


def _stripe(keys: Sequence[bytes], tolerance: float) -> Check:
    def check(headers: Headers, body: bytes, now: float) -> Cause | None:
        given = headers.get(b"stripe-signature")
        if not given:
            return Cause.MISSING
        parts = [part.strip().partition(b"=") for part in given.split(b",")[: 2 * CANDIDATES]]
        moment = next((value for name, _, value in parts if name == b"t"), b"")
        signatures = [value for name, _, value in parts if name == b"v1"][:CANDIDATES]
        if not moment or not signatures:
            return Cause.MALFORMED
        signed = moment + b"." + body
        if not _any_equal(signatures, (hmac.digest(key, signed, "sha256").hex().encode() for key in keys)):
            return Cause.WRONG
        return _late(moment, now, tolerance)

    return check


def _slack(keys: Sequence[bytes], tolerance: float) -> Check:
    def check(headers: Headers, body: bytes, now: float) -> Cause | None:
        given, moment = headers.get(b"x-slack-signature"), headers.get(b"x-slack-request-timestamp")
        if not given or not moment:
            return Cause.MISSING
        signatures = [s.strip() for s in given.split(b",")[:CANDIDATES] if s.strip().startswith(b"v0=")]
        if not signatures:
            return Cause.MALFORMED
        signed = b"v0:%b:%b" % (moment, body)
        if not _any_equal(signatures, (b"v0=" + hmac.digest(key, signed, "sha256").hex().encode() for key in keys)):
            return Cause.WRONG
        return _late(moment, now, tolerance)

    return check


def _body_alone(keys: Sequence[bytes], header: bytes, prefix: bytes, encoding: str, algorithm: str) -> Check:
    written = _hex if encoding == "hex" else base64.b64encode

    def check(headers: Headers, body: bytes, now: float) -> Cause | None:
        given = headers.get(header)
        if not given:
            return Cause.MISSING
        signatures = [s.strip() for s in given.split(b",")[:CANDIDATES]]
        signatures = [s[len(prefix) :] for s in signatures if s.startswith(prefix)]
        if not signatures:
            return Cause.MALFORMED
        if encoding == "hex":
            signatures = [s.lower() for s in signatures]
        proven = _any_equal(signatures, (written(hmac.digest(key, body, algorithm)) for key in keys))
        return None if proven else Cause.WRONG

    return check


def _one_of(accepted: Sequence[bytes]) -> Check:
    def check(headers: Headers, body: bytes, now: float) -> Cause | None:
        given = headers.get(b"authorization")
        if not given:
            return Cause.MISSING
        scheme, _, value = given.partition(b" ")
        return None if _any_equal([scheme.lower() + b" " + value.strip()], accepted) else Cause.WRONG

    return check


def _hex(digest: bytes) -> bytes:
    return digest.hex().encode()


def _any_equal(given: Sequence[bytes], expected: Iterable[bytes]) -> bool:
    """All pairs are compared, so that the time tells nothing."""
    found = False
    for one in expected:
        for other in given:
            found |= hmac.compare_digest(one, other)
    return found


def _late(moment: bytes, now: float, tolerance: float) -> Cause | None:
    """Looked at after the signature: nobody learns our clock without the secret."""
    if not moment.isdigit() or len(moment) > _DIGITS:
        return Cause.MALFORMED
    age = now - int(moment)
    if age > tolerance:
        return Cause.EXPIRED
    return Cause.FUTURE if age < -tolerance else None
