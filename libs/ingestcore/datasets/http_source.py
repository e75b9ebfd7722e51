"""A source of webhooks: who may post, how often, and what makes two posts the same event."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ingestcore.datasets.spec_values import Seconds, Spec

WEEK_SECONDS: Final = 7 * 86_400.0
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Scheme(StrEnum):
    """How a producer proves that a post is its own."""

    STANDARD_WEBHOOKS = "standard-webhooks"
    GITHUB = "github"
    STRIPE = "stripe"
    SLACK = "slack"
    SHOPIFY = "shopify"
    HMAC = "hmac"
    BEARER = "bearer"
    BASIC = "basic"
    OPEN = "open"

    @property
    def signs(self) -> bool:
        """Whether the proof covers the body."""
        return self not in (Scheme.BEARER, Scheme.BASIC, Scheme.OPEN)

    @property
    def signs_time(self) -> bool:
        """Whether the proof is worthless after a while."""
        return self in (Scheme.STANDARD_WEBHOOKS, Scheme.STRIPE, Scheme.SLACK)


class Auth(Spec):
    """What a post must carry."""

    scheme: Scheme
    """`standard-webhooks`, `github`, `stripe`, `slack`, `shopify`, `hmac`, `bearer`, `basic`, or `open`: anybody
    may post"""

    secrets: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = Field(default=(), repr=False)
    """One, or several while they are rotated: any of them counts. Write references, see Secrets. `bearer`: the tokens;
    `basic`: the passwords"""

    tolerance: Seconds = 300.0
    """How far a signed time may be from ours, into the past and the future"""

    username: str | None = None
    """Of `basic`"""

    header: str | None = None
    """Of `hmac`: the header with the signature; left out: `X-Signature`"""

    prefix: str = ""
    """Of `hmac`: what stands before the signature in its header, e.g. `sha256=`"""

    encoding: Literal["hex", "base64"] = "hex"
    """Of `hmac`: how the signature is written"""

    algorithm: Literal["sha1", "sha256", "sha384", "sha512"] = "sha256"
    """Of `hmac`: the hash"""

    @field_validator("header")
    @classmethod
    def _is_header(cls, value: str | None) -> str | None:
        if value is not None and not _HEADER.fullmatch(value):
            raise ValueError(f"{value!r} is no header: a name like X-Signature")
        return value

    @model_validator(mode="after")
    def _fits_scheme(self) -> Auth:
        name = self.scheme.value
        if self.scheme is Scheme.OPEN:
            if self.secrets:
                raise ValueError("secrets are not asked for by `open`: leave them out, or choose another scheme")
        elif not self.secrets or not all(self.secrets):
            raise ValueError(f"{name} needs its secrets: references like ${{NAME}}")
        if self.scheme is Scheme.BASIC and not self.username:
            raise ValueError("basic needs its user: its username")
        if self.scheme is not Scheme.BASIC and self.username is not None:
            raise ValueError(f"username is of `basic`, not of {name}: leave it out")
        for field in ("header", "prefix", "encoding", "algorithm"):
            given = getattr(self, field) != type(self).model_fields[field].default
            if self.scheme is not Scheme.HMAC and given:
                raise ValueError(f"{field} is of `hmac`, {name} says it itself: leave it out")
        return self


class Idempotency(Spec):
    """When a post is a repeat."""

    enabled: bool = True
    """`false`: repeats are left to the normalizer, which drops them too"""

    ttl: Seconds = Field(default=WEEK_SECONDS, ge=1)
    """How long an answer is remembered"""


class RateLimit(Spec):
    """A token bucket, shared by all replicas."""

    max_per_second: float = Field(gt=0)
    """Events a second in the long run"""

    burst_size: int | None = Field(default=None, gt=0)
    """Events at once after a pause; left out: those of one second"""

    @property
    def burst(self) -> int:
        return self.burst_size or max(1, int(self.max_per_second))


class Challenge(Spec):
    """A handshake: the producer asks whether this URL is willing, and wants a value back."""

    method: Literal["POST", "GET"] = "POST"
    """`POST`: a field of a JSON body, signed like any other post; `GET`: a parameter of the query"""

    name: str = Field(default="challenge", min_length=1)
    """The field or parameter whose value goes back, e.g. `challenge`, `hub.challenge`"""

    when: dict[str, str] = Field(default_factory=lambda: {"type": "url_verification"})
    """Fields or parameters that make it a handshake, with their values, e.g. `hub.mode: subscribe`; with `GET` a value
    may be a token: write a reference"""

    answer: Literal["text", "json"] = "text"
    """The value alone, or `{"<name>": value}`"""


class HttpSource(Spec):
    """Webhooks: `POST /v1/webhooks/<source>`."""

    auth: Auth
    """Who may post (below)"""

    idempotency: Idempotency = Idempotency()
    """When a post is a repeat (below)"""

    rate_limit: RateLimit | None = None
    """`max_per_second`, `burst_size`; left out: none"""

    challenge: Challenge | None = None
    """A handshake before the first event (below); left out: none"""
