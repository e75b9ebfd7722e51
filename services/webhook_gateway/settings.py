"""Settings of the gateway, read from `INGEST_WEBHOOK_GATEWAY_*`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from ingestcore.datasets.spec import Seconds, Size
from ingestcore.settings import Settings


def _addresses(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class GatewaySettings(Settings):
    """What one process takes. Who may post, and how often, is the source's own."""

    model_config = SettingsConfigDict(env_prefix="INGEST_WEBHOOK_GATEWAY_")

    host: str = "127.0.0.1"
    """Address it listens at; `0.0.0.0` in a container"""

    port: int = Field(default=3001, ge=0, le=65535)
    """Port of `/v1/webhooks/...`; 0: any free one, which `/health/detailed` tells"""

    share_port: bool = False
    """Let replicas on one machine listen at the same port; the system spreads connections"""

    redis_url: str | None = Field(default=None, repr=False)
    """Redis for idempotency and rates, where `REDIS_URL` is not set"""

    buffer_size: int = Field(default=500, gt=0)
    """Events that are sent to Kafka together at most. While nothing is on its way an event is sent at once"""

    batch_interval: Seconds = 0.02
    """The longest an event waits for others, while some are on their way"""

    max_in_flight: int = Field(default=20_000, gt=0)
    """Events taken and not answered yet; more get 503"""

    max_in_flight_bytes: Size = Field(default=128 << 20, gt=0)
    """Their bodies; more get 503"""

    max_connections: int = Field(default=2_000, gt=0)
    """More are closed at once"""

    max_body_bytes: Size = Field(default=1 << 20, gt=0, le=3 << 20)
    """Of one event, as sent and decompressed; larger gets 413"""

    max_batch_bytes: Size = Field(default=8 << 20, gt=0)
    """Of one batch"""

    max_batch_items: int = Field(default=10_000, gt=0)
    """Events of one batch"""

    max_ratio: int = Field(default=100, gt=1)
    """How many times its size a compressed body may become"""

    max_depth: int = Field(default=64, gt=0, le=500)
    """Levels of JSON"""

    max_header_bytes: Size = Field(default=32 << 10, gt=0)
    """Request line and headers; larger gets 431"""

    header_seconds: Seconds = Field(default=10.0, gt=0)
    """Until the headers of a request must be there"""

    body_seconds: Seconds = Field(default=30.0, gt=0)
    """Until its body must be there, else 408; what follows a refusal is discarded for as long, so that it is read"""

    keep_alive_seconds: Seconds = Field(default=75.0, gt=0)
    """An idle connection is closed after this long"""

    ack_seconds: Seconds = Field(default=5.0, ge=1)
    """Until Kafka must have an event, else 503"""

    wait_seconds: Seconds = 5.0
    """How long a post waits for the same event that is still in flight, else 409"""

    retry_after_seconds: Seconds = Field(default=5.0, gt=0)
    """What producers are told to wait when something is away"""

    redis_seconds: Seconds = Field(default=0.5, gt=0)
    """Until Redis must answer; else it counts as away for a moment, and events are taken without it"""

    through_fastapi: bool = False
    """Let FastAPI route the events as well: slower, to compare"""

    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_addresses)] = ()
    """Addresses or networks whose X-Forwarded-For is believed, separated by commas"""
