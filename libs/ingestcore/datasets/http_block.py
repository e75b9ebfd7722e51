"""The one-source style of JSON configurations for webhooks (`http: {port, bufferSize, ...}`) in terms of our specs."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from ingestcore.datasets.http_source import WEEK_SECONDS, Auth, RateLimit
from ingestcore.datasets.spec_values import Seconds, Spec

NAME: Final = "http"
"""The source's and the dataset's name."""
SERVICE: Final = "webhook-gateway"
SECRET: Final = "HTTP_WEBHOOK_SECRET"
"""Variable with the secret of a block that names none. Where it is not set the source takes nothing and says so."""


class BlockIdempotency(Spec):
    """`ttl` in seconds."""

    enabled: bool = True
    ttl: Seconds = Field(default=WEEK_SECONDS, ge=1)
    redis_url: str | None = Field(default=None, repr=False)


class HttpBlock(Spec):
    """buffer_size: events that are sent to Kafka at once at the latest; batch_interval: or after this many
    milliseconds. Without `auth` a post must be signed as Standard Webhooks say."""

    enabled: bool = True
    port: int | None = Field(default=None, ge=0, le=65535)
    buffer_size: int | None = Field(default=None, gt=0)
    batch_interval: int | None = Field(default=None, ge=0)
    idempotency: BlockIdempotency = BlockIdempotency()
    rate_limit: RateLimit | None = None
    auth: Auth | None = None

    def source(self) -> dict[str, Any]:
        """-> value of a SourceSpec."""
        http: dict[str, Any] = {
            "auth": self.auth.model_dump(exclude_unset=True)
            if self.auth
            else {"scheme": "standard-webhooks", "secrets": [f"${{{SECRET}:-}}"]},
            "idempotency": self.idempotency.model_dump(include={"enabled", "ttl"}),
        }
        if self.rate_limit:
            http["rate_limit"] = self.rate_limit.model_dump(exclude_unset=True)
        return {"http": http}

    def services(self) -> dict[str, dict[str, str]]:
        """-> settings of services."""
        interval = None if self.batch_interval is None else f"{self.batch_interval}ms"
        given = {
            "port": self.port,
            "buffer_size": self.buffer_size,
            "batch_interval": interval,
            "redis_url": self.idempotency.redis_url,
        }
        return {SERVICE: {name: str(value) for name, value in given.items() if value is not None}}


NO_AUTH: Final = (
    f"nothing says who may post: posts must be signed (Standard Webhooks) with the secret in {SECRET}",
    "auth: {scheme: ..., secrets: [...]}, or auth: {scheme: open}",
)
