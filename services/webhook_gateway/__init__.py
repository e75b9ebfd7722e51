"""webhook-gateway: takes events over HTTP and answers 202 once Kafka has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestcore.runtime.service import Service
from services.webhook_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from ingestcore.runtime.service import Context, Receiver


def build(context: Context) -> Receiver:
    from services.webhook_gateway.server import Gateway

    return Gateway(context)


SERVICE = Service(
    name="webhook-gateway",
    summary="Takes events from producers: proven, limited, once; answers when Kafka has them",
    settings=GatewaySettings,
    build=build,
    consumes=None,
    produces=("events",),
    takes="http",
    listens=True,
)
